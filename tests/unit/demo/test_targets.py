import numpy as np

from demo.targets import OBJECTS, Target, targets
from sample_study.files import make_cases


def test_the_middle_is_that_of_the_structure_not_of_the_volume(volume):
    assert volume.middle == 6


def test_the_box_is_half_open_around_the_structure(volume, picture):
    assert volume.box == picture.box == (20, 5, 26, 15)


def test_a_picture_has_one_slice(picture):
    assert picture.truth.shape == (40, 30, 1)
    assert picture.middle == 0


def test_every_structure_of_the_demo_is_in_the_study():
    found = list(targets(make_cases()))
    assert [(target.case.name, target.label) for target in found] == [
        (image, label) for image, labels in OBJECTS.items() for label in labels
    ]
    assert all(np.count_nonzero(target.truth[:, :, target.middle]) > 50 for target in found)


def test_an_image_that_the_demo_does_not_know_has_no_targets(volume):
    other = Target(volume.case, "liver").case
    renamed = type(other)("other", other.image, other.truth, other.labels, other.affine)
    assert list(targets([renamed])) == []
