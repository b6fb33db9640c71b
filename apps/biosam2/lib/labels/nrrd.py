"""Labels in NRRD files, among them 3D Slicer's segmentations with names and layers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nrrd
import numpy as np
from numpy.typing import NDArray

from lib.errors import LabelError
from lib.images.medical_image import MedicalImage, regular_affine, require_size
from lib.images.volume_header import nrrd_header_lines, nrrd_voxels, read_exactly
from lib.labels.values import MOST_OBJECTS, LabelFile, as_labels, most_voxels, paint_order, present_values

# First letters of a space's three directions, such as left-posterior-superior, to axis and sign in RAS. A
# space of another name, or of none, ITK takes for LPS, and so do images here.
_SIGNS = {"l": (0, -1.0), "r": (0, 1.0), "p": (1, -1.0), "a": (1, 1.0), "i": (2, -1.0), "s": (2, 1.0)}
_SEGMENT = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)")


@dataclass(frozen=True)
class _Segment:
    """A segment in the header; value None means every voxel of its layer that is not 0."""

    name: str
    layer: int
    value: int | None


def read_nrrd_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a NRRD label or a 3D Slicer segmentation (``.seg.nrrd``).

    Names and values are those of ``Segment0_Name``, ``Segment0_LabelValue`` and ``Segment0_Layer``. The grid
    is the file's own, which may be cut to the segments. Where segments overlap the file has several layers,
    and each value of each layer is an object: it keeps its value where all differ, else objects are numbered
    in the order of the segments. See ``paint_order`` for voxels in two segments.

    Raises:
        LabelError: Voxels in another file, or more axes than three and the layers.
        ImageTooLargeError: By the header, before voxels are read.
    """
    voxels = nrrd_voxels(path)
    with voxels.path.open("rb") as file:
        header = _header(nrrd_header_lines(file))
        axis = _layer_axis(header)
        array = _array(file, header, voxels.compression, most_voxels(image))
    segments = _segments(header, is_layered=axis is not None)
    affine = _affine(header, axis)
    if axis is None:
        names = {segment.value: segment.name for segment in segments if segment.name and segment.value}
        return LabelFile(_volume(array), affine, names)
    labels, names = _flattened(array, axis, segments)
    return LabelFile(labels, affine, names)


def _header(lines: Sequence[bytes]) -> dict[str, Any]:
    # As text, because pynrrd leaves out what is not ASCII, and 3D Slicer writes names in UTF-8.
    header: dict[str, Any] = nrrd.read_header([line.decode("utf-8", "replace") for line in lines])
    if any("color" in str(kind).lower() for kind in header.get("kinds", [])):
        raise LabelError("its voxels are colours: save one number for each voxel, 0 for background")
    return header


def _array(file: BinaryIO, header: Mapping[str, Any], compression: str, limit: int) -> NDArray:
    """Voxels with all axes of the file, first axis fastest; compressed ones are verified."""
    sizes = [int(side) for side in header["sizes"]]
    dtype = nrrd.reader._determine_datatype(header)
    # Layers share the limit: they lie in memory together.
    require_size(sizes, limit, dtype.itemsize)
    if not compression:
        return nrrd.read_data(header, file, index_order="F")
    count = math.prod(sizes) * dtype.itemsize
    return np.ndarray(sizes, dtype, read_exactly(file, compression, count), order="F")


def _layer_axis(header: Mapping[str, Any]) -> int | None:
    """The axis that is no direction in space: it has no space direction, or a kind such as ``list``."""
    directions = header.get("space directions")
    if directions is not None:
        empty = [axis for axis, row in enumerate(directions) if row is None or not np.isfinite(row).all()]
    else:
        kinds = header.get("kinds", [])
        empty = [axis for axis, kind in enumerate(kinds) if kind not in ("domain", "space", "none", "???")]
    if len(empty) > 1:
        raise LabelError(f"{len(empty)} of its axes are no directions in space; one, of layers, is the limit")
    return empty[0] if empty else None


