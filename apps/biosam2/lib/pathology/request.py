"""Requests of QuPath and the Digital Slide Archive, checked.

All coordinates are level-0 pixels, whatever ``level`` is: it only decides the resolution of the patches.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Point, box

from lib.engine.predictor import MaskChoice
from lib.errors import PromptError
from lib.pathology.automatic_segmentation import Region
from lib.pathology.interactive import PATCH_MPP
from lib.pathology.slide import MPP_RANGE, Slide
from lib.prompts.fields import number, sequence, shown, vector, whole
from lib.prompts.parsing import checked_name, parse_prompts
from lib.prompts.types import ObjectPrompts

# Meaning of clicks and rectangles.
Mode = Literal["each", "one", "box"]
MODES: dict[str, str] = {
    "each": "One object for each click; without clicks one in a small rectangle, all in a large one",
    "one": "One object from all clicks, without clicks the one in the rectangle",
    "box": "One object in each rectangle; clicks refine it",
}
# Largest side in micrometres of a rectangle without a click that is drawn around one object, in the mode
# ``each``; a larger one is a region in which all objects are segmented.
BOX_UM = 64.0
# Micrometres per pixel of slides without a known pixel size, as of scans at 40-fold magnification.
USUAL_MPP = 0.25
# Class of an object where neither --conf labels nor the request names one.
DEFAULT_LABEL = "Nuclei"
# Default of min_poly_area in square pixels.
LEAST_AREA = 30.0
# Largest number of rectangles of one request; the Digital Slide Archive sends one per tile with tissue.
MOST_REGIONS = 10_000
# Name of the points that were clicked on a slide in the Digital Slide Archive.
DSA_POINTS = "nuclick points"

# Keys of the request that are prompts; labels with points are further ones.
_BOXES = ("box", "boxes", "roi")
_PROMPTS = ("foreground", "background", "points", "point_labels", *_BOXES)


@dataclass(frozen=True)
class SlideRequest:
    """One request, checked against its slide.

    Attributes:
        mode: Meaning of clicks and rectangles.
        objects: Points and boxes, one entry per class or box; empty where all objects are wanted.
        regions: Rectangles on the slide; the whole slide where the request has none.
        region_labels: Class of the objects in each region.
        scale: Level-0 pixels per patch pixel.
        least_area: Area in square level-0 pixels below which objects and holes are left out.
        choice: Mask that answers a click for which the network decodes several.
    """

    mode: Mode
    objects: tuple[ObjectPrompts, ...]
    regions: tuple[Region, ...]
    region_labels: tuple[str, ...]
    scale: float
    least_area: float
    choice: MaskChoice

    @property
    def bounds(self) -> Region:
        """The smallest rectangle around all regions."""
        x0, y0 = (min(region[axis] for region in self.regions) for axis in (0, 1))
        x1, y1 = (max(region[axis] + region[axis + 2] for region in self.regions) for axis in (0, 1))
        return x0, y0, x1 - x0, y1 - y0

    def label_at(self, place: Point) -> str:
        """Class of an object whose centre is at a place: that of the first region with it."""
        found = (
            label
            for (x, y, width, height), label in zip(self.regions, self.region_labels, strict=True)
            if box(x, y, x + width, y + height).covers(place)
        )
        return next(found, self.region_labels[0])


def read_request(request: Mapping[str, Any], slide: Slide, labels: Sequence[str]) -> SlideRequest:
    """Checks a request.

    Args:
        request: ``location`` and ``size`` or ``wsi_tiles``, each with an optional ``label`` (-1 or 0 for the
            whole slide), ``level``, ``min_poly_area``, ``mode``, ``mask``, ``label``, and prompts:
            ``foreground``, ``background``, lists for each label, ``boxes``.
        slide: Slide of the request.
        labels: The app's labels; the first one is the default class.

    Raises:
        PromptError: A value is not allowed, or lies outside the slide.
    """
    mode = _one_of("mode", str(request.get("mode")), tuple(MODES))
    choice = _one_of("mask", request.get("mask") or "best", get_args(MaskChoice))
    names = tuple(labels) or (DEFAULT_LABEL,)
    label = _label(request.get("label") or names[0])
    tiles = _tiles(request.get("wsi_tiles"), slide, label)
    if not tiles and (region := _region(request, slide)) is not None:
        tiles = [(region, label)]
    shown_regions = tiles or [((0, 0, slide.width, slide.height), label)]
    regions = tuple(region for region, _ in shown_regions)
    asked, box_labels = _prompts(request, names, regions), [label]
    if not any(key in asked for key in _BOXES) and (tiles and _are_boxes(tiles, mode, asked, slide)):
        asked["boxes"] = [[x, y, x + width, y + height] for (x, y, width, height), _ in tiles]
        box_labels = [name for _, name in tiles]
    if not asked and mode != "each":
        raise PromptError(
            "The request has no click and no rectangle: click on an object, or draw a rectangle"
        )
    area = request.get("min_poly_area")
    return SlideRequest(
        mode=mode,
        objects=_objects(asked, box_labels, slide, names) if asked else (),
        regions=regions,
        region_labels=tuple(name for _, name in shown_regions),
        scale=patch_scale(slide) * slide.downsamples[_level(request.get("level"), slide)],
        least_area=LEAST_AREA if area is None else max(0.0, number(area, "min_poly_area")),
        choice=choice,
    )


def patch_scale(slide: Slide) -> float:
    """Level-0 pixels per patch pixel at which nuclei have the size that the network expects."""
    return PATCH_MPP / (slide.mpp or USUAL_MPP)


def requested_mpp(request: Mapping[str, Any]) -> float | None:
    """Micrometres per pixel that the request gives (``mpp``).

    Raises:
        PromptError: It is not a number in the range of slides.
    """
    if request.get("mpp") is None:
        return None
    value, (low, high) = number(request["mpp"], "mpp"), MPP_RANGE
    if not low <= value <= high:
        raise PromptError(f"mpp is {value:g}; it must be {low:g} to {high:g} micrometres per pixel")
    return float(value)


def requested_channels(request: Mapping[str, Any]) -> list[str]:
    """Names or numbers of the channels that the request wants to be shown (``channels``).

    Raises:
        PromptError: They are no list of names and numbers.
    """
    asked = sequence(request.get("channels"), "channels", "a list of names or numbers from 0")
    if not all(isinstance(name, str | int) for name in asked):
        raise PromptError(f"channels is {shown(asked)}; expected a list of names or numbers from 0")
    return [str(name) for name in asked]


def points_of(item: ObjectPrompts, positive: bool) -> NDArray[np.float64]:
    """An object's positive or negative points, (N, 2), in level-0 pixels."""
    found = [point.ijk[:2] for point in item.points if point.positive == positive]
    return np.array(found, dtype=float).reshape(-1, 2)


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> Any:
    if value not in allowed:
        raise PromptError(f"Unknown {name} {shown(value)} (available: {', '.join(allowed)})")
    return value


