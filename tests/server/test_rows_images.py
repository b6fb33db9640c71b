"""Defects of MONAI Label's own SAM 2 tasks that concern the image: rows 1, 5, 11, 16 and 20 of the list.

Each test shows the right behaviour of ours; the numbers are those of the list of defects.
"""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lib.engine.network import EmbeddingCache
from lib.transforms.frames import FrameStack
from lib.transforms.windowing import IntensityWindow
from tests.support import studies
from tests.support.client import Client
from tests.support.phantoms import FROM_BOX, FROM_CLICK, dice

CT = studies.phantom("ct")
LUNG = studies.phantom("lung")
MR = studies.phantom("mr")
TINY = studies.phantom("tiny")


def _box(client: Client, image: str, name: str, **others: object) -> tuple[float, list[float]]:
    """Dice of the object on its middle slice from a box, and the window that was used."""
    phantom = studies.phantom(image)
    k = phantom.middle(name)
    params = {"roi": phantom.box(name), "slice": k, "result_extension": ".nrrd", **others}
    answer = client.segment("biosam2_box", image, params)
    return dice(answer.mask[:, :, k], phantom.objects[name][:, :, k]), answer.params["window"]


def test_row_01_values_above_255_are_told_apart(client: Client) -> None:
    score, (low, high) = _box(client, "mr", "tumour")
    assert score > FROM_BOX
    assert low < 900 < 1900 < high + 500


def test_row_01_values_below_0_are_told_apart(client: Client) -> None:
    score, (low, high) = _box(client, "ct", "organ")
    assert score > FROM_BOX
    assert low < -110 < 40 < high


def test_row_01_the_window_of_the_request_is_used(client: Client) -> None:
    score, window = _box(client, "lung", "nodule", window=[-1000, -200])
    assert score > FROM_BOX
    assert window == [-1000, -200]


def test_row_01_the_window_changes_what_is_seen(client: Client) -> None:
    # Both the nodule and the lung are below this window: all is black, as it always is at the peer's.
    k = LUNG.middle("nodule")
    params = {"roi": LUNG.box("nodule", margin=4), "slice": k, "result_extension": ".nrrd"}
    black = client.segment("biosam2_box", "lung", {**params, "window": [0, 255]})
    seen = client.segment("biosam2_box", "lung", {**params, "window": [-1000, -200]})
    assert (black.mask != seen.mask).any()


def test_row_05_x_and_y_are_not_swapped_in_a_picture(client: Client) -> None:
    # 30 wide and 20 high, the cell at the right: (22, 6) is on it, and its mirror image is not.
    x, y, _ = TINY.click("cell")
    answer = client.segment("biosam2_point", "tiny", {"foreground": [[x, y]]})
    picture = Image.open(io.BytesIO(answer.file.content))
    assert picture.size == (30, 20)
    assert dice(answer.mask, TINY.objects["cell"]) > FROM_CLICK
    assert np.asarray(picture)[y, x] > 0


def test_row_05_the_limits_of_x_and_y_are_not_swapped(client: Client) -> None:
    client.segment("biosam2_point", "tiny", {"foreground": [[29, 6]]})
    assert client.infer("biosam2_point", "tiny", {"foreground": [[6, 29]]}).status == 400


def test_row_05_x_and_y_are_not_swapped_in_an_upload(client: Client, tmp_path: Path) -> None:
    upload = studies.write_picture(tmp_path / "frame.jpg", TINY.image, quality=92)
    answer = client.segment("sam_2d", "", {"roi": TINY.box("cell")}, file=upload)
    assert Image.open(io.BytesIO(answer.file.content)).size == (30, 20)
    assert dice(answer.mask, TINY.objects["cell"]) > FROM_BOX


@pytest.mark.parametrize(("image", "name"), [("ct", "lesion"), ("ct_nrrd", "organ"), ("mr", "tumour")])
def test_row_05_x_and_y_are_not_swapped_in_a_volume(client: Client, image: str, name: str) -> None:
    score, _ = _box(client, image, name)
    assert score > FROM_BOX


