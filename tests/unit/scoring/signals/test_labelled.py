import numpy as np

from lib.labels.label_map import LabelMap
from lib.metrics.overlap import jaccard
from lib.scoring.signals.labelled import accepted_pairs, class_masks, image_frames, labelled_slices
from tests.support.phantoms import rimmed
from tests.unit.scoring.signals.conftest import open_phantom


def label_map(objects):
    array = sum(value * mask.astype(np.uint8) for value, mask in enumerate(objects.values(), 1))
    return LabelMap(array, dict(enumerate(objects, 1)))


def test_slices_are_spread_over_those_with_an_object(body):
    image, frames, objects = body
    held = [k for k in range(9) if any(mask[:, :, k].any() for mask in objects.values())]
    slices = labelled_slices(image, label_map(objects), 3)
    assert len(slices) == 3
    assert {item.index for item in slices} <= set(held)
    assert slices[1].index == held[len(held) // 2]
    for item in slices:
        np.testing.assert_array_equal(item.levels, frames[item.index])
        assert item.digest == image.digest
        for name, mask in item.masks.items():
            np.testing.assert_array_equal(mask, objects[name][:, :, item.index].T)


def test_all_of_them_where_there_are_few(body):
    image, _, objects = body
    only = {name: mask & (np.arange(9) == 4) for name, mask in objects.items()}
    assert [item.index for item in labelled_slices(image, label_map(only), 8)] == [4]


def test_objects_of_one_class_are_one_mask_and_specks_are_left_out():
    values = np.zeros((10, 12), np.uint8)
    values[0:4, 0:4] = 1  # 16 pixels
    values[6:10, 0:4] = 2
    values[0:2, 8:10] = 3  # 4 pixels
    masks = class_masks(values, {1: "nucleus", 2: "nucleus", 3: "speck"})
    assert list(masks) == ["nucleus"]
    assert masks["nucleus"].sum() == 32


def test_pairs_are_the_predicted_and_the_true_iou_of_the_answer_to_a_box(predictor):
    phantom = rimmed(3)
    image = open_phantom(phantom)
    slices = labelled_slices(image, label_map(phantom.objects), 4)
    predicted, true = accepted_pairs(predictor, slices)
    assert len(predicted) == len(true) == sum(len(item.masks) for item in slices)
    assert all(0 <= value <= 1 for value in [*predicted, *true])
    # The bundled weights take the cores of these bodies alone: most of their rims is missing.
    core = jaccard(phantom.objects["bright"][:, :, 4].T, phantom.objects["bright"][:, :, 4].T)
    assert max(true) < core
    assert min(true) > 0.1
    np.testing.assert_array_equal(image_frames(image)[slices[0].index], slices[0].levels)
