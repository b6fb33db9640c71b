import numpy as np
import pytest
import torch

from lib.engine.network import Features
from lib.scoring.signals.embedding import frame_vector, mean_vector, unit


def test_a_frame_is_the_mean_of_its_last_map_at_length_one():
    last = torch.tensor([[[[2.0, 4.0]], [[4.0, 4.0]]]])  # two channels of two cells: means 3 and 4
    features = Features((torch.zeros(1, 5, 4, 4), last))
    np.testing.assert_allclose(frame_vector(features), [0.6, 0.8], rtol=1e-6)
    assert frame_vector(features).dtype == np.float32


def test_half_precision_is_averaged_in_full():
    last = torch.full((1, 3, 64, 64), 0.1, dtype=torch.bfloat16)
    np.testing.assert_allclose(frame_vector(Features((last,))), [3**-0.5] * 3, rtol=1e-6)


def test_an_image_is_the_mean_of_its_frames_at_length_one():
    found = mean_vector([np.array([1, 0], np.float32), np.array([0, 1], np.float32)])
    np.testing.assert_allclose(found, [2**-0.5, 2**-0.5], rtol=1e-6)


def test_nothing_has_no_direction():
    np.testing.assert_array_equal(unit(np.zeros(3)), [0, 0, 0])


def test_frames_that_look_alike_are_near_each_other(predictor, body):
    _image, frames, _ = body
    first, beside, far = (frame_vector(predictor.features(frames, index)) for index in (4, 5, 0))
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ beside > first @ far
