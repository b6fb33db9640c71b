"""A DICOM store with series in it, a server on it, and what a client asks of that."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from sample_study.dicom import Series
from sample_study.orthanc import Orthanc
from tests.support.client import LIMIT_S, OHIF, Answer, Client
from tests.support.dicomweb_standin import DicomWebStandIn
from tests.support.server import Server


@dataclass
class Site:
    """A store with series in it, and a server on it."""

    store: DicomWebStandIn | Orthanc
    server: Server
    series: dict[str, Series]
    folder: Path

    @property
    def client(self) -> Client:
        assert self.server.alive, self.server.log[-4000:]
        return Client(self.server.url)

    def uid(self, name: str) -> str:
        return self.series[name].series_uid

    def get(self, path: str, **query: Any) -> requests.Response:
        return requests.get(f"{self.server.url}{path}", params=query, timeout=LIMIT_S)

    def put_label(self, image: str, content: bytes, filename: str, params: Any) -> requests.Response:
        return requests.put(
            f"{self.server.url}/datastore/label",
            params={"image": image},
            files={"label": (filename, content), "params": (None, json.dumps(params))},
            timeout=LIMIT_S,
        )

    def infer(self, model: str, name: str, prompts: Any) -> Answer:
        headers = {"Accept": "application/json,multipart/form-data"}
        return self.client.infer(
            model, self.uid(name), {**prompts, **OHIF}, query={"output": "image"}, headers=headers
        )
