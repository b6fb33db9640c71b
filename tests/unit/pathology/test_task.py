"""A slide from the datastore, from a path, and from a Digital Slide Archive that has it elsewhere."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from monailabel.datastore.dsa import DSADatastore
from shapely.geometry import Polygon

from lib.errors import ImageNotFoundError, PromptError
from lib.images.cache import ImageCache
from lib.infers.task import Services
from lib.pathology.task import SlideTask, answer_slide
from lib.settings import Settings
from tests.support.girder import ITEM, girder
from tests.support.slides import Cell, iou, write_slide
from tests.unit.pathology.test_interactive import DarkObjects

CELL = Cell(300, 200, 14, 11, 0)
CLICK = {"model": "biosam2_pathology", "foreground": [CELL.click], "output": "json"}


@pytest.fixture
def tasks():
    network = DarkObjects()
    network.name = "stand-in"
    engines = SimpleNamespace(get=lambda device: network)
    services = Services(Settings(device="cpu"), engines, ImageCache(1 << 20, 1 << 20), ("nucleus",))
    return {"biosam2_pathology": SlideTask(services), "biosam2_box": SlideTask(services, "box")}


@pytest.fixture(scope="module")
def pixels():
    y, x = np.mgrid[:400, :500] + 0.5
    pixels = np.full((400, 500, 3), 230, np.uint8)
    pixels[((x - CELL.x) / CELL.a) ** 2 + ((y - CELL.y) / CELL.b) ** 2 <= 1] = 40
    return pixels


@pytest.fixture
def archive(pixels, tmp_path):
    with girder(pixels, [[300, 200], [30, 20]]) as address:
        yield DSADatastore(address, cache_path=str(tmp_path))


def the_outline(answer):
    (element,) = answer["params"]["annotations"][0]["annotation"]["elements"]
    assert element["label"] == "nucleus"
    return Polygon(element["contours"][0])


def test_a_slide_by_its_path(tasks, pixels, tmp_path):
    path = write_slide(tmp_path / "a.tif", pixels)
    answer = answer_slide(tasks, {**CLICK, "image": str(path)}, SimpleNamespace())
    assert answer["file"] is None
    assert iou(the_outline(answer), CELL.outline) > 0.9


def test_a_slide_by_its_id(tasks, pixels, tmp_path):
    store = SimpleNamespace(get_image_uri=lambda name: str(write_slide(tmp_path / f"{name}.tif", pixels)))
    answer = answer_slide(tasks, {**CLICK, "image": "slide"}, store)
    assert iou(the_outline(answer), CELL.outline) > 0.9


@pytest.mark.parametrize("name", ["slide", "slide.tif", ITEM["_id"]])
def test_a_region_of_an_archive_has_the_slide_s_coordinates(tasks, archive, name):
    # With a click of its own, the request does not ask for the points of the archive.
    request = {**CLICK, "image": name, "location": [200, 120], "size": [200, 180]}
    outline = the_outline(answer_slide(tasks, request, archive))
    assert iou(outline, CELL.outline) > 0.9


def test_the_archive_s_points_are_clicks(tasks, archive):
    request = {"model": "biosam2_pathology", "image": "slide", "location": [200, 120], "size": [200, 180]}
    answer = answer_slide(tasks, {**request, "output": "dsa"}, archive)
    file = Path(answer["file"])
    (element,) = json.loads(file.read_text(encoding="utf-8"))["elements"]
    file.unlink()
    assert iou(Polygon([point[:2] for point in element["points"]]), CELL.outline) > 0.9


def test_what_the_archive_refuses_is_not_found(tasks, archive):
    with pytest.raises(ImageNotFoundError, match="'gone' cannot be loaded from the datastore"):
        answer_slide(tasks, {**CLICK, "image": "gone", "location": [0, 0], "size": [9, 9]}, archive)


def test_another_model_is_named_with_those_that_can(tasks):
    with pytest.raises(PromptError, match="available: biosam2_pathology, biosam2_box"):
        answer_slide(tasks, {**CLICK, "model": "sam_3d", "image": "slide"}, SimpleNamespace())


def test_an_error_of_the_library_is_an_answer(tasks, pixels, tmp_path):
    path = write_slide(tmp_path / "a.tif", pixels)
    with pytest.raises(PromptError):
        tasks["biosam2_pathology"]({**CLICK, "image": str(path), "level": 9})


def test_what_viewers_are_told(tasks):
    each, box = (tasks[name].info() for name in ("biosam2_pathology", "biosam2_box"))
    assert (each["type"], each["dimension"], each["labels"]) == ("annotation", 2, ["nucleus"])
    assert (each["nuclick"], each["pathology"], box["nuclick"]) == (True, True, False)