def _segments(header: Mapping[str, Any], is_layered: bool) -> list[_Segment]:
    """Segments in the order of their numbers in the header.

    Without value and layer, as 3D Slicer wrote until 4.10 and MONAI Label does, each has a layer of its own.
    """
    found: dict[int, dict[str, str]] = {}
    for key, text in header.items():
        match = _SEGMENT.fullmatch(key)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = str(text).strip()
    segments = []
    for index, fields in sorted(found.items()):
        layer = int(fields.get("Layer", index if is_layered else 0))
        value = int(fields["LabelValue"]) if "LabelValue" in fields else (None if is_layered else index + 1)
        segments.append(_Segment(fields.get("Name", ""), layer, value))
    return segments


def _affine(header: Mapping[str, Any], layer_axis: int | None) -> NDArray[np.float64] | None:
    """Affine (4, 4) to RAS millimetres; None if the header has no directions or no origin."""
    directions, origin = header.get("space directions"), header.get("space origin")
    if directions is None or origin is None:
        return None
    columns = [np.asarray(row, dtype=float) for axis, row in enumerate(directions) if axis != layer_axis]
    own = np.eye(4)
    for axis, column in enumerate(columns[:3]):
        own[: len(column), axis] = column
    own[: len(origin), 3] = np.asarray(origin, dtype=float)
    return regular_affine(_to_ras(str(header.get("space", ""))) @ own)


def _to_ras(space: str) -> NDArray[np.float64]:
    letters = space.lower() if len(space) == 3 else "".join(word[:1] for word in space.lower().split("-"))
    found = [_SIGNS.get(letter) for letter in letters[:3]]
    rows = [row for row in found if row is not None]
    turn = np.zeros((4, 4))
    if sorted(axis for axis, _ in rows) != [0, 1, 2]:
        rows = [(0, -1.0), (1, -1.0), (2, 1.0)]
    for column, (axis, sign) in enumerate(rows):
        turn[axis, column] = sign
    turn[3, 3] = 1.0
    return turn


def _volume(array: NDArray) -> NDArray:
    """(I, J, K), where axes of length 1 behind the third are left out and missing ones are added."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 3:
        size = " x ".join(str(side) for side in array.shape)
        raise LabelError(f"it has {array.ndim} axes in space ({size}); save one volume of it")
    return array.reshape(array.shape + (1,) * (3 - array.ndim), order="F")


def _flattened(array: NDArray, axis: int, segments: list[_Segment]) -> tuple[NDArray, dict[int, str]]:
    """Layers as one array, and the names of its values."""
    labels, numbers = as_labels(array)
    layers = [_volume(layer) for layer in np.moveaxis(labels, axis, 0)]
    inside = {old: new for new, old in numbers.items()}
    objects = [segment for segment in segments if 0 <= segment.layer < len(layers)]
    known = {(segment.layer, segment.value) for segment in objects}
    for index, layer in enumerate(layers):
        if (index, None) not in known:
            old = [numbers[value] for value in present_values(layer)]
            objects += [_Segment("", index, value) for value in old if (index, value) not in known]

    def mask(segment: _Segment) -> NDArray[np.bool_]:
        layer = layers[segment.layer]
        return layer != 0 if segment.value is None else (layer == inside.get(segment.value, 0)) & (layer != 0)

    own = [segment.value for segment in objects if segment.value]
    keeps = len(set(own)) == len(objects) and max(own, default=0) <= MOST_OBJECTS
    values = own if keeps else list(range(1, len(objects) + 1))
    out = np.zeros(layers[0].shape, dtype=np.uint16, order="F")
    for place in paint_order([int(np.count_nonzero(mask(segment))) for segment in objects]):
        out[mask(objects[place])] = values[place]
    named = zip(values, objects, strict=True)
    return out, {value: segment.name for value, segment in named if segment.name}