def test_row_11_a_mask_for_a_jpeg_is_a_png_without_loss(client: Client, tmp_path: Path) -> None:
    upload = studies.write_picture(tmp_path / "frame.jpg", TINY.image, quality=92)
    answer = client.segment("sam_2d", "", {"roi": TINY.box("cell")}, file=upload)
    assert Image.open(io.BytesIO(answer.file.content)).format == "PNG"
    assert len(np.unique(answer.mask)) == 2


def test_row_11_a_jpeg_counts_as_its_pixels_do(client: Client, tmp_path: Path) -> None:
    jpeg = studies.write_picture(tmp_path / "frame.jpg", TINY.image, quality=92)
    decoded = np.asarray(Image.open(jpeg)).swapaxes(0, 1)[:, :, None]
    png = studies.write_picture(tmp_path / "frame.png", decoded)
    params = {"roi": TINY.box("cell")}
    from_jpeg = client.segment("sam_2d", "", params, file=jpeg)
    from_png = client.segment("sam_2d", "", params, file=png)
    np.testing.assert_array_equal(from_jpeg.mask, from_png.mask)


def test_row_11_slices_reach_the_network_without_loss() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (31, 17, 3)).astype(np.uint8)
    frame = FrameStack(levels, 2, IntensityWindow(0, 255, "test"))[1]
    np.testing.assert_array_equal(frame, np.repeat(levels[:, :, 1].T[:, :, None], 3, axis=2))


def test_row_16_a_slice_of_a_huge_volume_takes_the_memory_of_a_slice() -> None:
    # 100,000 slices of 512 x 512 would be 49 GiB as int16 and 73 GiB as RGB frames; one slice stands for all.
    volume = np.broadcast_to(np.arange(512 * 512, dtype=np.int32).reshape(512, 512, 1), (512, 512, 100_000))
    frames = FrameStack(volume, 2, IntensityWindow(0, 512 * 512, "test"))
    tracemalloc.start()
    frame = frames[99_999]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frame.shape == (512, 512, 3)
    assert peak < 32 << 20


def test_row_16_embeddings_stay_within_their_budget() -> None:
    cache = EmbeddingCache(budget=1000)
    for number in range(50):
        cache.put(number, SimpleNamespace(nbytes=300))
        assert cache.used <= 1000
    assert [number for number in range(50) if cache.get(number) is not None] == [47, 48, 49]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_row_20_slices_along_any_axis(client: Client, axis: int) -> None:
    t = CT.middle("lesion", axis)
    truth = np.moveaxis(CT.objects["lesion"], axis, 0)[t]
    centre = np.argwhere(truth).mean(axis=0).round().astype(int).tolist()
    point = [*centre[:axis], t, *centre[axis:]]
    params = {"foreground": [point], "axis": axis, "result_extension": ".nrrd"}
    mask = client.segment("biosam2_point", "ct", params).mask
    assert mask.shape == CT.image.shape
    assert set(np.nonzero(mask)[axis]) == {t}
    assert dice(np.moveaxis(mask, axis, 0)[t], truth) > FROM_CLICK


@pytest.mark.parametrize(("image", "name"), [("colour", "nucleus"), ("colour", "other"), ("grey", "cell")])
def test_row_20_pictures_in_colour_and_in_grey(client: Client, image: str, name: str) -> None:
    phantom = studies.phantom(image)
    answer = client.segment("biosam2_box", image, {"roi": phantom.box(name)})
    assert Image.open(io.BytesIO(answer.file.content)).format == "PNG"
    assert dice(answer.mask, phantom.objects[name]) > FROM_BOX


def test_row_20_several_objects_on_a_picture(client: Client) -> None:
    colour = studies.phantom("colour")
    points = {"lesion": [colour.click("nucleus")[:2]], "organ": [colour.click("other")[:2]]}
    mask = client.segment("biosam2_multi", "colour", points).mask
    assert dice(mask == 1, colour.objects["nucleus"]) > FROM_CLICK
    assert dice(mask == 2, colour.objects["other"]) > FROM_CLICK


def test_row_20_four_dimensions_are_refused_in_words(client: Client) -> None:
    answer = client.infer("biosam2_point", "four_d", {"foreground": [[3, 3, 1]]})
    assert answer.status == 422
    assert "4" in answer.detail
