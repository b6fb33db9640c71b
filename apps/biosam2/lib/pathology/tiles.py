"""A region in tiles that overlap, and objects of several tiles made whole again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from lib.errors import ImageTooLargeError
from lib.pathology.outlines import as_areas
from lib.pathology.patch import Patch, Window
from lib.pathology.slide import Slide

Region = tuple[int, int, int, int]
"""x, y, width, height in pixels of level 0."""

# A quarter of a tile's side, so that what is smaller than that lies whole on a tile.
OVERLAP = 0.25
# Tiles of one request: about ten minutes on a CPU. Who wants more asks for a part of the slide at a time.
MOST_TILES = 512
# Levels between the darkest and the lightest block of a tile: glass, its noise averaged away, has less.
FLAT, BLOCK = 12.0, 8
# Two outlines that share this much of the smaller one are one object.
SAME = 0.5


@dataclass(frozen=True)
class Found:
    """An object of one tile.

    Attributes:
        area: on the slide.
        quality: the higher the better.
        tile: the part of the slide that was looked at.
        is_cut: whether it may go on in the next tile.
    """

    area: Polygon
    quality: float
    tile: BaseGeometry
    is_cut: bool


def tile_windows(slide: Slide, regions: Sequence[Region], side: int, scale: float) -> list[Window]:
    """Windows that overlap and cover every region, each of them once, row by row.

    Args:
        slide: on which the regions lie.
        regions: at least one.
        side: of a tile in its own pixels.
        scale: pixels of level 0 for each of them.

    Raises:
        ImageTooLargeError: there would be more than ``MOST_TILES``.
    """
    length = round(side * scale)
    step = max(1, round(length * (1 - OVERLAP)))
    places: dict[tuple[int, int], None] = {}
    for x, y, width, height in regions:
        columns = _starts(x, width, slide.width, length, step)
        rows = _starts(y, height, slide.height, length, step)
        if len(columns) * len(rows) + len(places) > MOST_TILES:
            raise ImageTooLargeError(
                f"{width} x {height} pixels are too many to look for every object in at once: "
                f"{len(columns) * len(rows)} tiles, and {MOST_TILES} are the limit. Draw a smaller rectangle "
                "(location and size), click on the objects, or send a coarser level"
            )
        places.update(dict.fromkeys((column, row) for row in rows for column in columns))
    width, height = min(length, slide.width), min(length, slide.height)
    return [Window(x, y, width, height, scale) for x, y in places]


def _starts(start: int, size: int, whole: int, length: int, step: int) -> list[int]:
    """Where tiles begin: on a grid of the whole slide, so that neighbouring regions share their tiles."""
    last = max(0, whole - length)
    first_index = max(0, math.floor((start - length) / step) + 1)
    last_index = (start + size - 1) // step
    return sorted({min(index * step, last) for index in range(first_index, last_index + 1)})


def is_blank(patch: Patch) -> bool:
    """Whether a patch shows glass and nothing else."""
    grey = patch.pixels.mean(axis=2)
    rows, columns = (max(1, side // BLOCK) * BLOCK for side in grey.shape)
    if min(grey.shape) < BLOCK:
        return False
    blocks = grey[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK).mean(axis=(1, 3))
    return bool(np.ptp(blocks) < FLAT)


def merge(found: Sequence[Found]) -> list[Found]:
    """Objects of all tiles, each once and whole.

    Parts of one object that tiles have cut are joined where they overlap; of several outlines of one object
    the best stays.

    Returns:
        The best first; of two as good ones, the first.
    """
    joined = _joined([item for item in found if item.is_cut])
    # What one tile has cut off may lie whole on the next one, which then counts.
    whole = sorted(
        [*(item for item in found if not item.is_cut), *joined], key=lambda item: (item.is_cut, -item.quality)
    )
    tree = shapely.STRtree([item.area for item in whole])
    kept: list[int] = []
    taken: set[int] = set()
    for number, item in enumerate(whole):
        near = set(tree.query(item.area).tolist()) & taken
        if all(_shared(item.area, whole[other].area) <= SAME for other in near):
            kept.append(number)
            taken.add(number)
    return sorted((whole[number] for number in kept), key=lambda item: -item.quality)


def _joined(parts: list[Found]) -> list[Found]:
    """Parts that continue each other as one; single ones as they are."""
    if not parts:
        return []
    tree = shapely.STRtree([part.area for part in parts])
    group = list(range(len(parts)))

    def root(number: int) -> int:
        while group[number] != number:
            number = group[number]
        return number

    for one, other in tree.query([part.area for part in parts], predicate="intersects").T.tolist():
        if one < other and _continue(parts[one], parts[other]):
            group[root(other)] = root(one)
    members: dict[int, list[Found]] = {}
    for number, part in enumerate(parts):
        members.setdefault(root(number), []).append(part)
    return [_united(some) for some in members.values()]


def _continue(one: Found, other: Found) -> bool:
    """Whether two parts agree on what lies on both tiles."""
    common = one.tile.intersection(other.tile)
    both = one.area.intersection(other.area).area
    either = one.area.union(other.area).intersection(common).area
    return bool(either > 0 and both / either > SAME)


def _united(parts: list[Found]) -> Found:
    areas = as_areas(shapely.union_all([part.area for part in parts]))
    largest = max(areas.geoms, key=lambda piece: piece.area)
    total = sum(part.area.area for part in parts)
    quality = sum(part.quality * part.area.area for part in parts) / total
    return Found(largest, quality, shapely.union_all([part.tile for part in parts]), True)


def _shared(one: Polygon, other: Polygon) -> float:
    """Of the smaller one, the share that lies on the other."""
    return float(one.intersection(other).area / min(one.area, other.area))
