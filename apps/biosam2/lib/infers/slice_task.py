"""One object on one slice, from points and a box."""

from __future__ import annotations

from lib.infers.cleaning import cleaned
from lib.infers.task import Case, Segmentation, SegmentTask


class SliceTask(SegmentTask):
    """``biosam2_point``, ``biosam2_box`` and ``sam_2d``: all slices but the prompted one stay empty."""

    def segment(self, case: Case) -> Segmentation:
        """Segments the object on its slice."""
        (item,) = case.prompts.objects
        ((index, prompts),) = case.prompts.frames(item).items()
        result = case.predictor.segment(case.frames, case.image.digest, index, prompts)
        clicks = [(round(y), round(x)) for x, y in prompts.points[prompts.labels == 1].tolist()]
        mask = cleaned(result.mask, case.request, clicks)
        return Segmentation(
            labels=case.frames.to_volume({index: mask}),
            scores={item.label: result.score},
            params={"slice": index, "axis": case.prompts.axis, "presence": result.presence},
        )
