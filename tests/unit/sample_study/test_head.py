import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, label

from sample_study.head import LABELS, head


@pytest.fixture(scope="module")
def case():
    return head(np.random.default_rng(0))


def test_it_is_stored_in_ras_order_without_negative_values(case):
    assert case.image.dtype == np.int16
    assert case.image.shape == case.truth.shape == (128, 128, 40)
    assert case.image.min() >= 0
    assert np.diag(case.affine)[:3] == pytest.approx([1.8, 1.8, 4.0])


def test_the_lesion_is_one_bright_piece_inside_the_brain(case):
    lesion = case.mask("lesion")
    assert label(lesion)[1] == 1
    assert (case.truth[binary_dilation(lesion)] > 0).all()
    inside, brain = binary_erosion(lesion), binary_erosion(case.mask("brain"), iterations=2)
    assert case.image[inside].mean() > 1.5 * np.percentile(case.image[brain], 99)


def test_the_ventricles_are_two_dark_horns(case):
    assert label(case.mask("ventricles"))[1] == 2
    dark = case.image[binary_erosion(case.mask("ventricles"))].mean()
    assert dark < 0.5 * case.image[case.mask("brain")].mean()


def test_every_structure_is_there(case):
    assert set(np.unique(case.truth)) == {0, *LABELS.values()}
