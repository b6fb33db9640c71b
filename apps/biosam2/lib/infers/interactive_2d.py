"""One object on one slice, from points and a box; and through the frames of a video that come one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType

from lib.engine.frame_tracker import FrameTracker
from lib.engine.predictor import FrameMask
from lib.infers.postprocessing import cleaned
from lib.infers.task import Case, Segmentation, SegmentTask, Services
from lib.prompts.types import FramePrompts
from lib.transforms.frames import crops_around

# What CVAT's tracker sends with its box, where its interactor sends "mask".
TRACKER_OUTPUT = "json"


class SliceTask(SegmentTask):
    """``biosam2_point``, ``biosam2_box`` and ``sam_2d``: all slices but the prompted one stay empty.

    Args:
        services: what the app shares among its tasks.
        tracker: of the videos whose frames come one by one.
        description: for people.
    """

    def __init__(self, services: Services, tracker: FrameTracker, description: str):
        super().__init__(services, InferType.DEEPGROW, 2, "slice", [], description)
        self._tracker = tracker

    def segment(self, case: Case) -> Segmentation:
        """Segments the object on its slice."""
        (item,) = case.prompts.objects
        ((index, prompts),) = case.prompts.frames(item).items()
        facts = {}
        if _is_from_a_tracker(case, prompts):
            result, facts["tracked"] = self._follow(case, index, prompts)
        else:
            result = _segment(case, index, prompts)
        return Segmentation(
            labels=case.frames.to_volume({index: result.mask}),
            scores={item.label: result.score},
            params={"slice": index, "axis": case.prompts.axis, "presence": result.presence, **facts},
        )

    def _follow(self, case: Case, index: int, prompts: FramePrompts) -> tuple[FrameMask, int]:
        client = str(case.request.get("client_id"))
        return self._tracker.follow(case.predictor, case.frames, index, prompts, client)


def _is_from_a_tracker(case: Case, prompts: FramePrompts) -> bool:
    """Whether this is a frame with the object's box on the frame before, and nothing else said of it."""
    box_alone = prompts.box is not None and not len(prompts.points)
    return case.request.get("output") == TRACKER_OUTPUT and case.image.is_2d and box_alone


def _segment(case: Case, index: int, prompts: FramePrompts) -> FrameMask:
    result = _predict(case, index, prompts)
    clicks = [(round(y), round(x)) for x, y in prompts.points[prompts.labels == 1].tolist()]
    return replace(result, mask=cleaned(result.mask, case.request, clicks))


def _predict(case: Case, index: int, prompts: FramePrompts) -> FrameMask:
    """Mask of the frame. Of an elongated picture the network sees a part that the object does not leave."""
    frames = case.frames
    width, height = frames.width, frames.height
    if not case.image.is_2d or prompts.mask is not None:
        return case.predictor.segment(frames, index, prompts)
    box = np.zeros((0, 2)) if prompts.box is None else prompts.box.reshape(2, 2)
    places = np.concatenate([prompts.points, box])
    for crop in crops_around(width, height, places.min(axis=0), places.max(axis=0)):
        moved = FramePrompts(
            prompts.points - crop.origin,
            prompts.labels,
            None if prompts.box is None else prompts.box - np.tile(crop.origin, 2),
        )
        result = case.predictor.segment(frames.part(crop), index, moved)
        if not crop.cuts(result.mask, width, height):
            break
    return replace(result, mask=crop.paste(result.mask, width, height))
