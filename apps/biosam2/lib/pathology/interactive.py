"""Objects on a slide from prompts: the network looks at patches around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Point, Polygon

from lib.engine.predictor import Predictor
from lib.pathology.outlines import as_areas, outline
from lib.pathology.patch import Patch, Window, read_patch, window_around
from lib.pathology.slide import Slide
from lib.prompts.types import FramePrompts
from lib.scoring.signals.object_signals import predicted_iou

# Pixels of a patch for each pixel of the network's input. Clicked anywhere on them, 121 fluorescent nuclei of
# 24 px had a mean Dice of 0.75 at one half and 0.79 at three quarters (biosam2_mini).
ZOOM = 0.75
# What a network of another input size would make of it: nuclei are no larger for it.
SMALLEST_SIDE, LARGEST_SIDE = 192, 512
# An object that a patch cuts is looked at again from twice as far, so many times: up to 8 times as large.
STEPS_BACK = 3
# Pixels of the patch: what ends so near to its border goes on behind it.
NEAR_BORDER = 2.0
# Of a patch, what a box or the clicks on one object may fill: the rest shows what is around it.
SHARE = 0.5
# Clicks on other nuclei that are told to the network beside one nucleus, the nearest.
MOST_OTHERS = 4

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """One object.

    Attributes:
        area: on the slide; empty where the network sees nothing.
        score: predicted IoU, 0 to 1.
    """

    area: Polygon
    score: float


NOTHING = Outline(Polygon(), 0.0)


class Viewer:
    """The network's eye on one slide.

    Args:
        slide: open.
        predictor: of the device.
        scale: pixels of level 0 for each pixel of a patch, to begin with.

    Attributes:
        side: of a patch, in its own pixels.
    """

    def __init__(self, slide: Slide, predictor: Predictor, scale: float):
        self.slide = slide
        self.predictor = predictor
        self.scale = scale
        self.side = min(max(round(predictor.image_size * ZOOM), SMALLEST_SIDE), LARGEST_SIDE)

    def each(self, clicks: Points, negatives: Points) -> list[Outline]:
        """One object for each click.

        Where the object of one click has another click on it, it is asked for again with that as a negative
        point: nuclei that touch come apart.

        Args:
            clicks: (N, 2), pixels of level 0.
            negatives: (M, 2), on none of the objects.

        Returns:
            N of them, in the order of the clicks.
        """
        asked = dict.fromkeys(range(len(clicks)), negatives)
        found = self._looked_at(asked, clicks, self.scale, STEPS_BACK)
        shared = {
            number: np.concatenate([negatives, others])
            for number, answer in found.items()
            if len(others := _others_on(answer.area, clicks, number))
        }
        apart = self._looked_at(shared, clicks, self.scale, STEPS_BACK)
        found |= {number: answer for number, answer in apart.items() if not answer.area.is_empty}
        return [found[number] for number in range(len(clicks))]

    def one(self, positives: Points, negatives: Points, box: Sequence[float] | None = None) -> Outline:
        """One object, from all points and a box.

        Args:
            positives: (N, 2), pixels of level 0; none where there is a box.
            negatives: (M, 2).
            box: x0, y0, x1, y1 in pixels of level 0.
        """
        corners = np.concatenate([positives, np.reshape([] if box is None else box, (-1, 2))])
        low, high = corners.min(axis=0), corners.max(axis=0)
        scale = self.scale
        while max(high - low) > self.side * scale * SHARE:
            scale *= 2
        best = NOTHING
        # A box says how far the object reaches; clicks do not.
        for step in range(1 if box is not None else STEPS_BACK + 1):
            patch = read_patch(self.slide, self._window((low + high) / 2, scale * 2**step))
            prompts = _prompts(patch, positives, negatives, box)
            ((area, score),) = self._ask(patch, [prompts])
            if (piece := _piece(area, positives)).is_empty:
                break
            best = Outline(piece, score)
            if not patch.cuts(piece, NEAR_BORDER):
                break
        return best

    def _looked_at(
        self, others: Mapping[int, Points], clicks: Points, scale: float, steps: int
    ) -> dict[int, Outline]:
        """One object for each of some clicks, in as few steps as there are patches and numbers of points.

        Args:
            others: negative points of each click, by its number.
            clicks: (N, 2), all of them.
            scale: of the patches.
            steps: how often a cut object may still be looked at from farther away.
        """
        together: dict[tuple[Window, int], list[int]] = defaultdict(list)
        for number, negatives in others.items():
            together[self._window(clicks[number], scale), len(negatives)].append(number)
        found: dict[int, Outline] = {}
        cut: dict[int, Points] = {}
        for (window, _), numbers in together.items():
            patch = read_patch(self.slide, window)
            asked = [_prompts(patch, clicks[number][None], others[number]) for number in numbers]
            for number, (area, score) in zip(numbers, self._ask(patch, asked), strict=True):
                found[number] = Outline(_piece(area, clicks[number][None]), score)
                if patch.cuts(found[number].area, NEAR_BORDER):
                    cut[number] = others[number]
        if cut and steps:
            farther = self._looked_at(cut, clicks, scale * 2, steps - 1)
            found |= {number: answer for number, answer in farther.items() if not answer.area.is_empty}
        return found

    def _window(self, place: Points, scale: float) -> Window:
        return window_around(self.slide, float(place[0]), float(place[1]), self.side, scale)

    def _ask(self, patch: Patch, prompts: Sequence[FramePrompts]) -> list[tuple[MultiPolygon, float]]:
        """Area on the slide and predicted IoU of each object on a patch."""
        outputs = self.predictor.outputs(patch, 0, prompts)
        return [
            (as_areas(patch.to_slide(outline(logits, patch.width, patch.height))), predicted_iou(ious))
            for logits, ious in zip(outputs.logits, outputs.ious, strict=True)
        ]


def _prompts(
    patch: Patch, positives: Points, negatives: Points, box: Sequence[float] | None = None
) -> FramePrompts:
    """Points and a box of the slide on a patch; the network takes points outside it too."""
    points = np.concatenate([positives, negatives])
    labels = np.array([1] * len(positives) + [0] * len(negatives), dtype=np.int32)
    return FramePrompts(patch.inside(points), labels, None if box is None else patch.box_inside(box))


def _piece(area: MultiPolygon, clicks: Points) -> Polygon:
    """The piece that most clicks are on; of equals, the largest. Empty where there is none."""
    places = [Point(x + 0.5, y + 0.5) for x, y in clicks]
    pieces = sorted(area.geoms, key=lambda piece: (-sum(piece.covers(p) for p in places), -piece.area))
    return pieces[0] if pieces else Polygon()


def _others_on(area: Polygon, clicks: Points, number: int) -> Points:
    """The clicks that are not ``number`` and lie on an area, the nearest ones first, (N, 2)."""
    on = [
        other
        for other, (x, y) in enumerate(clicks)
        if other != number and area.covers(Point(x + 0.5, y + 0.5))
    ]
    on.sort(key=lambda other: float(np.hypot(*(clicks[other] - clicks[number]))))
    return clicks[on[:MOST_OTHERS]]