def _label(value: Any) -> str:
    if not isinstance(value, str):
        raise PromptError(f"label is {shown(value)}; expected the name of a class")
    checked_name(value)
    return value


def _prompts(request: Mapping[str, Any], names: Sequence[str], regions: Sequence[Region]) -> dict[str, Any]:
    """The request's prompts that are not empty; without any, the points of the Digital Slide Archive."""
    asked = {key: request[key] for key in (*_PROMPTS, *names) if request.get(key) not in (None, [], {})}
    if not asked and (points := _dsa_points(request, regions)):
        asked["foreground"] = points
    return asked


def _are_boxes(
    tiles: Sequence[tuple[Region, str]], mode: str, asked: Mapping[str, Any], slide: Slide
) -> bool:
    """Whether rectangles are drawn around one object each."""
    if mode == "box":
        return True
    limit = BOX_UM / (slide.mpp or USUAL_MPP)
    is_small = len(tiles) == 1 and max(tiles[0][0][2:]) <= limit
    return set(asked) <= {"background"} and (mode == "one" or is_small)


def _objects(
    asked: Mapping[str, Any], labels: Sequence[str], slide: Slide, names: tuple[str, ...]
) -> tuple[ObjectPrompts, ...]:
    """Prompts by object: one per class, and one per box where there are several.

    Args:
        asked: Prompts of the request.
        labels: Class of each box, or of all of them.
        slide: Slide of the request.
        names: Names of the classes that prompts may have.
    """
    boxes = asked.get("boxes")
    several = boxes if isinstance(boxes, list) and len(boxes) > 1 else [None]
    if len(several) > MOST_REGIONS:
        raise PromptError(f"The request has {len(several)} boxes; at most {MOST_REGIONS} are allowed at once")
    shape = (slide.width, slide.height, 1)
    found: list[ObjectPrompts] = []
    for item, label in zip(several, itertools.cycle(labels)):
        one = {**asked, "label": label, **({} if item is None else {"boxes": [item]})}
        prompts = parse_prompts(one, shape=shape, affine=None, is_2d=True, mode="multi", labels=names)
        found.extend(prompts.objects)
    return tuple(found)


