"""Scribbles, lassos and label maps: prompts that mark many pixels of a slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from lib.errors import PromptError
from lib.prompts.fields import BoxRequest, Grid, SliceOption, flag, number, sequence, shown, vector
from lib.prompts.simulation import central_click, tight_box
from lib.prompts.types import KnownPixels, MaskPrompt, Point
from lib.transforms.frames import frame_view

Mask = NDArray[np.bool_]

MAX_REGIONS = 200  # scribbles or lassos in one request
MAX_VERTICES = 10_000  # of one of them: more than a mouse gives in a minute
MOST_CLICKS = 8  # that stand for one scribble in the network
# One click stands for this share of a slice's longer side.
_STRIDE = 1 / 24
# A vertex further outside than this many sides of the image is a mistake, and slow to draw.
_FARTHEST = 4

_REGION = '{"slice": k, "points": [[x, y], ...], "positive": true}'


@dataclass
class Regions:
    """What scribbles, lassos and label maps say of one object.

    Attributes:
        points: Clicks that stand for scribbles in the network.
        boxes: Boxes around positive lassos.
        masks: Insides of positive lassos, or slices of a starting mask.
        known: Pixels whose label a scribble or a negative lasso gives.
    """

    points: list[Point] = field(default_factory=list)
    boxes: list[BoxRequest] = field(default_factory=list)
    masks: list[MaskPrompt] = field(default_factory=list)
    known: list[KnownPixels] = field(default_factory=list)

    def extend(self, other: Regions) -> None:
        """Adds what another says of the same object."""
        for name in ("points", "boxes", "masks", "known"):
            getattr(self, name).extend(getattr(other, name))


def read_regions(request: Mapping[str, Any], grid: Grid, option: SliceOption) -> dict[str | None, Regions]:
    """The request's ``scribbles`` and ``lassos``, by their ``label``; None for those without one.

    Args:
        request: Lists of objects ``{"slice": k, "points": [[x, y], ...], "positive": true, "label": name}``;
            only ``points`` is needed where the slice is known.
        grid: Image.
        option: The request's slice.

    Raises:
        PromptError: An entry is no such object, or lies outside the image.
    """
    found: dict[str | None, Regions] = {}
    for entry in _entries(request, "scribbles", grid, option):
        found.setdefault(entry.label, Regions()).extend(entry.scribble(grid))
    lassos: dict[tuple[str | None, int], Mask] = {}
    for entry in _entries(request, "lassos", grid, option):
        inside = entry.inside(grid)
        if entry.positive:
            key = (entry.label, entry.index)
            lassos[key] = lassos[key] | inside if key in lassos else inside
        else:
            found.setdefault(entry.label, Regions()).extend(_excluded(inside, entry.index, grid))
    for (label, index), inside in lassos.items():
        x0, y0, x1, y1 = tight_box(inside).tolist()
        regions = found.setdefault(label, Regions())
        regions.boxes.append(BoxRequest("lassos", (x0, y0, x1, y1), (index, index + 1)))
        regions.masks.append(MaskPrompt(index, inside))
    return found


def scribbled(marked: Mask, positive: bool, grid: Grid) -> Regions:
    """A painted scribble (I, J, K): its pixels are known, and clicks on each piece stand for it."""
    regions = Regions()
    for index, mask in _slices(marked, grid):
        regions.points += [
            grid.point(grid.ijk(x, y, index), "label", positive) for x, y in spread_clicks(mask)
        ]
        regions.known.append(_known(mask, index, positive))
    return regions


def starting_mask(marked: Mask, grid: Grid) -> Regions:
    """An existing mask (I, J, K) of the object, which other prompts correct."""
    return Regions(masks=[MaskPrompt(index, mask) for index, mask in _slices(marked, grid)])


def spread_clicks(mask: Mask) -> list[tuple[int, int]]:
    """Pixels (x, y) of a scribble, far from each other: at most ``MOST_CLICKS`` of each piece."""
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    clicks = []
    for piece in range(1, count + 1):
        rows, columns = np.nonzero(pieces == piece)
        places = np.stack([columns, rows], axis=1)
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        wanted = min(MOST_CLICKS, 1 + int(extent / (_STRIDE * max(mask.shape))))
        chosen = [int(np.argmin(np.square(places - places.mean(axis=0)).sum(axis=1)))]
        distance = np.square(places - places[chosen[0]]).sum(axis=1)
        while len(chosen) < wanted:
            chosen.append(int(np.argmax(distance)))
            distance = np.minimum(distance, np.square(places - places[chosen[-1]]).sum(axis=1))
        clicks += [(int(x), int(y)) for x, y in places[chosen]]
    return clicks


@dataclass(frozen=True)
class _DrawnRegion:
    """One scribble or lasso: vertices (x, y) in frame pixels on a slice."""

    name: str
    index: int
    vertices: list[tuple[float, float]]
    positive: bool
    label: str | None

    def scribble(self, grid: Grid) -> Regions:
        """The pixels under the line, and clicks along it."""
        drawn, draw = _canvas(grid)
        draw.line([*self.vertices, self.vertices[-1]], fill=1)
        draw.point(self.vertices, fill=1)
        mask = np.asarray(drawn) != 0
        if not mask.any():
            width, height = grid.size
            raise PromptError(f"{self.name} lies outside the image of {width} x {height} pixels.")
        marked = Regions(known=[_known(mask, self.index, self.positive)])
        for x, y in spread_clicks(mask):
            marked.points.append(grid.point(grid.ijk(x, y, self.index), self.name, self.positive))
        return marked

    def inside(self, grid: Grid) -> Mask:
        """The pixels (H, W) inside the outline, and under it."""
        if len(self.vertices) < 3:
            raise PromptError(f"{self.name} has {len(self.vertices)} points; an outline needs 3 at least.")
        drawn, draw = _canvas(grid)
        draw.polygon(self.vertices, fill=1, outline=1)
        mask: Mask = np.asarray(drawn) != 0
        if not mask.any():
            width, height = grid.size
            raise PromptError(f"{self.name} lies outside the image of {width} x {height} pixels.")
        return mask


def _entries(
    request: Mapping[str, Any], field_name: str, grid: Grid, option: SliceOption
) -> Iterator[_DrawnRegion]:
    entries = sequence(request.get(field_name), field_name, f"a list of objects {_REGION}")
    if len(entries) > MAX_REGIONS:
        raise PromptError(f"{field_name} has {len(entries)} entries; at most {MAX_REGIONS} are allowed.")
    for place, entry in enumerate(entries):
        if entry is not None:
            yield _entry(entry, f"{field_name}[{place}]", grid, option)


def _entry(entry: Any, name: str, grid: Grid, option: SliceOption) -> _DrawnRegion:
    if not isinstance(entry, Mapping):
        raise PromptError(f"{name} is {shown(entry)}; expected {_REGION}.")
    points = sequence(entry.get("points"), f"{name}.points", "a list of points [[x, y], ...]")
    if not 1 <= len(points) <= MAX_VERTICES:
        raise PromptError(f"{name}.points has {len(points)} points; expected 1 to {MAX_VERTICES}.")
    label = entry.get("label")
    if label is not None and not isinstance(label, str):
        raise PromptError(f"{name}.label is {shown(label)}; expected the name of a label.")
    index = entry.get("slice")
    at = option if index is None else SliceOption(number(index, f"{name}.slice"), grid)
    vertices = [_vertex(point, f"{name}.points[{place}]", grid) for place, point in enumerate(points)]
    return _DrawnRegion(
        name, at.index(name), vertices, flag(entry.get("positive", True), f"{name}.positive"), label
    )


def _vertex(point: Any, name: str, grid: Grid) -> tuple[float, float]:
    x, y = grid.local(*vector(point, name, (2,), "one point [x, y]"))
    width, height = grid.size
    if not (abs(x) <= _FARTHEST * width and abs(y) <= _FARTHEST * height):
        raise PromptError(f"{name} is [{x:g}, {y:g}], far outside the image of {width} x {height} pixels.")
    return x, y


def _canvas(grid: Grid) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    drawn = Image.new("L", grid.size)
    return drawn, ImageDraw.Draw(drawn)


def _excluded(inside: Mask, index: int, grid: Grid) -> Regions:
    """A negative lasso: all pixels inside are background; one click stands for them in the network."""
    x, y = central_click(inside)
    point = grid.point(grid.ijk(x, y, index), "lassos", False)
    return Regions(points=[point], known=[_known(inside, index, False)])


def _known(mask: Mask, index: int, positive: bool) -> KnownPixels:
    rows, columns = np.nonzero(mask)
    return KnownPixels(index, np.stack([columns, rows], axis=1), positive)


def _slices(marked: Mask, grid: Grid) -> Iterator[tuple[int, Mask]]:
    """The slices (H, W) of a volume (I, J, K) on which something is marked, ascending."""
    others = tuple(axis for axis in range(3) if axis != grid.axis)
    for index in np.flatnonzero(marked.any(axis=others)).tolist():
        yield index, frame_view(marked, grid.axis, index)


def require_shape(marked: Sequence[int], grid: Grid) -> None:
    """Raises ``PromptError`` where a label map has another shape than the image."""
    if tuple(marked) != tuple(grid.shape):
        raise PromptError(f"The label map is {tuple(marked)} voxels and the image {tuple(grid.shape)}.")
