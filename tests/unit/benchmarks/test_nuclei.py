"""Pictures of nuclei put together on one slide."""

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

from benchmarks.nuclei import Picture, side_by_side


def picture(path, side, grey, labels):
    Image.fromarray(np.full((side, side, 3), grey, np.uint8)).save(path)
    found = np.zeros((side, side), int)
    for number, place in labels.items():
        found[place] = number
    return Picture(path, "", found)


def test_corners_lie_side_by_side_and_their_nuclei_keep_apart(tmp_path):
    parts = [
        picture(tmp_path / "a.png", 40, 50, {1: np.s_[2:8, 2:8], 2: np.s_[25:30, 35:39]}),
        picture(tmp_path / "b.png", 20, 100, {1: np.s_[2:8, 2:8]}),
        picture(tmp_path / "c.png", 30, 150, {7: np.s_[10:20, 10:20]}),
    ]
    found = side_by_side(tmp_path / "all.png", parts, columns=2, side=30, mpp=0.25)
    assert found.labels.shape == (60, 60)
    assert found.mpp == 0.25
    # The second nucleus of the first picture lies outside its corner.
    assert found.count == 3
    assert [found.pixels[y, x, 0] for y, x in ((0, 0), (0, 30), (25, 30), (30, 0), (30, 30))] == [
        50,
        100,
        255,
        150,
        255,
    ]
    for x, y in ((2, 2), (32, 2)):
        assert found.best_iou(box(x, y, x + 6, y + 6))[1] == pytest.approx(1)
    assert found.best_iou(box(10, 40, 20, 50))[1] == pytest.approx(1)
