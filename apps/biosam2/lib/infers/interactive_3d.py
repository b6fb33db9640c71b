"""Objects through a volume, from prompts on any of its slices."""

from __future__ import annotations

from typing import get_args

import numpy as np

from lib.engine.corrections import obey
from lib.engine.propagation import propagate
from lib.engine.zoomed_propagation import propagate_zoomed
from lib.infers.postprocessing import SliceMerger, cleaned_labels
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
        found = SliceMerger(prompted.image.shape, prompted.prompts.axis, self.calibration(prompted.version))
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
