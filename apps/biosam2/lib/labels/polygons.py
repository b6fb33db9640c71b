"""Labels as polygons: ASAP XML, which QuPath's extension saves, and GeoJSON, which QuPath exports."""

from __future__ import annotations

import bisect
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray

from lib.errors import LabelError
from lib.images.medical_image import MedicalImage
from lib.labels.values import MOST_OBJECTS, LabelFile, paint_order

logger = logging.getLogger(__name__)

# Types that enclose nothing, of QuPath and of ASAP.
_WITHOUT_AREA = {"line", "polyline", "points", "point", "pointset", "dot", "measurement", "none"}
# Crossings of rows and edges that are sorted together: some tens of milliseconds.
_PORTION = 1 << 18
# Crossings of one file: some ten seconds. QuPath's wand makes some thousand per object.
_MOST_CROSSINGS = 1 << 25
# Pixels by which a centre may lie beside an edge and count as on it: rounding of a crossing.
_ON_EDGE = 1e-9
# Corners of the polygon that stands for an ellipse: less than a pixel off for radii up to 800 pixels.
_ELLIPSE_CORNERS = 64
# Smallest number of corners of a ring.
_LEAST_RING = 3
GEOJSON_SUFFIXES = (".geojson",)


@dataclass(frozen=True, eq=False)
class _Polygon:
    """One object, which may have holes and several parts.

    Attributes:
        name: Name of its class.
        rings: Corners (n, 2), (x, y) in pixels, of each ring, where a pixel's centre is at a half. What an
        odd
            number of rings encloses belongs to the object.
    """

    name: str
    rings: tuple[NDArray[np.float64], ...]

    @property
    def area(self) -> float:
        parts = [shapely.make_valid(shapely.Polygon(ring)) for ring in self.rings if len(ring) > 2]
        return float(reduce(shapely.symmetric_difference, parts, shapely.Polygon()).area)

    @property
    def corners(self) -> NDArray[np.float64]:
        """(n, 2) corners of all rings."""
        return np.concatenate(self.rings)


def read_polygon_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads ASAP XML or GeoJSON and draws its polygons on the pixels of the image.

    Each annotation with an area is one object, numbered in the order of the file. Of ASAP its class is its
    ``PartOfGroup``, or its ``Name`` where it has no group; of GeoJSON its classification. A pixel belongs to
    a polygon that its centre lies in or on; pixel (0, 0) reaches from (0, 0) to (1, 1), as in QuPath. An
    ``Ellipse`` is drawn as the ellipse of which QuPath saves the four outermost points. Where polygons
    overlap see ``paint_order``.

    Coordinates of ASAP count from the corner of the annotated region (``X``, ``Y``, ``W``, ``H``), which
    QuPath sends along as an image of its own; read for the whole image, they are moved to the region's place.

    Raises:
        LabelError: A volume, a file without annotations, or more than 65535 of them.
    """
    if image.shape[2] != 1:
        raise LabelError(f"polygons belong to a 2-D image and this one has {image.shape[2]} slices")
    polygons, attributes = _read(path)
    if len(polygons) > MOST_OBJECTS:
        raise LabelError(
            f"it has {len(polygons)} annotations and {MOST_OBJECTS} are the limit: save it in parts, with a "
            "part of the image each"
        )
    offset = _offset(attributes, polygons, image)
    outlines = [[ring + offset - 0.5 for ring in polygon.rings] for polygon in polygons]
    _require_little_work([ring for rings in outlines for ring in rings], image.shape[1])
    out = np.zeros(image.shape, dtype=np.uint16, order="F")
    for index in paint_order([polygon.area for polygon in polygons]):
        fill_polygon(out[:, :, 0], outlines[index], index + 1)
    if not out.any():
        raise LabelError(
            f"none of its polygons is on the image of {image.shape[0]} x {image.shape[1]} pixels: it is the "
            "label of another image; save it again from this one"
        )
    names = {value: polygon.name for value, polygon in enumerate(polygons, 1) if polygon.name}
    return LabelFile(out, None, names, has_instances=True)


def fill_polygon(out: NDArray, rings: Sequence[NDArray[np.float64]], value: int) -> None:
    """Sets the pixels whose centres lie in or on a polygon with its holes and parts, by the even-odd rule.

    A scanline fill in short steps, so that other threads run meanwhile: 2,000 corners on 4096 x 4096 pixels
    take 0.1 s, where scikit-image takes 105 s in one step.

    Args:
        out: (I, J), changed in place.
        rings: Corners (n, 2) of each ring, (x, y) in pixels, where the centre of pixel (0, 0) is at (0, 0).
        value: Value to set.
    """
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    ranges = [_crossed_rows(ring, out.shape[1]) for ring in rings]
    first, last = (np.concatenate(part) for part in zip(*ranges, strict=True))
    # Edges in portions whose crossings fit into memory; all crossings of a row must be sorted together.
    crossed = np.bincount(np.minimum(first, out.shape[1]), minlength=out.shape[1] + 1).astype(int)
    crossed -= np.bincount(last, minlength=out.shape[1] + 1)
    portions = np.cumsum(np.cumsum(crossed)) // _PORTION
    for portion in np.unique(portions[first.min() : last.max()]):
        rows = np.flatnonzero(portions[: last.max()] == portion)
        _fill_rows(out, start, end, np.maximum(first, rows[0]), np.minimum(last, rows[-1] + 1), value)


def _crossed_rows(corners: NDArray[np.float64], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Half-open range of rows, from 0 to ``count``, that each edge crosses: a corner counts once."""
    ends = np.sort(np.stack([corners[:, 1], np.roll(corners[:, 1], -1)]), axis=0)
    first, last = np.clip(np.ceil(ends), 0, count).astype(int)
    return first, last


