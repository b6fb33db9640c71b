"""The datastore of a server over HTTP, and labels as clients send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import requests
import SimpleITK as sitk

from tests.support import studies
from tests.support.client import LIMIT_S
from tests.support.server import Server
from tests.support.studies import tree_digest, write_nrrd, write_picture

CT = studies.phantom("ct")
TRUTH = (CT.objects["lesion"] + 2 * CT.objects["organ"]).astype(np.uint8)
INFO = {"label_info": [{"name": "lesion", "idx": 1}, {"name": "organ", "idx": 2}]}
# What the server writes into the folder whatever happens, scores of the images among it.
BOOK = "datastore_v2.json"


class Store:
    """The datastore of a server, over HTTP."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(self, method: str, path: str, **others: Any) -> requests.Response:
        url = f"{self.server.url}/datastore{path}"
        return requests.request(method, url, timeout=LIMIT_S, **others)

    def put_label(
        self,
        file: Path,
        image: str = "ct",
        params: Any = INFO,
        *,
        raw: str | None = None,
        name: str | None = None,
        **query: str,
    ) -> requests.Response:
        fields = {"params": (None, json.dumps(params) if raw is None else raw)}
        sent = {"label": (name or file.name, file.read_bytes(), "application/octet-stream")}
        return self.ask("PUT", "/label", params={"image": image, **query}, files={**fields, **sent})

    def put_image(
        self, file: Path, raw: str = "{}", name: str | None = None, **query: str
    ) -> requests.Response:
        sent = {"file": (name or file.name, file.read_bytes()), "params": (None, raw)}
        return self.ask("PUT", "/image", params=query, files=sent)

    def objects(self) -> dict[str, Any]:
        return self.ask("GET", "/", params={"output": "all"}).json()["objects"]

    def label(self, image: str = "ct", tag: str = "final") -> bytes:
        answer = self.ask("GET", "/label", params={"label": image, "tag": tag})
        assert answer.status_code == 200, answer.text
        return answer.content

    def files(self) -> dict[str, str]:
        found = tree_digest(self.server.studies)
        return {name: digest for name, digest in found.items() if name != BOOK and not name.startswith(".")}

    def labels(self) -> dict[str, dict[str, Any]]:
        """What is known of each image's labels, and of what was sent with it."""
        return {
            name: {"labels": item["labels"], "sent": item["image"]["info"].get("user")}
            for name, item in self.objects().items()
        }


def require_ranges_and_tags(url: str, query: dict[str, str]) -> None:
    """A file is sent whole, in parts, or not again; RFC 9110, sections 13 and 14."""

    def get(**headers: str) -> requests.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.get(url, params=query, headers=names, timeout=LIMIT_S)

    whole = get()
    tag, size = whole.headers["ETag"], len(whole.content)
    assert (whole.status_code, whole.headers["Accept-Ranges"]) == (200, "bytes")
    for known in (tag, f'"other", W/{tag}'):
        again = get(If_None_Match=known)
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert get(If_None_Match='"other"').content == whole.content
    for span, part in (
        ("3-9", slice(3, 10)),
        ("-5", slice(size - 5, None)),
        (f"{size - 4}-", slice(-4, None)),
    ):
        answer = get(Range=f"bytes={span}", If_Range=tag)
        assert (answer.status_code, answer.content) == (206, whole.content[part])
        assert answer.headers["Content-Range"].endswith(f"/{size}")
    # The file has changed since the first part: all of it is sent.
    assert get(Range="bytes=3-9", If_Range='"other"').content == whole.content
    beyond = get(Range=f"bytes={size + 1}-")
    assert (beyond.status_code, str(size) in beyond.headers["Content-Range"]) == (416, True)


def reason_of(answer: requests.Response, *statuses: int) -> str:
    """The reason of a refusal, which must have one of the statuses."""
    assert answer.status_code in statuses, f"{answer.status_code}: {answer.text[:500]}"
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert len(detail) > 20
    return detail


def write_seg_nrrd(path: Path) -> Path:
    """As 3D Slicer saves a segmentation that may overlap."""
    image = sitk.ReadImage(str(write_nrrd(path.with_name("plain.nrrd"), TRUTH, CT.affine)))
    for number, name in enumerate(("lesion", "organ")):
        fields = {"ID": f"Segment_{number + 1}", "Name": name, "LabelValue": number + 1, "Layer": 0}
        for key, value in fields.items():
            image.SetMetaData(f"Segment{number}_{key}", str(value))
    sitk.WriteImage(image, str(path))
    return path


def write_asap(path: Path, offset: float = 0.0) -> Path:
    """As QuPath saves polygons: around the cell of the grey picture."""
    x0, y0, x1, y1 = (value + offset for value in studies.phantom("grey").box("cell"))
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    listed = "".join(f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, (x, y) in enumerate(corners))
    path.write_text(
        '<ASAP_Annotations><Annotations><Annotation Name="cell" Type="Polygon" PartOfGroup="cell">'
        f"<Coordinates>{listed}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )
    return path


def write_grey_label(path: Path) -> Path:
    return write_picture(path, studies.phantom("grey").objects["cell"].astype(np.uint8))
