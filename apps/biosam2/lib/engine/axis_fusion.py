"""Objects followed through a volume along each of its three axes, and fused by the mean of their logits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.engine.predictor import MOST_LOGIT, FrameMask, Predictor
from lib.engine.propagation import Propagate, Steps
from lib.images.medical_image import MedicalImage
from lib.prompts.types import FramePrompts
from lib.transforms.frames import FrameStack, frame_view, spacing

logger = logging.getLogger(__name__)

# Longest side of a voxel in shortest ones up to which all axes show an object equally well.
NEARLY_ISOTROPIC = 1.5

Logits = NDArray[np.float16]


def is_nearly_isotropic(image: MedicalImage) -> bool:
    """Whether an image is a volume whose voxels are nearly cubes; the third axis of a video is time."""
    sides = spacing(image.affine)
    is_volume = image.format != "video" and min(image.shape) > 1
    return is_volume and max(sides) <= NEARLY_ISOTROPIC * min(sides)


def propagate_fused(
    follow: Propagate,
    predictor: Predictor,
    stacks: Sequence[FrameStack],
    axis: int,
    objects: Sequence[Mapping[int, FramePrompts]],
    **options: Any,
) -> Steps:
    """Follows objects along the axis of their prompts, then from this answer along the other two.

    Along another axis an object starts with the section of the first answer that cuts most of its prompted
    slices. Where an axis was not followed it counts as sure that the object is absent.

    Args:
        follow: Function that follows objects along an axis, such as ``propagate``.
        predictor: Network.
        stacks: Slices of the volume along axes 0, 1 and 2.
        axis: Axis of the prompts.
        objects: Prompts of each object by slice.
        options: Options of ``propagate``.

    Yields:
        As ``propagate``, one object after the other; prompted slices as they were answered.
    """
    bounds = options.get("bounds") or (0, len(stacks[axis]))
    for number, prompts in enumerate(objects):
        total = np.full(stacks[0].shape, -MOST_LOGIT, np.float16, order="F")
        visited, answered = set(), {}
        for _, index, result in follow(predictor, stacks[axis], [prompts], **options):
            visited.add(index)
            frame_view(total, axis, index)[:] = _logits(result, index in prompts)
            if index in prompts and result.mask.any():
                answered[index] = result
        _follow_others(follow, predictor, stacks, axis, total, list(answered), options, number)
        reach = _reach(prompts, bounds, options.get("limit", 0))
        for index in range(len(stacks[axis])):
            if index in answered:
                yield number, index, answered[index]
            elif index in reach:
                found = FrameMask.expected(frame_view(total, axis, index).astype(np.float32) / len(stacks))
                if index in visited or found.mask.any():
                    yield number, index, found


def _follow_others(
    follow: Propagate,
    predictor: Predictor,
    stacks: Sequence[FrameStack],
    axis: int,
    total: Logits,
    answered: Sequence[int],
    options: Mapping[str, Any],
    number: int,
) -> None:
    """Adds the logits along the other two axes to those along the first, in place."""
    kept = {name: options[name] for name in ("memory",) if name in options}
    starts = {other: _section(total, axis, other, answered) for other in range(3) if other != axis}
    for other, start in starts.items():
        logger.info("Object %d: followed along axis %d", number + 1, other)
        total -= np.float16(MOST_LOGIT)
        if start is None:
            continue
        index, mask = start
        for _, place, result in follow(
            predictor, stacks[other], [{index: FramePrompts.of_mask(mask)}], **kept
        ):
            view = frame_view(total, other, place)
            view += _logits(result, place == index) + np.float16(MOST_LOGIT)


def _section(
    logits: Logits, axis: int, other: int, answered: Sequence[int]
) -> tuple[int, NDArray[np.bool_]] | None:
    """Index and mask of the slice along another axis that cuts most of the object on its prompted slices."""
    inside = np.take(logits, answered, axis) > 0
    areas = inside.sum(axis=tuple(each for each in range(3) if each != other))
    index = int(areas.argmax())
    return (index, frame_view(logits, other, index) > 0) if areas[index] else None


def _reach(prompts: Mapping[int, FramePrompts], bounds: tuple[int, int], limit: int) -> range:
    """Slices that an answer may hold."""
    if not limit:
        return range(*bounds)
    return range(max(bounds[0], min(prompts) - limit), min(bounds[1], max(prompts) + limit + 1))


def _logits(result: FrameMask, is_prompted: bool) -> Logits:
    """Logits (H, W) of a result; one to prompts, or where the object has ended, is as sure as can be."""
    if is_prompted or result.logits is None:
        return np.where(result.mask, MOST_LOGIT, -MOST_LOGIT).astype(np.float16)
    return result.logits.frame(*result.mask.shape).astype(np.float16)
