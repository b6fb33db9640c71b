"""A client of ``POST /infer/<model>``: sends prompts and reads the returned mask."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import requests
import SimpleITK as sitk
from PIL import Image

# Options of OHIF and 3D Slicer (raw NRRD, bytes), so that timings include what they receive.
VIEWER_OPTIONS = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}


class InferenceError(RuntimeError):
    """The server answered with an error."""


@dataclass(frozen=True)
class Answer:
    """One answer of ``/infer/``.

    Attributes:
        seconds: Time from sending the request to the last byte of the answer.
        content: Bytes of the file.
        file_name: Name of the file.
        params: JSON beside the file.
        wire_bytes: Bytes of the answer's body as it came, compressed where the server did that.
    """

    seconds: float
    content: bytes
    file_name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    wire_bytes: int = 0

    def mask(self) -> np.ndarray:
        """Mask as bool, axes [i, j, k] of the file (2-D images: [x, y])."""
        return read_mask(self.content, self.file_name)


class Viewer:
    """A client with one persistent connection, like browsers and ``requests`` sessions."""

    def __init__(self, url: str, *, timeout_seconds: float = 3600.0) -> None:
        self._url = url
        self._timeout = timeout_seconds
        self._session = requests.Session()

    def infer(self, model: str, image: str, params: Mapping[str, Any]) -> Answer:
        """Sends one request.

        Raises:
            InferenceError: the status is not 200; the message has the server's reason.
        """
        started = time.perf_counter()
        response = self._session.post(
            f"{self._url}/infer/{model}",
            params={"image": image},
            files={"params": (None, json.dumps(params))},
            timeout=self._timeout,
        )
        content = response.content
        seconds = time.perf_counter() - started
        if response.status_code != 200:
            raise InferenceError(f"{model} on {image}: {response.status_code} {response.text[:500]}")
        answer = parse_answer(content, response.headers["content-type"], seconds)
        return replace(answer, wire_bytes=response.raw.tell())


def parse_answer(content: bytes, content_type: str, seconds: float = 0.0) -> Answer:
    """Splits a ``multipart/form-data`` answer into its file (``image``) and its JSON (``params``)."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + content)
    params: Mapping[str, Any] = {}
    body, file_name = b"", ""
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        if not isinstance(payload, bytes):
            continue
        name = part.get_param("name", header="content-disposition")
        if name == "params":
            params = json.loads(payload)
        elif name == "image":
            body, file_name = payload, part.get_filename() or ""
    if not file_name:
        raise InferenceError(f"no file in an answer of type {content_type}")
    return Answer(seconds, body, file_name, params)


def read_mask(content: bytes, file_name: str) -> np.ndarray:
    """Decodes a NIfTI, NRRD or PNG mask to bool, axes [i, j, k] (PNG: [x, y])."""
    if file_name.endswith((".png", ".jpg", ".jpeg", ".bmp", ".tif")):
        return np.asarray(Image.open(io.BytesIO(content)).convert("L")).T > 0
    suffix = ".nii.gz" if file_name.endswith(".nii.gz") else Path(file_name).suffix
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask{suffix}"
        path.write_bytes(content)
        if suffix.startswith(".nii"):
            return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj) > 0
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return np.transpose(array) > 0
