"""CVAT's interactor and tracker: a JPEG with every request, a picture back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import studies
from tests.support.client import Answer, Client
from tests.support.cvat import shapes_of
from tests.support.phantoms import FROM_BOX, Phantom, dice
from tests.support.slicer import slicer_client
from tests.support.videos import outline_box

TASKS = ["biosam2_point", "biosam2_box", "sam_2d"]


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    return studies.write_picture(tmp_path / "tmpk3x.jpg", studies.phantom("colour").image, quality=95)


def _ask(client: Client, model: str, file: Path, phantom: Phantom, name: str, **prompts: object) -> Answer:
    params = {"output": "mask", "foreground": [], "background": [], "client_id": None}
    params |= {"roi": phantom.box(name), **prompts}
    return client.segment(model, "", params, file=file)


@pytest.mark.parametrize("model", TASKS)
def test_the_interactor_gets_a_picture_of_the_frame_s_size(client: Client, upload: Path, model: str) -> None:
    colour = studies.phantom("colour")
    click = colour.click("nucleus")[:2]
    answer = _ask(client, model, upload, colour, "nucleus", foreground=[click])
    picture = Image.open(io.BytesIO(answer.file.content))
    assert picture.size == colour.image.shape[:2]
    assert np.asarray(picture).ndim == 2
    assert dice(answer.mask, colour.objects["nucleus"]) > FROM_BOX


def test_the_mask_has_no_loss(client: Client, upload: Path) -> None:
    answer = _ask(client, "sam_2d", upload, studies.phantom("colour"), "nucleus")
    assert answer.file.filename is not None
    assert answer.file.filename.endswith(".png")
    assert len(np.unique(answer.mask)) == 2


def test_a_box_alone_and_absent_lists(client: Client, upload: Path) -> None:
    colour = studies.phantom("colour")
    full = _ask(client, "sam_2d", upload, colour, "other")
    bare = client.segment("sam_2d", "", {"roi": colour.box("other")}, file=upload)
    np.testing.assert_array_equal(full.mask, bare.mask)
    assert dice(full.mask, colour.objects["other"]) > FROM_BOX


def test_a_box_in_any_order_of_its_corners(client: Client, upload: Path) -> None:
    colour = studies.phantom("colour")
    x0, y0, x1, y1 = colour.box("nucleus")
    right = _ask(client, "sam_2d", upload, colour, "nucleus")
    turned = _ask(client, "sam_2d", upload, colour, "nucleus", roi=[x1, y1, x0, y0])
    np.testing.assert_array_equal(right.mask, turned.mask)


@pytest.mark.parametrize("tool", ["interactor", "tracker"])
def test_the_functions_as_they_are_deployed(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    # The wheel's client class, and the very bodies: CVAT's box has its corners one by one.
    colour = studies.phantom("colour")
    x0, y0, x1, y1 = colour.box("nucleus")
    x, y, _ = colour.click("nucleus")
    params: dict[str, Any] = {"output": "json", "roi": [x0, y0, x1, y1]}
    if tool == "interactor":
        params = {"output": "mask", "foreground": [[x, y]], "background": [], "roi": [[x0, y0], [x1, y1]]}
    file = studies.write_picture(tmp_path / "frame.jpg", colour.image)
    monai = slicer_client(client.url, tmp_path, monkeypatch)
    path, answer = monai.infer(model="sam_2d", image_id="", file=str(file), params=params)
    mask = np.array(Image.open(path)).astype(np.uint8)
    assert mask.shape == (88, 120)
    assert dice(mask, colour.objects["nucleus"][:, :, 0].T) > FROM_BOX
    assert answer["label_names"]
    # What the tracker makes of it: one box, around the pixels of the object.
    assert shapes_of(mask) == [outline_box(mask)]


def test_the_tracker_sends_a_box_and_its_own_output_key(client: Client, upload: Path) -> None:
    colour = studies.phantom("colour")
    answer = client.segment("sam_2d", "", {"output": "json", "roi": colour.box("nucleus")}, file=upload)
    assert dice(answer.mask, colour.objects["nucleus"]) > FROM_BOX


def test_a_background_point_takes_away(client: Client, upload: Path) -> None:
    colour = studies.phantom("colour")
    x0, y0, x1, y1 = 17, 14, 104, 76  # a box around both objects
    points = {"foreground": [colour.click("nucleus")[:2]], "background": [colour.click("other")[:2]]}
    mask = _ask(client, "sam_2d", upload, colour, "nucleus", roi=[x0, y0, x1, y1], **points).mask
    assert mask[tuple(colour.click("other"))] == 0
    assert mask[tuple(colour.click("nucleus"))] > 0
