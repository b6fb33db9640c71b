"""Tokens of an identity provider (OpenID Connect, such as Keycloak), verified with its public keys."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import jwt
import requests
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import InvalidTokenError, PyJWKClient, PyJWKClientConnectionError
from monailabel.config import settings

from lib.errors import BusyError, SettingsError

logger = logging.getLogger(__name__)

__all__ = ["InvalidTokenError", "TokenVerifier", "read_public_key"]

# Signatures that need the provider's private key. Symmetric ones and "none" would let anybody make tokens.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
# Clocks differ.
_LEEWAY_S = 30
_DISCOVERY = "/.well-known/openid-configuration"


class TokenVerifier:
    """Verifies access tokens and exchanges passwords for them.

    MONAI Label's settings name the provider: ``MONAI_LABEL_AUTH_REALM_URI`` (the issuer, whose OpenID
    configuration names the keys), ``MONAI_LABEL_AUTH_CLIENT_ID`` (the audience, in ``aud`` or, as with
    Keycloak, in ``azp``) and ``MONAI_LABEL_AUTH_TOKEN_...`` (claims of name and roles). Nothing is fetched
    before the first token arrives.

    Args:
        public_key: PEM of the provider's key; None to fetch the provider's own key set (JWKS).
    """

    def __init__(self, public_key: str | None = None):
        self._public_key = public_key
        self._issuer = settings.MONAI_LABEL_AUTH_REALM_URI.rstrip("/")
        self._client_id = settings.MONAI_LABEL_AUTH_CLIENT_ID
        self._lock = threading.Lock()
        self._configuration: dict[str, Any] | None = None
        self._keys: PyJWKClient | None = None

    def verify(self, token: str) -> tuple[str, list[str]]:
        """Name and roles of a token.

        Raises:
            InvalidTokenError: Wrong signature, algorithm, issuer or audience; expired; or no user name.
            BusyError: The identity provider does not answer.
        """
        payload = jwt.decode(
            token,
            self._key(token),
            algorithms=list(ALGORITHMS),
            issuer=self._issuer,
            leeway=_LEEWAY_S,
            options={"require": ["exp", "iss"], "verify_aud": False},
        )
        self._require_audience(payload)
        name = payload.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
        if not isinstance(name, str) or not name:
            raise InvalidTokenError(f"it has no {settings.MONAI_LABEL_AUTH_TOKEN_USERNAME}")
        return name, _roles(payload)

    def exchange(self, name: str, password: str) -> str | None:
        """The provider's token for a user name and password; None where it refuses them.

        Raises:
            BusyError: The identity provider does not answer.
        """
        form = {
            "client_id": self._client_id,
            "username": name,
            "password": password,
            "grant_type": "password",
        }
        address = self._discover()["token_endpoint"]
        try:
            answer = requests.post(address, data=form, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        if not answer.ok:
            return None
        return str(answer.json().get("access_token") or "") or None

    def _require_audience(self, payload: dict[str, Any]) -> None:
        audience = payload.get("aud") or []
        named = [audience] if isinstance(audience, str) else audience
        if self._client_id not in (*named, payload.get("azp")):
            raise jwt.InvalidAudienceError(f"it is for {named}, not for {self._client_id}")

    def _key(self, token: str) -> Any:
        if self._public_key is not None:
            return self._public_key
        with self._lock:
            if self._keys is None:
                address = self._discover()["jwks_uri"]
                self._keys = PyJWKClient(address, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)
        try:
            return self._keys.get_signing_key_from_jwt(token).key
        except PyJWKClientConnectionError as error:
            raise self._unreachable(error) from error
        except jwt.PyJWKClientError as error:
            raise InvalidTokenError(str(error)) from error

    def _discover(self) -> dict[str, Any]:
        """The provider's OpenID configuration."""
        if self._configuration is None:
            try:
                answer = requests.get(self._issuer + _DISCOVERY, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)
                answer.raise_for_status()
                self._configuration = dict(answer.json())
            except (requests.RequestException, ValueError) as error:
                raise self._unreachable(error) from error
        return self._configuration

    def _unreachable(self, error: Exception) -> BusyError:
        logger.error("Identity provider %s: %s", self._issuer, error)
        return BusyError("the identity provider does not answer: try again, or tell the administrator")


def read_public_key(path: Path) -> str:
    """The text of a PEM file with a public key.

    Raises:
        SettingsError: The file cannot be read, or holds no public key.
    """
    try:
        text = path.read_text(encoding="ascii")
        load_pem_public_key(text.encode())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"--conf auth_public_key {path}: no PEM file of a public key ({error})") from None
    return text


def _roles(payload: dict[str, Any]) -> list[str]:
    """The claim of ``MONAI_LABEL_AUTH_TOKEN_ROLES``, whose parts are separated by ``#``."""
    found: Any = payload
    for part in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        found = found.get(part) if isinstance(found, dict) else None
    return [str(role) for role in found] if isinstance(found, list) else []
