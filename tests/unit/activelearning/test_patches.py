from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lib.activelearning.patches import next_patch
from lib.errors import PromptError
from lib.pathology.tissue import tissue_mask


def test_the_patch_is_of_its_size_inside_the_image_and_anywhere_in_it(rng: np.random.Generator) -> None:
    places = set()
    for _ in range(400):
        found = next_patch({"patch_size": [60, 20], "image_size": [64, 22]}, rng)
        assert found is not None
        x, y, width, height = found
        assert (width, height) == (60, 20)
        places.add((x, y))
    assert places == {(x, y) for x in range(5) for y in range(3)}


def test_a_patch_has_tissue_in_its_middle(rng: np.random.Generator) -> None:
    overview = np.full((100, 200, 3), 243, np.uint8)
    overview[30:50, 120:160] = (220, 160, 200)
    tissue = tissue_mask(overview)
    assert tissue[40, 140]
    assert tissue.sum() < 2 * 20 * 40
    assert not tissue_mask(np.full((50, 50, 3), 243, np.uint8)).any()
    places = set()
    for _ in range(100):
        found = next_patch({"patch_size": [40, 40], "image_size": [2000, 1000]}, rng, tissue)
        assert found is not None
        x, y, width, height = found
        assert (width, height) == (40, 40)
        assert 1150 < x + 20 < 1650
        assert 250 < y + 20 < 550
        places.add((x, y))
    assert len(places) > 50


def test_tissue_glows_on_dark_ground() -> None:
    overview = np.full((100, 200, 3), 3, np.uint8)
    overview[30:50, 120:160] = 90
    tissue = tissue_mask(overview)
    assert tissue[40, 140]
    assert not tissue[80, 40]


def test_a_patch_larger_than_the_image_is_the_image(rng: np.random.Generator) -> None:
    asked = {"patch_size": [1024, 1024], "image_size": [640, 2000]}
    found = next_patch(asked, rng)
    assert found is not None
    assert (found[0], found[2], found[3]) == (0, 640, 1024)


@pytest.mark.parametrize(
    "request_",
    [{}, {"patch_size": [64, 64]}, {"patch_size": [64, 64], "image_size": [0, 0]}, {"patch_size": None}],
)
def test_without_both_sizes_there_is_no_patch(request_: dict[str, Any], rng: np.random.Generator) -> None:
    assert next_patch(request_, rng) is None


@pytest.mark.parametrize("wrong", [[64], [64, -1], ["64", 64], [True, 64], "64", [1.5, 2], {"w": 1}])
def test_what_is_no_size_is_refused(wrong: Any, rng: np.random.Generator) -> None:
    with pytest.raises(PromptError, match=r"image_size is .*\[width, height\]"):
        next_patch({"patch_size": [8, 8], "image_size": wrong}, rng)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
