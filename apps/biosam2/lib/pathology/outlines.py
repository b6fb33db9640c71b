"""From the network's logits to outlines."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LinearRing, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry
from skimage.measure import find_contours

# How far a corner may be moved for the sake of fewer corners, in pixels of the patch: not to be seen.
TOLERANCE = 0.2
# Half the width of what is too thin to be a part of an object: the mask grid's cells are 3 pixels wide.
SPIKE = 1.0


def outline(logits: NDArray[np.float32], width: float, height: float) -> MultiPolygon:
    """The area where a map is above 0, with its holes.

    Args:
        logits: (h, w) of an object, on the mask grid of a patch.
        width: of the patch, in pixels.
        height: of the patch.

    Returns:
        In pixels of the patch, where the first one reaches from 0 to 1. It runs between the cells of the map,
        where that crosses 0. Valid, and empty where nothing is above 0.
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
    """A polygon without spikes and small holes, and with fewer corners.

    Args:
        area: one object.
        least_area: smaller holes are filled, in square pixels.
        scale: pixels of ``area`` for each one that the network saw.

    Returns:
        Valid; empty where nothing is left.
    """
    whole = Polygon(area.exterior, [hole for hole in area.interiors if Polygon(hole).area >= least_area])
    opened = whole.buffer(-SPIKE * scale, quad_segs=4).buffer(SPIKE * scale, quad_segs=4)
    pieces = as_areas(shapely.make_valid(opened.simplify(TOLERANCE * scale))).geoms
    return max(pieces, key=lambda piece: piece.area, default=Polygon())


def as_areas(shape: BaseGeometry) -> MultiPolygon:
    """The polygons of any shape; its lines and points, which have no area, are left out."""
    parts = getattr(shape, "geoms", [shape])
    found: list[Polygon] = []
    for part in parts:
        if isinstance(part, Polygon) and not part.is_empty:
            found.append(part)
        elif isinstance(part, MultiPolygon):
            found.extend(part.geoms)
    return MultiPolygon(found)
