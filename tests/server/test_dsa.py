"""The Digital Slide Archive: regions, tiles and whole slides, and its own JSON back."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from shapely.geometry import Polygon

from tests.support.client import Answer, Client
from tests.support.server import Server
from tests.support.slides import Cell, iou

GOOD = 0.85
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(scratch: Server, slides: dict[str, list[Cell]]) -> Client:
    return Client(scratch.url)


def _body(roi: list[float], tiles: list[dict[str, Any]] | None = None, **extra: Any) -> dict[str, Any]:
    """What the plugin's command line tool sends."""
    return {
        "level": 0,
        "location": roi[:2],
        "size": roi[2:],
        "tile_size": [1024, 1024],
        "min_poly_area": 40,
        "output": "dsa",
        "params": {"wsi_tiles": tiles or [], **extra},
        "girder_api_url": None,
        "girder_token": None,
        "client_id": None,
    }


def _ask(client: Client, image: str, body: dict[str, Any]) -> Answer:
    return client.slide("biosam2_pathology", image, body, "dsa", **JSON)


def _outlines(answer: Answer) -> list[Polygon]:
    """The outlines, of a document that the archive takes."""
    assert answer.status == 200, answer.body
    document = json.loads(answer.body)
    assert set(document) == {"name", "elements", "description"}
    assert json.loads(document["description"])["count"] == len(document["elements"])
    for element in document["elements"]:
        assert (element["type"], element["closed"]) == ("polyline", True)
        assert element["group"] == element["label"]["value"] == "lesion"
        assert element["lineColor"].startswith("rgb(")
        assert all(len(point) == 3 and point[2] == 0 for point in element["points"])
    return [Polygon([point[:2] for point in element["points"]]) for element in document["elements"]]


def _require_same(outlines: list[Polygon], cells: list[Cell]) -> None:
    """Every cell has one outline, and every outline is a cell's."""
    assert len(outlines) == len(cells)
    for cell in cells:
        assert max(iou(outline, cell.outline) for outline in outlines) > GOOD


@pytest.fixture(scope="session")
def progress() -> list[Any]:
    """What the progress route told while the whole slide was segmented, and after it."""
    return []


@pytest.fixture(scope="session")
def whole_slide(scratch: Server, slides: dict[str, list[Cell]], progress: list[Any]) -> Answer:
    """Everything on the small slide: six tiles, a third of it glass."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_ask, Client(scratch.url), "small", _body([-1, -1, -1, -1]))
        while not answer.done():
            progress += requests.get(f"{scratch.url}/infer/progress", timeout=60).json()
            time.sleep(0.02)
    progress.append(requests.get(f"{scratch.url}/infer/progress", timeout=60).json())
    return answer.result()


def test_the_progress_of_a_slide_is_told_while_it_is_segmented(
    whole_slide: Answer, progress: list[Any]
) -> None:
    *during, after = progress
    assert during
    assert {(item["model"], item["image"]) for item in during} == {("biosam2_pathology", "small")}
    assert all(0 <= item["done"] <= 1 for item in during)
    assert after == []


def test_a_whole_slide_has_every_nucleus_once(whole_slide: Answer, slides: dict[str, list[Cell]]) -> None:
    outlines = _outlines(whole_slide)
    _require_same(outlines, slides["small"])
    # Tiles meet at x = 144, 192, 228 and 336 and y = 88 and 192: some nucleus lies across one of the lines.
    crossed = [cell for cell in slides["small"] if cell.outline.bounds[0] < 192 < cell.outline.bounds[2]]
    assert crossed


def test_no_two_outlines_overlap(whole_slide: Answer) -> None:
    outlines = _outlines(whole_slide)
    for number, one in enumerate(outlines):
        assert all(one.intersection(other).area < 5 for other in outlines[number + 1 :])


def test_tiles_with_tissue_are_looked_at_and_no_others(client: Client, slides: dict[str, list[Cell]]) -> None:
    # Side by side, as the archive finds them: the nuclei on their seam are whole.
    tiles = [{"location": [0, 0], "size": [100, 190]}, {"location": [100, 0], "size": [90, 190]}]
    outlines = _outlines(_ask(client, "small", _body([-1, -1, -1, -1], tiles)))
    _require_same(outlines, [cell for cell in slides["small"] if cell.x < 190 and cell.y < 190])


def test_tiles_of_two_classes_have_objects_of_both(client: Client, slides: dict[str, list[Cell]]) -> None:
    tiles = [
        {"location": [0, 0], "size": [320, 480], "label": "organ"},
        {"location": [320, 0], "size": [320, 480]},
    ]
    answer = _ask(client, "slide", _body([0, 0, 640, 480], tiles))
    elements = json.loads(answer.body)["elements"]
    assert {element["group"] for element in elements} == {"organ", "lesion"}
    for element in elements:
        middle = Polygon([point[:2] for point in element["points"]]).centroid.x
        assert element["group"] == ("organ" if middle < 320 else "lesion")
        assert 0 < element["user"]["score"] <= 1


def test_points_of_the_archive_are_clicks(client: Client, slides: dict[str, list[Cell]]) -> None:
    cells = slides["slide"][:3]
    points = {"nuclick points": {"points": [[cell.x, cell.y, 0] for cell in cells]}}
    _require_same(_outlines(_ask(client, "slide", _body([-1, -1, -1, -1], annotations=points))), cells)
    x, y = (int(value) - 40 for value in (cells[1].x, cells[1].y))
    _require_same(_outlines(_ask(client, "slide", _body([x, y, 80, 80], annotations=points))), cells[1:2])


def test_extra_params_may_hold_clicks_and_numbers_fractions(
    client: Client, slides: dict[str, list[Cell]]
) -> None:
    cells = slides["slide"][:2]
    clicks = [cell.click for cell in cells]
    body = _body([0.4, 0.0, 639.6, 480.0], foreground=clicks) | {"min_poly_area": 40.5}
    _require_same(_outlines(_ask(client, "slide", body)), cells)


def test_without_an_output_the_answer_is_json_with_scores(
    client: Client, slides: dict[str, list[Cell]]
) -> None:
    cell = slides["slide"][0]
    body = _body([0, 0, 0, 0], foreground=[cell.click])
    answer = json.loads(client.slide("biosam2_pathology", "slide", body, "json", **JSON).body)
    (element,) = answer["annotations"][0]["annotation"]["elements"]
    assert iou(Polygon(element["contours"][0]), cell.outline) > GOOD
    assert 0.5 < element["score"] <= 1
    assert answer["not_found"] == 0
    assert answer["latencies"]["total"] > 0


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (_body([-1, -1, -1, -1], [{"location": [0, 0]}]), 400, "no size"),
        (_body([-1, -1, -1, -1], [{"location": [900, 0], "size": [9, 9]}]), 400, "outside the slide"),
        (_body([-1, -1, -1, -1], ["all"]), 400, "wsi_tiles"),  # type: ignore[list-item]
        (_body([-1, -1, -1, -1], annotations={"nuclick points": {"points": [["a", 1]]}}), 400, "nuclick"),
        (_body([-1, -1, -1, -1], annotations={"nuclick points": {"points": [7]}}), 400, "nuclick"),
    ],
)
def test_a_bad_request_is_refused_with_a_reason(
    client: Client, body: dict[str, Any], status: int, reason: str
) -> None:
    answer = _ask(client, "slide", body)
    assert answer.status == status, answer.body
    assert reason in answer.detail
