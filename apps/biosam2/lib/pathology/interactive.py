"""Interactive segmentation: objects on a slide from points and boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Point, Polygon

from lib.engine.predictor import MaskChoice, Predictor
from lib.pathology.outlines import as_areas, outline
from lib.pathology.patch import Patch, TileRectangle, read_patch, rectangle_around
from lib.pathology.slide import Slide
from lib.prompts.types import FramePrompts

# Patch pixels per pixel of the network's input. For clicks anywhere on 121 fluorescent nuclei of 24 px, the
# mean Dice was 0.75 at one half and 0.79 at three quarters (biosam2_mini).
ZOOM = 0.75
# Micrometres per patch pixel at level 0: a patch of 192 pixels shows 24 micrometres. For a click on each of
# 109 nuclei of haematoxylin and eosin, the mean Dice was 0.46 at 48 micrometres, where the network takes a
# nucleus with its neighbours, 0.68 at 24, and 0.61 at 12 (biosam2_mini).
PATCH_MPP = 0.125
# Limits of a patch's side for networks of other input sizes: nuclei are no larger for them.
SMALLEST_SIDE, LARGEST_SIDE = 192, 512
# Times that an object cut by its patch is segmented again at twice the scale: up to 16 times as large.
STEPS_BACK = 4
# Distance from the patch's border, in patch pixels, within which an object counts as cut.
NEAR_BORDER = 2.0
# Largest share of a patch's side that a box or the clicks on one object may take.
SHARE = 0.5
# Largest number of clicks on other objects that become negative points of one object: the nearest.
MOST_OTHERS = 4
# Clicks nearer to each other than this share of the diameter of the outline that both lie on are on one
# object. Two discs that touch have their centres 0.7 of their common outline's diameter apart.
SAME_OBJECT_DISTANCE = 0.55
# Overlap, as a share of the smaller outline, from which on two outlines are one object.
SAME_OBJECT_OVERLAP = 0.5

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """One object on a slide.

    Attributes:
        area: Polygon in level-0 pixels; empty where the network sees nothing.
        score: Predicted IoU (clicks and boxes) or estimated quality (automatic), 0 to 1.
    """

    area: Polygon
    score: float


NOTHING = Outline(Polygon(), 0.0)


class SlidePredictor:
    """Predicts masks of objects in patches of one slide.

    Args:
        slide: Open slide.
        predictor: Network on its device.
        scale: Level-0 pixels per patch pixel of the first patch.
        choice: Mask that answers a click for which the network decodes several.

    Attributes:
        side: Side of a patch in its own pixels.
    """

    def __init__(self, slide: Slide, predictor: Predictor, scale: float, choice: MaskChoice = "best"):
        self.slide = slide
        self.predictor = predictor
        self.scale = scale
        self._choice = choice
        self.side = min(max(round(predictor.image_size * ZOOM), SMALLEST_SIDE), LARGEST_SIDE)

    def each(self, clicks: Points, negatives: Points) -> list[Outline]:
        """Segments one object per click; clicks on the same object share one outline.

        Where the outline of one click contains clicks on other objects, it is predicted again with those as
        negative points, which separates nuclei that touch.

        Args:
            clicks: (N, 2) level-0 pixels.
            negatives: (M, 2) level-0 pixels, background of all objects.

        Returns:
            At most N distinct outlines, in the order of the first click on each; empty ones where nothing was
            found.
        """
        first = self._predict(dict.fromkeys(range(len(clicks)), negatives), clicks, self.scale, STEPS_BACK)
        group = _same_object(first, clicks)
        leaders = [number for number in range(len(clicks)) if group[number] == number]
        shared = {
            number: np.concatenate([negatives, others])
            for number in leaders
            if len(others := _others_on(first[number].area, clicks, group, number))
        }
        apart = self._predict(shared, clicks, self.scale, STEPS_BACK)
        found = first | {number: answer for number, answer in apart.items() if not answer.area.is_empty}
        return distinct([found[number] for number in leaders])

    def one(self, positives: Points, negatives: Points, box: Sequence[float] | None = None) -> Outline:
        """Segments one object from all points and a box.

        Args:
            positives: (N, 2) level-0 pixels; may be empty with a box.
            negatives: (M, 2) level-0 pixels.
            box: Edges x0, y0, x1, y1 in level-0 pixels.
        """
        corners = np.concatenate([positives, np.reshape([] if box is None else box, (-1, 2))])
        low, high = corners.min(axis=0), corners.max(axis=0)
        scale = self.scale
        while max(high - low) > self.side * scale * SHARE:
            scale *= 2
        best = NOTHING
        # A box limits the object, clicks do not.
        for step in range(1 if box is not None else STEPS_BACK + 1):
            patch = read_patch(self.slide, self._rectangle((low + high) / 2, scale * 2**step))
            prompts = _prompts(patch, positives, negatives, box)
            ((area, score),) = self._outlines(patch, [prompts])
            if (piece := _piece(area, positives)).is_empty:
                break
            best = Outline(piece, score)
            if not patch.cuts(piece, NEAR_BORDER):
                break
        return best

    def _predict(
        self, others: Mapping[int, Points], clicks: Points, scale: float, steps: int
    ) -> dict[int, Outline]:
        """Segments one object per click, with one network call per patch and number of points.

        Args:
            others: Negative points of each click, by its index.
            clicks: (N, 2) all clicks.
            scale: Level-0 pixels per patch pixel.
            steps: Times that a cut object may still be segmented at twice the scale.
        """
        together: dict[tuple[TileRectangle, int], list[int]] = defaultdict(list)
        for number, negatives in others.items():
            together[self._rectangle(clicks[number], scale), len(negatives)].append(number)
        found: dict[int, Outline] = {}
        cut: dict[int, Points] = {}
        for (rectangle, _), numbers in together.items():
            patch = read_patch(self.slide, rectangle)
            prompts = [_prompts(patch, clicks[number][None], others[number]) for number in numbers]
            for number, (area, score) in zip(numbers, self._outlines(patch, prompts), strict=True):
                found[number] = Outline(_piece(area, clicks[number][None]), score)
                if patch.cuts(found[number].area, NEAR_BORDER):
                    cut[number] = others[number]
        if cut and steps:
            farther = self._predict(cut, clicks, scale * 2, steps - 1)
            found |= {number: answer for number, answer in farther.items() if not answer.area.is_empty}
        return found

    def _rectangle(self, place: Points, scale: float) -> TileRectangle:
        return rectangle_around(self.slide, float(place[0]), float(place[1]), self.side, scale)

    def _outlines(self, patch: Patch, prompts: Sequence[FramePrompts]) -> list[tuple[MultiPolygon, float]]:
        """Area on the slide and predicted IoU of each object on a patch."""
        outputs = self.predictor.outputs(patch, 0, prompts, self._choice)
        return [
            (as_areas(patch.to_slide(outline(logits, patch.width, patch.height))), float(score))
            for logits, score in zip(outputs.logits, outputs.predicted_ious, strict=True)
        ]


def distinct(found: Sequence[Outline]) -> list[Outline]:
    """Non-maximum suppression: leaves out outlines of which a better one covers half.

    Returns:
        The others, in their order.
    """
    areas = [item.area for item in found]
    tree = shapely.STRtree(areas)
    kept: set[int] = set()
    for number in sorted(range(len(found)), key=lambda index: -found[index].score):
        near = kept.intersection(tree.query(areas[number]).tolist())
        if all(_overlap(areas[number], areas[other]) <= SAME_OBJECT_OVERLAP for other in near):
            kept.add(number)
    return [found[number] for number in sorted(kept)]


def _overlap(one: Polygon, other: Polygon) -> float:
    """Common area as a share of the smaller polygon; 0 where one is empty."""
    smaller = min(one.area, other.area)
    return float(one.intersection(other).area / smaller) if smaller else 0.0


def _prompts(
    patch: Patch, positives: Points, negatives: Points, box: Sequence[float] | None = None
) -> FramePrompts:
    """Points and a box in patch pixels; the network accepts points outside the patch."""
    points = np.concatenate([positives, negatives])
    labels = np.array([1] * len(positives) + [0] * len(negatives), dtype=np.int32)
    return FramePrompts(patch.inside(points), labels, None if box is None else patch.box_inside(box))


def _centre(click: Points) -> Point:
    """Centre of a clicked pixel."""
    return Point(click[0] + 0.5, click[1] + 0.5)


def _piece(area: MultiPolygon, clicks: Points) -> Polygon:
    """The piece with most clicks on it, of equal ones the largest; empty where there is none."""
    places = [_centre(click) for click in clicks]
    pieces = sorted(area.geoms, key=lambda piece: (-sum(piece.covers(p) for p in places), -piece.area))
    return pieces[0] if pieces else Polygon()


def _same_object(found: Mapping[int, Outline], clicks: Points) -> list[int]:
    """Index of the first click on the same object, for each click."""
    group = list(range(len(clicks)))
    for one, other in _near(found):
        if group[other] != other or group[one] != one:
            continue
        diameter = 2 * np.sqrt(max(found[one].area.area, found[other].area.area) / np.pi)
        is_mutual = found[one].area.covers(_centre(clicks[other])) and found[other].area.covers(
            _centre(clicks[one])
        )
        if is_mutual and np.hypot(*(clicks[one] - clicks[other])) < SAME_OBJECT_DISTANCE * diameter:
            group[other] = one
    return group


def _near(found: Mapping[int, Outline]) -> list[tuple[int, int]]:
    """Pairs of clicks whose outlines meet, in the order of the clicks."""
    areas = [found[number].area for number in range(len(found))]
    pairs = shapely.STRtree(areas).query(areas, predicate="intersects").T.tolist()
    return sorted((one, other) for one, other in pairs if one < other)


def _others_on(area: Polygon, clicks: Points, group: Sequence[int], number: int) -> Points:
    """Clicks (N, 2) of other objects that lie on an area, the nearest first."""
    on = [
        other for other, click in enumerate(clicks) if group[other] != number and area.covers(_centre(click))
    ]
    on.sort(key=lambda other: float(np.hypot(*(clicks[other] - clicks[number]))))
    return clicks[on[:MOST_OTHERS]]
