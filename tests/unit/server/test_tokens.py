"""Tokens that are verified with a public key in a file, without a provider that answers."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from monailabel.config import settings

from lib.errors import BusyError, SettingsError
from lib.server.tokens import InvalidTokenError, TokenVerifier, read_public_key
from tests.support.identity import IdentityProvider


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> IdentityProvider:
    """Does not run: nothing answers at its address."""
    with IdentityProvider() as found:
        pass
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", found.realm)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_TIMEOUT", 5)
    return found


def test_a_public_key_in_a_file_is_enough(provider: IdentityProvider, tmp_path: Path) -> None:
    public = provider.key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path = tmp_path / "provider.pem"
    path.write_bytes(pem)
    verifier = TokenVerifier(read_public_key(path))
    assert verifier.verify(provider.token("anna", "a", "b")) == ("anna", ["a", "b"])
    for wrong in (
        provider.token("anna", "a", iss="http://evil.example"),
        provider.token("anna", "a", exp=1),
        jwt.encode(provider.claims("anna", "a"), "x" * 32, "HS256"),
    ):
        with pytest.raises(InvalidTokenError):
            verifier.verify(wrong)


def test_a_provider_that_does_not_answer_is_no_refusal(provider: IdentityProvider) -> None:
    with pytest.raises(BusyError, match="does not answer"):
        TokenVerifier().verify(provider.token("anna", "a"))
    with pytest.raises(BusyError, match="does not answer"):
        TokenVerifier().exchange("anna", "right")


def test_a_file_without_a_public_key_is_named(provider: IdentityProvider, tmp_path: Path) -> None:
    path = tmp_path / "provider.pem"
    for content in (None, b"no key", b"\xff"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingsError, match="auth_public_key"):
            read_public_key(path)
