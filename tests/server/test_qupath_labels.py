"""What QuPath's extension saves and asks for beside outlines: rectangles, labels, next samples, trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from shapely.geometry import box

from lib.images.cache import ImageCache
from lib.images.reading import read_image
from lib.labels.reading import read_labels
from lib.pathology.opening import open_slide
from tests.support.client import Client
from tests.support.server import Server
from tests.support.slides import Cell


@pytest.fixture
def client(scratch: Server, slides: dict[str, list[Cell]]) -> Client:
    return Client(scratch.url)


def test_a_next_patch_is_asked_for_without_a_content_type(client: Client) -> None:
    patch = b'{"image":"slide","patch_size":[128,128],"image_size":[640,480]}'
    answer = requests.post(f"{client.url}/activelearning/random", data=patch, timeout=60)
    assert answer.status_code == 200, answer.text
    x, y, width, height = answer.json()["bbox"]
    assert (width, height) == (128, 128)
    assert 0 <= x <= 640 - 128
    assert 0 <= y <= 480 - 128


def test_training_is_asked_for_without_a_content_type(client: Client) -> None:
    answer = requests.post(f"{client.url}/train/nothing", data=b"{}", timeout=60)
    assert answer.status_code == 404, "the body was read, and there is no such trainer"
    assert "biosam2" in answer.json()["detail"]


def _submitted(cells: list[Cell], region: list[int]) -> str:
    """Outlines as QuPath's extension writes them: whole numbers from the region's corner."""
    x, y, width, height = region
    lines = []
    for cell in cells:
        corners = [(int(u) - x, int(v) - y) for u, v in cell.outline.exterior.coords[:-1:4]]
        points = "".join(f'<Coordinate Order="{i}" X="{u}" Y="{v}"/>' for i, (u, v) in enumerate(corners))
        lines.append(
            '<Annotation Color="#c80000" Name="organ" PartOfGroup="organ" Type="Polygon">'
            f"<Coordinates>{points}</Coordinates></Annotation>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?><ASAP_Annotations>'
        f'<Annotations Description="" H="{height}" Name="" W="{width}" X="{x}" Y="{y}">{"".join(lines)}'
        '</Annotations><AnnotationGroups><Group Color="#c80000" Name="organ" PartOfGroup="None"/>'
        "</AnnotationGroups></ASAP_Annotations>"
    )


def _put(client: Client, address: str, image: str, field: str, name: str, content: bytes) -> dict[str, Any]:
    answer = requests.put(
        f"{client.url}/datastore/{address}",
        params={"image": image},
        files={field: (name, content), "params": (None, "{}")},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_rectangle_is_submitted_as_an_image_with_its_outlines(
    client: Client, slides: dict[str, list[Cell]], scratch: Server, tmp_path: Path
) -> None:
    region = [40, 60, 200, 160]
    x, y, width, height = region
    inside = [c for c in slides["slide"] if box(x, y, x + width, y + height).contains(c.outline)]
    with open_slide(scratch.studies / "slide.tif", ImageCache(0, 1)) as slide:
        Image.fromarray(slide.read(x, y, width, height)).save(tmp_path / "patch7.png")
    name = f"slide-patch-{x}_{y}_{width}_{height}"
    patch = (tmp_path / "patch7.png").read_bytes()
    assert _put(client, "image", name, "file", "patch7.png", patch)["image"] == name
    outlines = _submitted(inside, region).encode()
    assert _put(client, "label", name, "label", "slide7.xml", outlines)["label"] == name
    image = read_image(scratch.studies / f"{name}.png", 250_000)
    labels = read_labels(scratch.studies / "labels" / "final" / f"{name}.xml", image, [])
    assert set(labels.names.values()) == {"organ"}
    for cell in inside:
        u, v = cell.click[0] - x, cell.click[1] - y
        drawn = labels.array[..., 0] == labels.array[u, v, 0]
        assert labels.array[u, v, 0] > 0
        assert drawn.sum() == pytest.approx(cell.outline.area, rel=0.1)


def test_the_outlines_of_a_whole_slide_are_kept(client: Client, slides: dict[str, list[Cell]]) -> None:
    outlines = _submitted(slides["aperio"], [0, 0, 0, 0]).encode()
    assert _put(client, "label", "aperio", "label", "aperio1.xml", outlines)["label"] == "aperio"
    kept = requests.get(
        f"{client.url}/datastore/label", params={"label": "aperio", "tag": "final"}, timeout=60
    )
    assert kept.content == outlines
