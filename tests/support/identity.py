"""A stand-in for Keycloak: an OpenID configuration, a key set, and tokens for a password."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

KEY_ID = "first"
CLIENT_ID = "monailabel-app"
PASSWORD = "right"


class IdentityProvider:
    """Runs from ``with`` to its end; ``token`` signs what it is told."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(provider.documents.get(self.path))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                if form["password"] != [PASSWORD]:
                    self._answer(None)
                    return
                token = provider.token(form["username"][0], "monailabel-annotator")
                self._answer({"access_token": token, "token_type": "Bearer"})

            def _answer(self, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(401 if document is None else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/realms/hospital"
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.documents: dict[str, Any] = {
            "/realms/hospital/.well-known/openid-configuration": {
                "issuer": self.realm,
                "jwks_uri": f"{self.realm}/certs",
                "token_endpoint": f"{self.realm}/token",
            },
            "/realms/hospital/certs": {"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "RS256"}]},
        }

    def __enter__(self) -> IdentityProvider:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def claims(self, name: str, *roles: str, **others: Any) -> dict[str, Any]:
        """Claims as Keycloak writes them."""
        return {
            "iss": self.realm,
            "azp": CLIENT_ID,
            "aud": "account",
            "exp": int(time.time()) + 600,
            "preferred_username": name,
            "realm_access": {"roles": list(roles)},
            **others,
        }

    def token(self, name: str, *roles: str, **others: Any) -> str:
        """A token of a person with roles; ``others`` replaces claims."""
        claims = {
            key: value for key, value in self.claims(name, *roles, **others).items() if value is not None
        }
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": KEY_ID})
