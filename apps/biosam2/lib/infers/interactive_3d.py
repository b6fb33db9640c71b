"""Objects through a volume, from prompts on any of its slices."""

from __future__ import annotations

from collections import defaultdict
from typing import get_args

import numpy as np

from lib.engine.corrections import obey
from lib.engine.predictor import FrameMask
from lib.engine.propagation import propagate
from lib.engine.zoomed_propagation import propagate_zoomed
from lib.infers.postprocessing import cleaned_labels
from lib.infers.task import PromptedImage, SegmentTask, TaskResult, choice
from lib.prompts.types import PromptSet
from lib.settings import MemoryPolicy
from lib.transforms.frames import frame_view


class VolumeTask(SegmentTask):
    """``biosam2_propagate`` for one object, ``biosam2_multi`` for one per label, and ``sam_3d``."""

    # In a volume, what has ended does not begin again.
    ends = True

    def segment(self, prompted: PromptedImage) -> TaskResult:
        """Follows every object from its prompted slices through the volume."""
        objects = prompted.prompts.objects
        by_slice: dict[int, dict[int, FrameMask]] = defaultdict(dict)
        # In a video an object moves through the picture, and out of a window.
        zooms = self.ends and prompted.segmenter.zoom != "off"
        steps = (propagate_zoomed if zooms else propagate)(
            prompted.segmenter.predictor,
            prompted.frames,
            [prompted.prompts.frames(item) for item in objects],
            bounds=prompted.prompts.slice_range,
            limit=self._services.settings.propagate_limit,
            ends=self.ends,
            segment=prompted.segmenter.segment,
            closed=prompted.is_started,
            memory=self._memory(prompted),
        )
        for number, index, result in steps:
            by_slice[index][number] = result
        values = [item.index for item in objects]
        labels = prompted.frames.to_volume({k: _label_map(found, values) for k, found in by_slice.items()})
        clicks = {
            item.index: [tuple(map(round, point.ijk)) for point in item.points if point.positive]
            for item in objects
        }
        labels = cleaned_labels(labels, prompted.request, clicks)
        _obey(labels, prompted.prompts)
        return TaskResult(
            labels=labels,
            scores={item.label: _mean_score(by_slice, number) for number, item in enumerate(objects)},
            params={
                "axis": prompted.prompts.axis,
                "slice_scores": {
                    item.label: {
                        k: round(found[number].score, 4)
                        for k, found in sorted(by_slice.items())
                        if number in found
                    }
                    for number, item in enumerate(objects)
                },
            },
        )

    def _memory(self, prompted: PromptedImage) -> MemoryPolicy:
        """The memory policy that a request names, else the app's."""
        default = self._services.settings.memory
        return choice(prompted.request, "memory", default, get_args(MemoryPolicy))


class VideoTask(VolumeTask):
    """``biosam2_video``: frames instead of slices; an object may leave the picture and come back."""

    ends = False


def _obey(labels: np.ndarray, prompts: PromptSet) -> None:
    """Gives each clicked voxel of a label map (I, J, K) the label of its click, in place."""
    for item in prompts.objects:
        for index, here in prompts.frames(item).items():
            frame = frame_view(labels, prompts.axis, index)
            mask = frame == item.index
            wanted = obey(mask, here)
            frame[mask & ~wanted] = 0
            frame[wanted & ~mask] = item.index


def _label_map(found: dict[int, FrameMask], values: list[int]) -> np.ndarray:
    """One slice's uint8 (H, W) labels; where objects overlap, the one with the better score has the pixel."""
    labels = np.zeros(next(iter(found.values())).mask.shape, dtype=np.uint8)
    for number in sorted(found, key=lambda number: found[number].score):
        labels[found[number].mask] = values[number]
    return labels


def _mean_score(by_slice: dict[int, dict[int, FrameMask]], number: int) -> float:
    """Mean predicted IoU over the slices that hold the object; 0 when none does."""
    scores = [
        found[number].score for found in by_slice.values() if number in found and found[number].mask.any()
    ]
    return float(np.mean(scores)) if scores else 0.0
