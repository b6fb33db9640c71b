"""MITK's tool for MONAI Label: TLS alone, the whole image with every click, answers taken apart by hand."""

from __future__ import annotations

import datetime
import ipaddress
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.client import LIMIT_S, read_mask
from tests.support.server import Server
from tests.support.studies import write_nifti

FILE = "post_from_mitk.nii.gz"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for this machine, signed by itself, as a person makes one with openssl."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "key.pem", folder / "certificate.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    paths[0].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    paths[1].write_bytes(certificate.public_bytes(pem))
    return paths


@dataclass(frozen=True)
class Mitk:
    """One person's MITK.

    Args:
        server: which speaks TLS.
        folder: for the files that are sent.
    """

    server: Server
    folder: Path

    def info(self) -> dict[str, Any]:
        """What the tool reads of a server when it connects, in the types that it reads it in."""
        answer = self._ask("GET", "/info/")
        models = {}
        for name, model in answer.json()["models"].items():
            labels = model["labels"]
            assert all(type(value) is int for value in labels.values()) if type(labels) is dict else True
            models[name] = (model["type"], int(model["dimension"]), labels)
        assert all(type(label) is str for label in answer.json()["labels"])
        return models

    def click(
        self,
        model: str,
        image: np.ndarray,
        affine: np.ndarray,
        foreground: Sequence[Sequence[int]],
        background: Sequence[Sequence[int]] = (),
        level_window: tuple[float, float] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """All clicks so far on an image [i, j, k], which is cut off at the view's grey levels, to a mask."""
        file = write_nifti(
            self.folder / FILE, image if level_window is None else image.clip(*level_window), affine
        )
        reset = "true" if len(foreground) == 1 and not background else "false"
        text = (
            f'{{"foreground":{_listed(foreground)},"background":{_listed(background)},"reset_state":{reset}}}'
        )
        files = {"params": (None, text), "file": (FILE, file.read_bytes(), "application/octet-stream")}
        answer = self._ask("POST", f"/infer/{model}", files=files)
        params, content = take_apart(answer.headers["content-type"], answer.content)
        # As every reader of gzip, MITK's does not mind the line end that is left behind the file.
        return read_mask(zlib.decompressobj(wbits=31).decompress(content))[0], params

    def _ask(self, method: str, path: str, **others: Any) -> requests.Response:
        # MITK checks no certificate; this client trusts the one that the server was started with.
        assert self.server.tls is not None
        answer = requests.request(
            method,
            f"{self.server.url}{path}",
            verify=str(self.server.tls[1]),
            headers={"Connection": "close"},
            timeout=LIMIT_S,
            **others,
        )
        assert answer.status_code == 200, answer.text[:2000]
        return answer


def _listed(points: Sequence[Sequence[int]]) -> str:
    return "[" + ",".join(f"[{i},{j},{k}]" for i, j, k in points) + "]"


def take_apart(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """The parameters and the file of an answer, found by plain search for the very words.

    The tool splits at the boundary that the header names, and takes what follows ``Content-Type:
    application/json`` in the first piece, and ``Content-Type: application/octet-stream`` in the second,
    without leading spaces and line ends.
    """
    boundary = b"--" + content_type[content_type.index("boundary=") + len("boundary=") :].encode()
    pieces = [piece for piece in body.split(boundary) if piece]
    _, found, params = pieces[0].partition(b"Content-Type: application/json")
    assert found, pieces[0][:300]
    _, found, content = pieces[1].partition(b"Content-Type: application/octet-stream")
    assert found, pieces[1][:300]
    return json.loads(params), content.lstrip(b" \r\n")
