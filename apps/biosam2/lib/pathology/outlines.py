"""Conversion of mask logits to polygons."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LinearRing, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry
from skimage.measure import find_contours

# Largest shift of an outline by leaving out corners, in patch pixels: invisible.
TOLERANCE = 0.2
# Half the width of spikes that are removed, in patch pixels: a cell of the mask grid is 3 pixels wide.
SPIKE = 1.0


def outline(logits: NDArray[np.float32], width: float, height: float) -> MultiPolygon:
    """The area where mask logits are above 0, with its holes.

    Args:
        logits: float32 (h, w), mask grid of a patch.
        width: Width of the patch in pixels.
        height: Height of the patch in pixels.

    Returns:
        Valid area in patch pixels, where the first pixel reaches from 0 to 1; outlines run between grid
        cells, at the zero crossing. Empty where no logit is above 0.
    """
    # Outside the map its border goes on with the sign turned, so outlines that end there close on its edge.
    framed = np.pad(logits, 1, mode="edge")
    for side in (framed[0], framed[-1], framed[:, 0], framed[:, -1]):
        np.negative(np.abs(side), out=side)
    rows, columns = logits.shape
    steps = np.array([width / columns, height / rows])
    contours = find_contours(framed, 0.0)
    rings = [LinearRing((contour[:, ::-1] - 0.5) * steps) for contour in contours if len(contour) > 3]
    area = shapely.build_area(shapely.GeometryCollection(rings))
    return as_areas(shapely.make_valid(area.intersection(shapely.box(0, 0, width, height))))


def tidy(area: Polygon, least_area: float, scale: float) -> Polygon:
    """Removes spikes, small holes and superfluous corners of a polygon.

    Args:
        area: Outline of one object.
        least_area: Area in square pixels below which holes are filled.
        scale: Pixels of ``area`` per patch pixel.

    Returns:
        A valid polygon, empty where nothing is left.
    """
    whole = Polygon(area.exterior, [hole for hole in area.interiors if Polygon(hole).area >= least_area])
    opened = whole.buffer(-SPIKE * scale, quad_segs=4).buffer(SPIKE * scale, quad_segs=4)
    pieces = as_areas(shapely.make_valid(opened.simplify(TOLERANCE * scale))).geoms
    return max(pieces, key=lambda piece: piece.area, default=Polygon())


def with_slits(area: Polygon) -> list[tuple[float, float]]:
    """Corners of one ring that encloses an area with its holes, (x, y); the first is not repeated at the end.

    Each hole is joined to the ring by a slit between their nearest corners, and runs in the other direction:
    the area is right by the shoelace formula, and by the even-odd and the non-zero rule.
    """
    oriented = area.normalize()
    ring = np.asarray(oriented.exterior.coords)[:-1]
    for hole in oriented.interiors:
        corners = np.asarray(hole.coords)[:-1]
        if hole.is_ccw == oriented.exterior.is_ccw:
            corners = corners[::-1]
        distances = np.hypot(*(ring[:, None] - corners[None]).transpose(2, 0, 1))
        at, first = np.unravel_index(int(np.argmin(distances)), distances.shape)
        loop = np.roll(corners, -int(first), axis=0)
        ring = np.concatenate([ring[: at + 1], loop, loop[:1], ring[at:]])
    return [(float(x), float(y)) for x, y in ring]


def as_areas(shape: BaseGeometry) -> MultiPolygon:
    """The polygons of any geometry, without its lines and points."""
    parts = getattr(shape, "geoms", [shape])
    found: list[Polygon] = []
    for part in parts:
        if isinstance(part, Polygon) and not part.is_empty:
            found.append(part)
        elif isinstance(part, MultiPolygon):
            found.extend(part.geoms)
    return MultiPolygon(found)
