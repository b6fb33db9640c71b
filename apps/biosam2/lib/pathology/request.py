"""What a client wants of a slide: QuPath's and the Digital Slide Archive's requests, checked.

All coordinates are pixels of level 0, whatever ``level`` says: it is how closely the network looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from lib.errors import PromptError
from lib.pathology.slide import Slide
from lib.pathology.tiles import Region
from lib.prompts.parsing import parse_prompts
from lib.prompts.parsing.objects import checked_name
from lib.prompts.parsing.values import number, sequence, shown, vector, whole
from lib.prompts.types import ObjectPrompts

# What clicks and a rectangle mean.
Mode = Literal["each", "one", "box"]
MODES: dict[str, str] = {
    "each": "One object for each click; without clicks one in a small rectangle, all in a large one",
    "one": "One object from all clicks, without clicks the one in the rectangle",
    "box": "One object in the rectangle; clicks refine it",
}
# In the mode ``each``, a rectangle without a click of up to this many pixels a side is drawn around one
# object; a larger one is a region to find all objects in.
BOX_SIDE = 256
# The class of an object where neither --conf labels nor the request names one.
DEFAULT_LABEL = "Nuclei"
# Below it nobody sees an outline: the remains of one, or a click on nothing.
LEAST_AREA = 30.0
# Rectangles of one request, which the Digital Slide Archive sends where it has found tissue.
MOST_REGIONS = 10_000
# What the Digital Slide Archive calls the points that were clicked on a slide.
DSA_POINTS = "nuclick points"

# The request's keys that are prompts; labels with points are more of them.
_BOXES = ("box", "boxes", "roi")
_PROMPTS = ("foreground", "background", "points", "point_labels", *_BOXES)


@dataclass(frozen=True)
class SlideRequest:
    """One request, checked against its slide.

    Attributes:
        mode: what clicks and a rectangle mean.
        objects: what points and boxes ask for, one entry per class; none where all objects are wanted.
        regions: rectangles, each with an area and on the slide; the whole slide where none was sent.
        scale: pixels of level 0 for each pixel of the level that is looked at.
        label: class of what no prompt names.
        least_area: in square pixels of level 0; smaller objects and holes are left out.
    """

    mode: Mode
    objects: tuple[ObjectPrompts, ...]
    regions: tuple[Region, ...]
    scale: float
    label: str
    least_area: float

    @property
    def bounds(self) -> Region:
        """The smallest rectangle around all regions."""
        x0, y0 = (min(region[axis] for region in self.regions) for axis in (0, 1))
        x1, y1 = (max(region[axis] + region[axis + 2] for region in self.regions) for axis in (0, 1))
        return x0, y0, x1 - x0, y1 - y0


def read_request(request: Mapping[str, Any], slide: Slide, labels: Sequence[str]) -> SlideRequest:
    """Checks a request.

    Args:
        request: ``location`` and ``size`` or ``wsi_tiles`` (-1 or 0 for the whole slide), ``level``,
            ``min_poly_area``, ``mode``, ``label``, and prompts as everywhere: ``foreground`` and
            ``background``, lists for each label, ``boxes``.
        slide: that it is about.
        labels: the app's; the first one is the class of an object where the request names none.

    Raises:
        PromptError: a value is not allowed, or lies outside the slide.
    """
    mode = request.get("mode")
    if mode not in MODES:
        raise PromptError(f"mode is {shown(mode)}; it must be one of {', '.join(MODES)}")
    names = tuple(labels) or (DEFAULT_LABEL,)
    label = request.get("label") or names[0]
    if not isinstance(label, str):
        raise PromptError(f"label is {shown(label)}; expected the name of a class")
    checked_name(label)
    regions = _tiles(request.get("wsi_tiles"), slide)
    if not regions and (region := _region(request, slide)) is not None:
        regions = [region]
    whole_slide = [(0, 0, slide.width, slide.height)]
    asked = _prompts(request, names, regions or whole_slide)
    if len(regions) == 1 and _is_box(regions[0], mode, asked):
        x, y, width, height = regions[0]
        asked["boxes"] = [[x, y, x + width, y + height]]
    if not asked and mode != "each":
        raise PromptError("there is no click and no rectangle: click on an object, or draw one around it")
    area = request.get("min_poly_area")
    return SlideRequest(
        mode=cast(Mode, mode),
        objects=_objects({**asked, "label": label}, slide, names) if asked else (),
        regions=tuple(regions or whole_slide),
        scale=slide.downsamples[_level(request.get("level"), slide)],
        label=label,
        least_area=LEAST_AREA if area is None else max(0.0, number(area, "min_poly_area")),
    )


def points_of(item: ObjectPrompts, positive: bool) -> NDArray[np.float64]:
    """An object's positive or negative points, (N, 2), in pixels of level 0."""
    found = [point.ijk[:2] for point in item.points if point.positive == positive]
    return np.array(found, dtype=float).reshape(-1, 2)


def _prompts(request: Mapping[str, Any], names: Sequence[str], regions: Sequence[Region]) -> dict[str, Any]:
    """The request's prompts that say something; without any, the points of the Digital Slide Archive."""
    asked = {key: request[key] for key in (*_PROMPTS, *names) if request.get(key) not in (None, [], {})}
    if not asked and (points := _dsa_points(request, regions)):
        asked["foreground"] = points
    return asked


def _is_box(region: Region, mode: str, asked: Mapping[str, Any]) -> bool:
    """Whether a rectangle is drawn around an object: where a request has a box of its own it is not."""
    if any(key in asked for key in _BOXES):
        return False
    if mode == "box":
        return True
    return set(asked) <= {"background"} and (mode == "one" or max(region[2:]) <= BOX_SIDE)


def _objects(asked: Mapping[str, Any], slide: Slide, names: tuple[str, ...]) -> tuple[ObjectPrompts, ...]:
    shape = (slide.width, slide.height, 1)
    prompts = parse_prompts(asked, shape=shape, affine=None, is_2d=True, mode="multi", labels=names)
    return prompts.objects


def _dsa_points(request: Mapping[str, Any], regions: Sequence[Region]) -> list[list[float]]:
    """The slide's own points in the Digital Slide Archive, those in the regions."""
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


def _tiles(value: Any, slide: Slide) -> list[Region]:
    tiles = sequence(value, "wsi_tiles", "a list of tiles, each with location and size")
    if len(tiles) > MOST_REGIONS:
        raise PromptError(f"wsi_tiles has {len(tiles)} tiles; at most {MOST_REGIONS} are allowed at once")
    regions = []
    for index, tile in enumerate(tiles):
        if not isinstance(tile, Mapping):
            raise PromptError(f"wsi_tiles[{index}] is {shown(tile)}; expected location and size")
        if (region := _region(tile, slide, f"wsi_tiles[{index}].")) is None:
            raise PromptError(f"wsi_tiles[{index}] has no size")
        regions.append(region)
    return regions


def _region(request: Mapping[str, Any], slide: Slide, name: str = "") -> Region | None:
    """The rectangle, cut off at the slide's borders; None for the whole slide."""
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
            f"the rectangle at {list(location)} of size {list(size)} is outside the slide, which has "
            f"{slide.width} x {slide.height} pixels"
        )
    return left, top, right - left, bottom - top


def _pair(value: Any, name: str) -> tuple[int, int]:
    if value is None or (isinstance(value, list | tuple) and not value):
        return 0, 0
    first, second = vector(value, name, (2,), "two numbers, [x, y]")
    return whole(first, name), whole(second, name)
