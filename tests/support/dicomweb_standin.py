"""A DICOMweb store in this process. It stands in for Orthanc where that is not installed.

It answers what the server and OHIF ask for (QIDO, WADO of files, metadata and frames, STOW) from files in
memory, by pydicom alone. The same tests run on the real Orthanc where there is one, and the tests of the
viewers run on nothing else.
"""

from __future__ import annotations

import email.parser
import email.policy
import io
import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlparse

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.tag import Tag

ROOT = "/dicom-web"
_STUDY = (
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "PatientName",
    "PatientID",
)
_SERIES = ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "SpecificCharacterSet")
_FILE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns")
_LEVELS = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
_NO_FILTERS = ("limit", "offset", "fuzzymatching", "includefield", "_")
_POLL_S = 0.02
_BOUNDARY = "a-boundary-of-parts"


class DicomWebStandIn:
    """A store that runs while the context is open.

    Attributes:
        requests: method and address with its query, of all that was asked.
        cut_short: how many files of a series are left out when it is sent, as over a broken line.
        refuses: whether it takes no new files.
        is_down: whether it hangs up on everybody.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.cut_short = 0
        self.refuses = False
        self.is_down = False
        self._files: dict[str, bytes] = {}
        self._headers: dict[str, pydicom.Dataset] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.dicomweb_url = self.url + ROOT

    def __enter__(self) -> DicomWebStandIn:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> DicomWebStandIn:
        """Answers from now on."""
        threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Answers nobody any more, also those who are connected."""
        self.is_down = True
        self._server.shutdown()
        self._server.server_close()

    def store(self, *folders: Path) -> None:
        """Takes the ``.dcm`` files of folders."""
        for folder in folders:
            for path in sorted(folder.rglob("*.dcm")):
                self.add(path.read_bytes())

    def add(self, content: bytes) -> pydicom.Dataset:
        """Takes one file."""
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        self._files[header.SOPInstanceUID] = content
        self._headers[header.SOPInstanceUID] = header
        return header

    def remove(self, series_uid: str) -> None:
        """Forgets a series."""
        for uid in [uid for uid, one in self._headers.items() if one.SeriesInstanceUID == series_uid]:
            del self._files[uid], self._headers[uid]

    def series(self) -> list[str]:
        """The Series Instance UIDs of all that is stored, sorted."""
        return sorted({str(header.SeriesInstanceUID) for header in self._headers.values()})

    def select(self, **uids: str) -> list[pydicom.Dataset]:
        """Headers of the files that fit."""
        return [
            header
            for header in self._headers.values()
            if all(str(header.get(name)) == uid for name, uid in uids.items())
        ]

    def content(self, header: pydicom.Dataset) -> bytes:
        """The file of a header."""
        return self._files[header.SOPInstanceUID]


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    store: DicomWebStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def parse_request(self) -> bool:
        """Hangs up where the store is down."""
        self.close_connection = self.store.is_down
        return not self.store.is_down and super().parse_request()

    def do_GET(self) -> None:  # the name that http.server looks for
        """Searches and downloads."""
        self.store.requests.append(f"GET {self.path}")
        address = urlparse(self.path)
        parts = address.path.removeprefix(ROOT).strip("/").split("/")
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        uids = {
            _LEVELS[level]: uid
            for level, uid in zip(parts[::2], parts[1::2], strict=False)
            if level in _LEVELS
        }
        found = self.store.select(**uids)
        if not found and uids:
            self._send(404, b"", "text/plain")
        elif parts[-1] == "metadata":
            self._json([header.to_json_dict() for header in found])
        elif parts[-2:-1] == ["frames"]:
            frame = pydicom.dcmread(io.BytesIO(self.store.content(found[0]))).PixelData
            self._multipart([frame], "application/octet-stream")
        elif len(parts) % 2:
            self._json(_search(self.store.select(**uids), parts[-1], query))
        else:
            kept = found[: len(found) - self.store.cut_short]
            self._multipart([self.store.content(header) for header in kept], "application/dicom")

    def do_POST(self) -> None:
        """Stores."""
        self.store.requests.append(f"POST {self.path}")
        body = self._body()
        if self.store.refuses:
            self._send(409, b"{}", "application/dicom+json")
            return
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        stored = []
        for part in message.iter_parts():
            header = self.store.add(part.get_payload(decode=True))
            stored.append({"00081155": {"vr": "UI", "Value": [str(header.SOPInstanceUID)]}})
        self._json({"00081199": {"vr": "SQ", "Value": stored}})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers["content-length"]))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), "application/dicom+json")

    def _multipart(self, contents: list[bytes], kind: str) -> None:
        parts = [
            b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (_BOUNDARY.encode(), kind.encode(), content)
            for content in contents
        ]
        body = b"".join(parts) + b"--%s--\r\n" % _BOUNDARY.encode()
        self._send(200, body, f'multipart/related; type="{kind}"; boundary={_BOUNDARY}')

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        # As stores that are open to every page; for no client of the server.
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Set-Cookie", "store=1")
        self.end_headers()
        self.wfile.write(body)


def _search(headers: list[pydicom.Dataset], level: str, query: dict[str, str]) -> list[dict[str, Any]]:
    """QIDO: one entry for each study, series or file that fits."""
    filters = {_keyword(name): value for name, value in query.items() if name not in _NO_FILTERS}
    groups: dict[str, list[pydicom.Dataset]] = defaultdict(list)
    for header in headers:
        if all(_fits(header, name, value) for name, value in filters.items()):
            groups[str(header.get(_LEVELS[level]))].append(header)
    entries = []
    for files in groups.values():
        entry = pydicom.Dataset()
        for name in (*_STUDY, *_SERIES, *_FILE):
            if name in files[0]:
                entry.add(files[0].data_element(name))
        entry.NumberOfSeriesRelatedInstances = len(files)
        entry.ModalitiesInStudy = sorted({str(one.Modality) for one in files})
        entries.append(entry.to_json_dict())
    start = int(query.get("offset", 0))
    return entries[start : start + int(query.get("limit", len(entries)))]


def _keyword(name: str) -> str:
    return keyword_for_tag(Tag(name)) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else name


def _fits(header: pydicom.Dataset, name: str, value: str) -> bool:
    return bool(re.fullmatch(re.escape(value).replace(r"\*", ".*"), str(header.get(name, "")), re.IGNORECASE))
