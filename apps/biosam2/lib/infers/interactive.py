"""The interactive tasks: objects on a slice or through a volume, from a person's prompts.

A slice may be a frame of a video whose frames come one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from lib.engine.axis_fusion import is_nearly_isotropic, propagate_fused
from lib.engine.frame_tracker import FrameTracker
from lib.engine.interactive import obey
from lib.engine.memory import confidence
from lib.engine.predictor import FrameMask
from lib.engine.propagation import Propagate, propagate
from lib.engine.zoomed_propagation import propagate_zoomed
from lib.infers.task import PromptedImage, SegmentTask, Services, TaskResult, choice
from lib.metrics.calibration import Calibration
from lib.prompts.types import FramePrompts, PromptSet
from lib.settings import MemoryPolicy
from lib.transforms.components import fill_holes, largest_component
from lib.transforms.frames import frame_view
from lib.transforms.sampling import doubtful

# Slices of an object that are named for a look.
MOST_TO_CHECK = 4
# Pixels along the shorter side of a frame below which one click often fails: BioSAM-2 reports a J&F of 0.07
# with one click and 0.56 with three in EchoNet-Dynamic's videos of 112 x 112 pixels (Hiera-T).
LOW_RESOLUTION = 128
# What CVAT's tracker sends with its box, where its interactor sends "mask".
TRACKER_OUTPUT = "json"


class SliceTask(SegmentTask):
    """``biosam2_point``, ``biosam2_box`` and ``sam_2d``: all slices but the prompted one stay empty.

    Args:
        services: Parts that the tasks share.
        tracker: Tracker of the videos that come frame by frame.
        description: Description for people.
    """

    def __init__(self, services: Services, tracker: FrameTracker, description: str):
        super().__init__(services, InferType.DEEPGROW, 2, "slice", [], description)
        self._tracker = tracker

    def segment(self, prompted: PromptedImage) -> TaskResult:
        """Segments the object on its slice."""
        (item,) = prompted.prompts.objects
        ((index, prompts),) = prompted.prompts.frames(item).items()
        facts = {}
        if _is_from_a_tracker(prompted, prompts):
            result, facts["tracked"] = self._follow(prompted, index, prompts)
        else:
            result = _segment(prompted, index, prompts)
            self._prefetch(prompted, index, result)
        return TaskResult(
            labels=prompted.frames.to_volume({index: result.mask}),
            scores={item.label: result.score},
            params={"slice": index, "axis": prompted.prompts.axis, "presence": result.presence, **facts},
        )

    def _prefetch(self, prompted: PromptedImage, index: int, result: FrameMask) -> None:
        request = prompted.request
        # A batch has no user: nobody looks at its slices.
        if (user := request.get("user")) is not None:
            viewer = (user, str(request.get("client_id") or prompted.frames.digest))
            predictor, crop = prompted.segmenter.predictor, result.logits.crop if result.logits else None
            self._services.engines.prefetcher.looked_at(viewer, predictor, prompted.frames, index, crop)

    def _follow(self, prompted: PromptedImage, index: int, prompts: FramePrompts) -> tuple[FrameMask, int]:
        client = str(prompted.request.get("client_id"))
        return self._tracker.follow(prompted.segmenter.predictor, prompted.frames, index, prompts, client)


def _is_from_a_tracker(prompted: PromptedImage, prompts: FramePrompts) -> bool:
    """Whether this is a frame with the object's box on the frame before, and nothing else said of it."""
    box_alone = prompts.box is not None and not len(prompts.points)
    return prompted.request.get("output") == TRACKER_OUTPUT and prompted.image.is_2d and box_alone


def _segment(prompted: PromptedImage, index: int, prompts: FramePrompts) -> FrameMask:
    result = prompted.segmenter.segment(prompted.frames, index, prompts)
    clicks = [(round(y), round(x)) for x, y in prompts.points[prompts.labels == 1].tolist()]
    return replace(result, mask=obey(cleaned(result.mask, prompted.request, clicks), prompts))


class VolumeTask(SegmentTask):
    """``biosam2_propagate`` for one object, ``biosam2_multi`` for one per label, and ``sam_3d``."""

    # In a volume, what has ended does not begin again.
    ends = True

    def segment(self, prompted: PromptedImage) -> TaskResult:
        """Follows every object from its prompted slices through the volume."""
        objects = prompted.prompts.objects
        found = SliceMerger(prompted.shape, prompted.prompts.axis, self.calibration(prompted.version))
        steps = self._follower(prompted)(
            [prompted.prompts.frames(item) for item in objects],
            bounds=prompted.prompts.slice_range,
            limit=self._services.settings.propagate_limit,
            ends=self.ends,
            segment=prompted.segmenter.segment,
            closed=prompted.is_started,
            memory=self._memory(prompted),
        )
        for number, index, result in steps:
            found.add(objects[number].index, index, result)
        clicks = {
            item.index: [tuple(map(round, point.ijk)) for point in item.points if point.positive]
            for item in objects
        }
        labels = cleaned_labels(found.labels, prompted.request, clicks)
        _obey(labels, prompted.prompts)
        return TaskResult(
            labels=labels,
            scores={item.label: found.score(item.index) or 0.0 for item in objects},
            params=found.facts(
                {item.label: item.index for item in objects},
                {item.label: list(prompted.prompts.frames(item)) for item in objects},
            ),
        )

    def _follower(self, prompted: PromptedImage) -> Propagate:
        """Function that follows objects, given their prompts and the options of ``propagate``."""
        # In a video an object moves through the picture, and out of a window.
        zooms = self.ends and prompted.segmenter.zoom != "off"
        follow = propagate_zoomed if zooms else propagate
        predictor, frames = prompted.segmenter.predictor, prompted.frames
        fuses = self.ends and self._services.settings.fuse_axes and prompted.view is None
        if fuses and is_nearly_isotropic(prompted.image):
            stacks = [frames.along(axis) for axis in range(3)]
            return partial(propagate_fused, follow, predictor, stacks, frames.axis)
        return partial(follow, predictor, frames)

    def _memory(self, prompted: PromptedImage) -> MemoryPolicy:
        """The memory policy that a request names, else the app's."""
        default = self._services.settings.memory
        return choice(prompted.request, "memory", default, get_args(MemoryPolicy))


