import numpy as np
import pytest
from scipy.ndimage import binary_erosion, label

from sample_study.abdomen import LABELS, TISSUE, abdomen


@pytest.fixture(scope="module")
def case():
    return abdomen(np.random.default_rng(0))


def test_it_is_a_ct_with_slices_thicker_than_pixels(case):
    assert case.image.dtype == np.int16
    assert case.image.shape == case.truth.shape == (128, 128, 48)
    assert case.image.min() >= -1024
    assert np.mean(case.image < -900) > 0.3
    assert np.abs(np.diag(case.affine)[:3]) == pytest.approx([2.75, 2.75, 5.0])


def test_the_axes_run_to_the_left_the_back_and_the_head(case):
    assert np.array_equal(np.sign(np.diag(case.affine)[:3]), [-1, -1, 1])
    # The liver is on the right, the spleen on the left, the spine at the back, the kidneys below both.
    centre = {name: (case.affine @ [*np.argwhere(case.mask(name)).mean(axis=0), 1])[:3] for name in LABELS}
    assert centre["liver"][0] > 0 > centre["spleen"][0]
    assert centre["right kidney"][0] > 0 > centre["left kidney"][0]
    assert centre["spine"][1] < centre["aorta"][1] < centre["liver"][1]
    assert centre["right kidney"][2] < centre["left kidney"][2] < centre["spleen"][2]


@pytest.mark.parametrize("name", LABELS)
def test_every_organ_is_one_piece_of_its_own_density(case, name):
    mask = case.mask(name)
    assert label(mask)[1] == 1
    inside = binary_erosion(mask, iterations=2)
    assert case.image[inside].mean() == pytest.approx(TISSUE[name], abs=8)