def _fill_rows(
    out: NDArray,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    first: NDArray[np.intp],
    last: NDArray[np.intp],
    value: int,
) -> None:
    """Sorts where edges cross rows, and fills between each two crossings of a row."""
    counts = np.maximum(last - first, 0)
    edges = np.repeat(np.arange(len(start)), counts)
    rows = np.arange(len(edges)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    (x, y), (other_x, other_y) = start[edges].T, end[edges].T
    crossing = x + (rows - y) * ((other_x - x) / (other_y - y))
    order = np.lexsort((crossing, rows))
    limits = np.clip(crossing[order], -1, out.shape[0])
    left = np.maximum(np.ceil(limits[::2] - _ON_EDGE), 0).astype(int)
    right = np.floor(limits[1::2] + _ON_EDGE).astype(int) + 1
    for row, low, high in zip(rows[order][::2].tolist(), left.tolist(), right.tolist(), strict=True):
        out[low:high, row] = value


def _require_little_work(outlines: Sequence[NDArray[np.float64]], rows: int) -> None:
    """Refuses outlines whose edges cross so many rows that filling them takes minutes.

    Raises:
        LabelError: With the number of crossings and the limit.
    """
    crossings = 0
    for corners in outlines:
        first, last = _crossed_rows(corners, rows)
        crossings += int((last - first).sum())
    if crossings > _MOST_CROSSINGS:
        raise LabelError(
            f"its outlines cross {crossings} rows of pixels and {_MOST_CROSSINGS} are the limit: draw fewer "
            "corners, or save it in parts"
        )


def require_polygons(path: Path) -> None:
    """Refuses a file that holds no object; for slides, which are too large to be drawn on as a whole.

    Raises:
        LabelError: The file is neither ASAP XML nor GeoJSON, or has no annotation with an area.
    """
    _read(path)


def _read(path: Path) -> tuple[list[_Polygon], Mapping[str, str]]:
    """The file's objects, one at least, and the attributes of its region."""
    attributes: Mapping[str, str] = {}
    try:
        if path.suffix.lower() in GEOJSON_SUFFIXES:
            polygons, skipped = _features(json.loads(path.read_text(encoding="utf-8")))
        else:
            root = ElementTree.parse(path).getroot()
            polygons, skipped = _polygons(root)
            region = root.find(".//Annotations")
            attributes = region.attrib if region is not None else {}
    except ElementTree.ParseError as error:
        raise LabelError(f"{path.name} is no XML: {error}; save the label again") from error
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path.name} is no JSON: {error}; export the label again") from error
    if skipped:
        logger.warning("%s: %d annotations without an area, such as points, are left out", path.name, skipped)
    if not polygons:
        kind = "feature" if path.suffix.lower() in GEOJSON_SUFFIXES else "<Annotation>"
        raise LabelError(f"it has no {kind} with an area: draw objects, give them a class, save again")
    return polygons, attributes


def _features(document: Any) -> tuple[list[_Polygon], int]:
    """Objects of a GeoJSON document in their order, and the number of features without an area."""
    listed = document.get("features", [document]) if isinstance(document, dict) else document
    if not isinstance(listed, list):
        raise LabelError("its features are no list: export the objects as GeoJSON again")
    found, skipped = [], 0
    for feature in listed:
        try:
            rings = _feature_rings(feature)
            name = _feature_name(feature.get("properties") or {})
        except (AttributeError, KeyError, TypeError, shapely.errors.ShapelyError) as error:
            raise LabelError(f"a feature is no valid GeoJSON ({error}): export the objects again") from error
        if rings:
            found.append(_Polygon(name, rings))
        else:
            skipped += 1
    return found, skipped


