"""One object on one slice, from points and a box; and through the frames of a video that come one by one."""

from __future__ import annotations

from dataclasses import replace

from monailabel.interfaces.tasks.infer_v2 import InferType

from lib.engine.corrections import obey
from lib.engine.frame_tracker import FrameTracker
from lib.engine.predictor import FrameMask
from lib.infers.postprocessing import cleaned
from lib.infers.task import PromptedImage, SegmentTask, Services, TaskResult
from lib.prompts.types import FramePrompts

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
        return TaskResult(
            labels=prompted.frames.to_volume({index: result.mask}),
            scores={item.label: result.score},
            params={"slice": index, "axis": prompted.prompts.axis, "presence": result.presence, **facts},
        )

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