class VideoTask(VolumeTask):
    """``biosam2_video``: frames instead of slices; an object may leave the picture and come back."""

    ends = False

    def segment(self, prompted: PromptedImage) -> TaskResult:
        """Follows every object through the video; says in ``warnings`` where one click is likely to fail."""
        result = super().segment(prompted)
        frames = prompted.frames
        if min(frames.width, frames.height) < LOW_RESOLUTION:
            result.params["warnings"] = [
                f"{item.label}: one click often fails on frames of {frames.width} x {frames.height} pixels "
                f"(fewer than {LOW_RESOLUTION} along a side): draw a box, or click more often"
                for item in prompted.prompts.objects
                if _is_one_click(prompted.prompts.frames(item))
            ]
        return result


def _is_one_click(prompts: Mapping[int, FramePrompts]) -> bool:
    """Whether an object has one positive point on all frames together, and neither box nor mask."""
    shapes = any(here.box is not None or here.mask is not None for here in prompts.values())
    return not shapes and sum(int((here.labels == 1).sum()) for here in prompts.values()) == 1


def _obey(labels: np.ndarray, prompts: PromptSet) -> None:
    """Gives each clicked voxel of a label map (I, J, K) the label of its click, in place."""
    for item in prompts.objects:
        for index, here in prompts.frames(item).items():
            frame = frame_view(labels, prompts.axis, index)
            mask = frame == item.index
            wanted = obey(mask, here)
            frame[mask & ~wanted] = 0
            frame[wanted & ~mask] = item.index


class SliceMerger:
    """Label map of an image while objects are found on its slices, in any order.

    Args:
        shape: Voxels (I, J, K).
        axis: Slice axis.
        calibration: Calibration of the confidence.

    Attributes:
        labels: uint8 (I, J, K), 0 where nothing is.
        confidence: Confidence by label value and slice, 0 to 1; where the object was not found, that it is
            absent.
    """

    def __init__(self, shape: Sequence[int], axis: int, calibration: Calibration):
        self.labels = np.zeros(shape, np.uint8, order="F")
        self.confidence: dict[int, dict[int, float]] = defaultdict(dict)
        self._axis = axis
        self._calibration = calibration
        self._held: dict[int, list[float]] = defaultdict(list)

    def add(self, value: int, index: int, result: FrameMask) -> None:
        """Takes in one object on one slice; where objects overlap, the more confident one has the voxel."""
        if not result.mask.any():
            self.confidence[value][index] = round(1.0 - result.presence, 4)
            return
        score = round(self._calibration(confidence(result.score, result.presence)), 4)
        self.confidence[value][index] = score
        self._held[value].append(score)
        labels = frame_view(self.labels, self._axis, index)
        weaker = [0, *(other for other, scores in self.confidence.items() if scores.get(index, 2) < score)]
        labels[result.mask & np.isin(labels, weaker)] = value

    def score(self, value: int) -> float | None:
        """Mean confidence over the slices that hold an object; None where no slice does."""
        held = self._held.get(value)
        return round(float(np.mean(held)), 4) if held else None

    def facts(self, values: Mapping[str, int], known: Mapping[str, Collection[int]]) -> dict[str, Any]:
        """``slice_scores`` and ``slices_to_check`` of an answer's ``params``, by label name.

        Args:
            values: Value by label name.
            known: Slices with prompts, by label name; they need no look.
        """
        scores = {name: dict(sorted(self.confidence[value].items())) for name, value in values.items()}
        return {
            "axis": self._axis,
            "slice_scores": scores,
            "slices_to_check": {
                name: doubtful(by_slice, known.get(name, ()), MOST_TO_CHECK)
                for name, by_slice in scores.items()
            },
        }


def cleaned(
    mask: NDArray[np.bool_], request: Mapping[str, Any], seeds: Iterable[Sequence[int]] = ()
) -> NDArray[np.bool_]:
    """One object's mask after the options ``largest_component`` and ``fill_holes`` of a request.

    Args:
        mask: (H, W) of one slice or (I, J, K) of a volume. A hole in a slice is none in a volume where it is
            open above or below.
        request: with the defaults of the task.
        seeds: indices into the mask of clicks on the object; the pieces they lie on count as the largest.
    """
    if request["largest_component"]:
        mask = largest_component(mask, seeds)
    if request["fill_holes"]:
        mask = fill_holes(mask)
    return mask


def cleaned_labels(
    labels: NDArray[np.uint8], request: Mapping[str, Any], seeds: Mapping[int, Iterable[Sequence[int]]]
) -> NDArray[np.uint8]:
    """A label map (I, J, K), each label cleaned by itself; a hole that holds another label keeps it.

    Args:
        labels: the map.
        request: with the defaults of the task.
        seeds: voxels (i, j, k) of the clicks on each label's object.
    """
    if not (request["largest_component"] or request["fill_holes"]):
        return labels
    result = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        mask = cleaned(labels == value, request, seeds.get(int(value), ()))
        result[mask & ((labels == 0) | (labels == value))] = value
    return result