def _feature_rings(feature: Mapping[str, Any]) -> tuple[NDArray[np.float64], ...]:
    """Rings of all polygons of a feature; none of what encloses nothing."""
    geometry = shapely.geometry.shape(feature["geometry"])
    polygons = [part for part in _parts(geometry) if isinstance(part, shapely.Polygon) and not part.is_empty]
    rings = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)]
    corners = tuple(np.asarray(ring.coords, dtype=float)[:-1, :2] for ring in rings)
    if not all(np.isfinite(ring).all() for ring in corners):
        raise LabelError("a coordinate is NaN or infinite: export the objects again")
    return corners


def _parts(geometry: Any) -> list[Any]:
    """Single geometries of a collection, of whatever depth."""
    parts = getattr(geometry, "geoms", None)
    return [geometry] if parts is None else [inner for part in parts for inner in _parts(part)]


def _feature_name(properties: Mapping[str, Any]) -> str:
    classification = properties.get("classification") or {}
    name = classification.get("name") or "/".join(classification.get("names", []))
    return str(name or properties.get("name") or "").strip()


def _polygons(root: ElementTree.Element) -> tuple[list[_Polygon], int]:
    """Objects in the order of the file, and how many annotations are none."""
    found, skipped = [], 0
    for annotation in root.iter("Annotation"):
        kind = annotation.get("Type", "").strip().lower()
        corners = _corners(annotation)
        if kind in _WITHOUT_AREA or len(corners) < 3:
            skipped += 1
            continue
        if kind == "ellipse" and len(corners) == 4:
            corners = _ellipse(corners)
        group = annotation.get("PartOfGroup", "").strip()
        is_grouped = group and group.lower() != "none"
        name = group if is_grouped else annotation.get("Name", "").strip()
        found.append(_Polygon(name, _rings(corners)))
    return found, skipped


def _rings(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Rings of an annotation.

    QuPath saves a geometry with holes or several parts as one list of corners, ring after ring, each closed
    by its first corner; a simple polygon is not closed. A last part that is not closed goes on at the corner
    where the ring before it was closed.
    """
    places: dict[tuple[float, ...], list[int]] = {}
    for index, corner in enumerate(map(tuple, corners.tolist())):
        places.setdefault(corner, []).append(index)
    rings: list[NDArray[np.float64]] = []
    start = 0
    while start < len(corners):
        same = places[tuple(corners[start].tolist())]
        again = bisect.bisect_left(same, start + _LEAST_RING)
        if again == len(same):
            rest = corners[start:]
            rings.append(np.concatenate([corners[start - 1 : start], rest]) if rings else rest)
            break
        rings.append(corners[start : same[again]])
        start = same[again] + 1
    return tuple(ring for ring in rings if len(ring) >= _LEAST_RING)


def _corners(annotation: ElementTree.Element) -> NDArray[np.float64]:
    """(n, 2) corners in their order."""
    listed = annotation.findall("./Coordinates/Coordinate")
    if all(point.get("Order", "").strip().isdigit() for point in listed):
        listed = sorted(listed, key=lambda point: int(point.get("Order", "")))
    try:
        corners = [(float(point.attrib["X"]), float(point.attrib["Y"])) for point in listed]
    except (KeyError, ValueError) as error:
        raise LabelError(
            f"a <Coordinate> has no numbers as X and Y ({error}): save the label again"
        ) from error
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in corners):
        raise LabelError("a <Coordinate> is NaN or infinite: save the label again")
    return np.array(corners, dtype=float).reshape(-1, 2)


def _ellipse(outermost: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = outermost.min(axis=0), outermost.max(axis=0)
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray((low + high) / 2 + (high - low) / 2 * circle)


def _offset(
    attributes: Mapping[str, str], polygons: Sequence[_Polygon], image: MedicalImage
) -> NDArray[np.float64]:
    """Where the coordinates' origin is in the image.

    QuPath counts from the region, MONAI Label's own answers from the image: of the two, the one that has more
    corners in the region.
    """
    try:
        x, y, width, height = (float(attributes.get(name, 0)) for name in "XYWH")
    except ValueError:
        return np.zeros(2)
    size, corner, whole = np.array([width, height]), np.array([x, y]), np.array(image.shape[:2])
    # A region's corners are rounded, so its image can be a pixel larger.
    is_whole = (np.abs(size - whole) <= 1).all()
    if not (size > 0).all() or is_whole or (corner < 0).any() or (corner + size > whole).any():
        return np.zeros(2)
    points = np.concatenate([polygon.corners for polygon in polygons])
    relative = ((points >= 0) & (points <= size)).all(axis=1).sum()
    absolute = ((points >= corner) & (points <= corner + size)).all(axis=1).sum()
    return corner if relative >= absolute else np.zeros(2)