def _dsa_points(request: Mapping[str, Any], regions: Sequence[Region]) -> list[list[float]]:
    """The slide's own points in the Digital Slide Archive that lie in the regions."""
    found = request.get("annotations")
    points = found.get(DSA_POINTS, {}) if isinstance(found, Mapping) else {}
    listed = points.get("points") if isinstance(points, Mapping) else None
    kept = []
    for index, entry in enumerate(sequence(listed, DSA_POINTS, "a list of points, [[x, y], ...]")):
        x, y, *_ = vector(entry, f"{DSA_POINTS}[{index}]", (2, 3), "one point, [x, y] or [x, y, z]")
        if any(_contains(region, x, y) for region in regions):
            kept.append([x, y])
    return kept


def _contains(region: Region, x: float, y: float) -> bool:
    left, top, width, height = region
    return left <= x < left + width and top <= y < top + height


def _level(value: Any, slide: Slide) -> int:
    level = 0 if value is None else number(value, "level")
    if level not in range(len(slide.downsamples)):
        raise PromptError(
            f"level is {shown(value)}; the slide has the levels 0 to {len(slide.downsamples) - 1}"
        )
    return int(level)


def _tiles(value: Any, slide: Slide, label: str) -> list[tuple[Region, str]]:
    tiles = sequence(value, "wsi_tiles", "a list of tiles, each with location and size")
    if len(tiles) > MOST_REGIONS:
        raise PromptError(f"wsi_tiles has {len(tiles)} tiles; at most {MOST_REGIONS} are allowed at once")
    regions = []
    for index, tile in enumerate(tiles):
        if not isinstance(tile, Mapping):
            raise PromptError(f"wsi_tiles[{index}] is {shown(tile)}; expected location and size")
        if (region := _region(tile, slide, f"wsi_tiles[{index}].")) is None:
            raise PromptError(f"wsi_tiles[{index}] has no size")
        regions.append((region, _label(tile.get("label") or label)))
    return regions


def _region(request: Mapping[str, Any], slide: Slide, name: str = "") -> Region | None:
    """The rectangle, clipped to the slide; None for the whole slide."""
    location = _pair(request.get("location"), f"{name}location")
    size = _pair(request.get("size"), f"{name}size")
    if all(side <= 0 for side in size) and all(place <= 0 for place in location):
        return None
    if min(size) <= 0:
        raise PromptError(f"{name}size is {list(size)}; both sides must be above 0")
    left, top = (max(0, place) for place in location)
    right = min(slide.width, location[0] + size[0])
    bottom = min(slide.height, location[1] + size[1])
    if left >= right or top >= bottom:
        raise PromptError(
            f"The rectangle at {list(location)} of size {list(size)} is outside the slide, which has "
            f"{slide.width} x {slide.height} pixels"
        )
    return left, top, right - left, bottom - top


def _pair(value: Any, name: str) -> tuple[int, int]:
    if value is None or (isinstance(value, list | tuple) and not value):
        return 0, 0
    first, second = vector(value, name, (2,), "two numbers, [x, y]")
    return whole(first, name), whole(second, name)
