from functools import partial

import numpy as np
import pytest

from lib.errors import LabelError
from lib.evaluation.cases import content_of, open_image
from lib.labels.reading import read_labels
from tests.support import phantoms
from tests.support.studies import write_nifti, write_picture
from tests.unit.evaluation.conftest import label_map


@pytest.fixture
def volume(tmp_path):
    phantom = phantoms.ct()
    image = write_nifti(tmp_path / "ct.nii.gz", phantom.image, phantom.affine)
    label = write_nifti(tmp_path / "label.nii.gz", label_map(phantom), phantom.affine)
    return partial(open_image, image, label, read_labels)


def test_frames_and_truth_lie_over_each_other_on_every_axis(volume):
    for axis, count in enumerate((96, 80, 24)):
        sequence = volume(axis)
        assert sequence.kind == "volume"
        assert len(sequence.frames) == len(sequence.truth) == count
        middle = sequence.visible(1)[len(sequence.visible(1)) // 2]
        frame, lesion = sequence.frames[middle], sequence.mask(1, middle)
        assert frame.shape[:2] == lesion.shape
        # The lesion is the brightest of all that is there.
        assert frame[lesion].mean() > 200 > frame[~lesion].mean() + 50


def test_spacing_is_that_of_frames_rows_and_columns(volume):
    assert volume(2).spacing == pytest.approx((3.0, 0.9, 0.8))
    assert volume(0).spacing == pytest.approx((0.8, 3.0, 0.9))


def test_objects_are_told_with_the_frames_they_are_on(volume):
    sequence = volume(2)
    assert sequence.objects == (1, 2)
    # Half axes of 5.5 and 6.5 slices around slices 9 and 14.
    assert sequence.visible(1) == tuple(range(4, 15))
    assert sequence.visible(2) == tuple(range(8, 21))


def test_a_picture_is_one_frame_whatever_the_axis(tmp_path):
    phantom = phantoms.colour_picture()
    image = write_picture(tmp_path / "image.png", phantom.image)
    label = write_picture(tmp_path / "label.png", label_map(phantom))
    sequence = open_image(image, label, read_labels, 0)
    assert (sequence.kind, len(sequence.frames), sequence.truth[0].shape) == ("picture", 1, (88, 120))
    assert (sequence.mask(1, 0) == phantom.objects["nucleus"][:, :, 0].T).all()


def test_a_crop_is_taken_of_image_and_truth_and_of_images_that_have_it(tmp_path):
    phantom = phantoms.colour_picture()
    image = write_picture(tmp_path / "image.png", phantom.image)
    label = write_picture(tmp_path / "label.png", label_map(phantom))
    cut = open_image(image, label, read_labels, 2, crop=(60, 4, 50, 40))
    assert cut.frames[0].shape == (40, 50, 3)
    assert (cut.frames[0] == np.swapaxes(phantom.image[60:110, 4:44, 0], 0, 1)).all()
    assert (cut.mask(1, 0) == phantom.objects["nucleus"][60:110, 4:44, 0].T).all()
    whole = open_image(image, label, read_labels, 2, crop=(60, 4, 100, 40))
    assert whole.frames[0].shape == (88, 120, 3)
    assert whole.frames.digest != cut.frames.digest


def test_a_crop_without_an_object_is_refused(tmp_path):
    phantom = phantoms.colour_picture()
    image = write_picture(tmp_path / "image.png", phantom.image)
    label = write_picture(tmp_path / "label.png", label_map(phantom))
    with pytest.raises(LabelError, match=r"label\.png is empty: draw an object of image\.png"):
        open_image(image, label, read_labels, 2, crop=(0, 0, 10, 10))


def test_the_content_is_of_image_and_truth():
    truth = [np.array([[0, 1], [2, 0]])]
    assert content_of("a", truth) == content_of("a", [frame.astype(np.uint16) for frame in truth])
    assert content_of("a", truth) != content_of("b", truth)
    assert content_of("a", truth) != content_of("a", [frame.T for frame in truth])
