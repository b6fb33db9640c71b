"""Requests as the viewers send them, and answers as they read them."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
from PIL import Image
from requests_toolbelt import MultipartDecoder

# A client waits as long as it takes: no test decides by time.
LIMIT_S = 600

# What OHIF adds to every request.
OHIF = {
    "result_extension": ".nrrd",
    "result_dtype": "uint8",
    "result_compress": False,
    "restore_label_idx": False,
}


@dataclass(frozen=True)
class Part:
    """One part of a multipart answer."""

    name: str
    filename: str | None
    content_type: str
    content: bytes


@dataclass(frozen=True)
class Answer:
    """What came back: a status, and a mask file with parameters or one of the two or an error."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def parts(self) -> list[Part]:
        """The parts of a multipart answer, in order."""
        decoder = MultipartDecoder(self.body, self.headers["content-type"])
        return [_part(part) for part in decoder.parts]

    @property
    def file(self) -> Part:
        """The mask file, from a multipart answer or from the whole body."""
        if self.headers["content-type"].startswith("multipart/"):
            return next(part for part in self.parts if part.filename)
        name = re.search(r'filename="?([^";]+)', self.headers.get("content-disposition", ""))
        return Part("image", name.group(1) if name else None, self.headers["content-type"], self.body)

    @property
    def params(self) -> dict[str, Any]:
        """The JSON beside the mask."""
        if self.headers["content-type"].startswith("multipart/"):
            return json.loads(next(part.content for part in self.parts if part.name == "params"))
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """The reason of a refusal."""
        detail = json.loads(self.body)["detail"]
        return detail if isinstance(detail, str) else json.dumps(detail)

    @property
    def mask(self) -> np.ndarray:
        """The mask as an array [i, j, k], or [x, y, 0] of a picture."""
        return read_mask(self.file.content)[0]


def _part(part: Any) -> Part:
    headers = {key.decode().lower(): value.decode() for key, value in part.headers.items()}
    disposition = headers["content-disposition"]
    name = re.search(r'\bname="([^"]*)"', disposition)
    filename = re.search(r'filename="([^"]*)"', disposition)
    return Part(
        name.group(1) if name else "",
        filename.group(1) if filename else None,
        headers.get("content-type", ""),
        part.content,
    )


def read_mask(content: bytes) -> tuple[np.ndarray, dict[str, str] | nib.Nifti1Image | Image.Image]:
    """Reads NRRD, NIfTI or a picture by its first bytes: array [i, j, k], and header or image."""
    if content.startswith(b"NRRD"):
        return read_nrrd(content)
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    if content[344:347] in (b"n+1", b"ni1"):
        image = nib.Nifti1Image.from_bytes(content)
        return np.asarray(image.dataobj), image
    picture = Image.open(io.BytesIO(content))
    return np.asarray(picture).swapaxes(0, 1)[:, :, None], picture


def read_nrrd(content: bytes) -> tuple[np.ndarray, dict[str, str]]:
    """Reads an NRRD as OHIF does: x fastest, right after the header."""
    head, _, data = content.partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:] if ": " in line)
    if fields["encoding"] in ("gzip", "gz"):
        data = gzip.decompress(data)
    dtype = {"unsigned char": np.uint8, "uint8": np.uint8, "uchar": np.uint8}[fields["type"]]
    sizes = [int(size) for size in fields["sizes"].split()]
    array = np.frombuffer(data, dtype)
    if array.size != np.prod(sizes):
        raise ValueError(f"{array.size} bytes of data for {sizes}")
    return array.reshape(sizes, order="F"), fields


class Client:
    """Speaks to one server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def info(self) -> dict[str, Any]:
        """GET /info/, which must be JSON without NaN and infinities."""
        answer = requests.get(f"{self.url}/info/", timeout=LIMIT_S)
        answer.raise_for_status()
        return json.loads(answer.text, parse_constant=_no_constant)

    def infer(
        self,
        model: str,
        image: str | None = None,
        params: Any = None,
        *,
        file: Path | None = None,
        raw_params: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """POST /infer/{model}: multipart with ``params`` (JSON text) and, where given, a ``file``."""
        fields: dict[str, Any] = {
            "params": (None, json.dumps(params or {}) if raw_params is None else raw_params)
        }
        if file is not None:
            fields["file"] = (file.name, file.read_bytes(), "application/octet-stream")
        asked = {**({"image": image} if image is not None else {}), **(query or {})}
        answer = requests.post(
            f"{self.url}/infer/{model}",
            params=asked,
            files=fields,
            headers=dict(headers or {}),
            timeout=LIMIT_S,
        )
        return Answer(answer.status_code, answer.headers, answer.content)

    def has_image(self, image: str) -> bool:
        """HEAD /datastore/image, as QuPath asks whether a slide has to be sent."""
        return requests.head(f"{self.url}/datastore/image", params={"image": image}, timeout=LIMIT_S).ok

    def slide(
        self, model: str, image: str, body: bytes | Mapping[str, Any], output: str = "asap", **headers: str
    ) -> Answer:
        """POST /infer/wsi/{model} with a JSON body and, as QuPath does it, without a Content-Type."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        asked = {"output": output, "image": image}
        address = f"{self.url}/infer/wsi/{model}"
        answer = requests.post(address, params=asked, data=content, headers=headers, timeout=LIMIT_S)
        return Answer(answer.status_code, answer.headers, answer.content)

    def slide_upload(self, model: str, file: Path, wsi: Any, output: str = "asap") -> Answer:
        """POST /infer/wsi_v2/{model}: multipart with the ``file`` of a patch and ``wsi``, JSON text."""
        fields = {"file": (file.name, file.read_bytes(), "image/png"), "wsi": (None, json.dumps(wsi))}
        address = f"{self.url}/infer/wsi_v2/{model}"
        answer = requests.post(address, params={"output": output}, files=fields, timeout=LIMIT_S)
        return Answer(answer.status_code, answer.headers, answer.content)

    def segment(self, model: str, image: str | None = None, params: Any = None, **others: Any) -> Answer:
        """As ``infer``, for a request that must succeed."""
        answer = self.infer(model, image, params, **others)
        assert answer.status == 200, f"{answer.status}: {answer.body[:2000]!r}"
        return answer

    def ohif(self, model: str, image: str, prompts: Mapping[str, Any]) -> Answer:
        """As OHIF sends it: the mask comes back alone, as a raw NRRD."""
        return self.segment(model, image, {**prompts, **OHIF}, query={"output": "image"})


def _no_constant(text: str) -> float:
    raise AssertionError(f"/info/ holds {text}, which breaks every client")
