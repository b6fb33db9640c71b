"""Objects followed along three axes: no worse than along one, within the slices that were asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from lib.engine.axis_fusion import is_nearly_isotropic, propagate_fused
from lib.engine.predictor import FrameMask, MaskLogits
from lib.engine.predictor_pool import PredictorPool
from lib.engine.propagation import propagate
from lib.engine.runtime import Cancellation
from lib.errors import Cancelled
from lib.images.medical_image import Voxels, make_image
from lib.metrics.segmentation import dice
from lib.prompts.types import FramePrompts
from lib.settings import Settings
from lib.transforms.frames import FrameStack, frame_view
from lib.transforms.windowing import IntensityWindow

MODEL = Path(__file__).resolve().parents[3] / "apps" / "biosam2" / "model"
WINDOW = IntensityWindow(0, 255, "test")


def oblique(side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """An oblique ellipsoid below another object of the same grey, with noise; and its mask."""
    x, y, z = np.indices((side,) * 3) - np.array([15, 17, 16])[:, None, None, None]
    along, across = np.cos(0.6) * x + np.sin(0.6) * z, np.cos(0.6) * z - np.sin(0.6) * x
    mask = (along / 10) ** 2 + (across / 5) ** 2 + (y / 7) ** 2 < 1
    other = (x - 6) ** 2 + y**2 + ((z - 14) * 1.5) ** 2 < 40
    levels = ndimage.gaussian_filter(60 + 90.0 * (mask | other), 0.6)
    return np.clip(levels + np.random.default_rng(0).normal(0, 12, mask.shape), 0, 255), mask


def stacks(volume: np.ndarray) -> list[FrameStack]:
    return [FrameStack(volume, axis, WINDOW, "phantom") for axis in range(3)]


def volume_of(steps: Iterator[tuple[int, int, FrameMask]], shape: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(shape, bool)
    for _, index, result in steps:
        frame_view(found, 2, index)[:] = result.mask
    return found


def test_three_axes_are_no_worse_than_one_and_can_be_stopped(caplog: pytest.LogCaptureFixture) -> None:
    levels, truth = oblique()
    predictor = PredictorPool(Settings(runtime="torch"), MODEL).get("cpu")
    views = stacks(levels)
    rows, columns = np.nonzero(truth[:, :, 16].T)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
    prompts = [{16: FramePrompts.of_box(box)}]
    one = volume_of(propagate(predictor, views[2], prompts), truth.shape)
    with caplog.at_level(logging.INFO):
        steps = propagate_fused(propagate, predictor, views, 2, prompts)
        fused = volume_of(steps, truth.shape)
    assert dice(fused, truth) >= dice(one, truth) > 0.8
    assert [record.args for record in caplog.records if "along axis" in record.msg] == [(1, 0), (1, 1)]
    assert (fused[:, :, 16] == one[:, :, 16]).all()
    cancellation = Cancellation()
    cancellation.cancel()
    with cancellation.applied(), pytest.raises(Cancelled):
        list(propagate_fused(propagate, predictor, views, 2, prompts))


def along_each(logits: tuple[float, float, float]) -> Any:
    """A stand-in for ``propagate``: the same logit everywhere, by axis."""

    def follow(
        _: Any, stack: FrameStack, objects: Any, **options: Any
    ) -> Iterator[tuple[int, int, FrameMask]]:
        shape = (stack.height, stack.width)
        values = np.full((2, 2), logits[stack.axis], np.float16)
        low, high = options.get("bounds") or (0, len(stack))
        for index in range(low, high):
            yield 0, index, FrameMask(np.full(shape, values[0, 0] > 0), 0.9, 1.0, MaskLogits(values))

    return follow


def test_the_mean_logit_decides_within_the_bounds() -> None:
    views = stacks(np.zeros((3, 4, 5)))
    mask = np.zeros((4, 3), bool)
    mask[1, 1] = True
    # Means 1 / 3 and -4; in the last case the prompted slice holds nothing that could be followed.
    for logits, expected in (((-2.0, -3.0, 6.0), True), ((-9.0, -9.0, 6.0), False), ((4.0, 4.0, -1.0), None)):
        steps = propagate_fused(
            along_each(logits), None, views, 2, [{2: FramePrompts.of_mask(mask)}], bounds=(1, 4)
        )
        found = {index: result for _, index, result in steps}
        assert set(found) == {1, 2, 3}
        # Apart from the sections along the other axes, which are prompted there.
        assert found[3].mask[3, 2] == bool(expected)
        assert found[2].mask.all() == (expected is not None)

    def suits(sides, depth=9, file_format="nifti"):
        voxels = Voxels(np.zeros((9, 9, depth), np.uint8), np.diag([*sides, 1.0]))
        return is_nearly_isotropic(make_image(voxels, Path("a"), file_format))

    assert suits([1.0, -1.2, 1.4])
    assert not any(suits([1.0, 1.0, z]) for z in (0.6, 1.6))
    # Time is no third axis of a volume, and a picture has none.
    assert not suits([1.0, 1.0, 1.0], file_format="video")
    assert not suits([1.0, 1.0, 1.0], depth=1)
