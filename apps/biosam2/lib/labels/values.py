"""Labels in memory: the numbers of a file as whole numbers in the smallest type, and their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import LabelError
from lib.images.medical_image import MedicalImage


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Label of one image, on its grid.

    Attributes:
        array: uint8 or uint16 (I, J, K) on the image's own grid, read-only, first axis fastest in memory;
            0 is background and each other value is one object.
        names: Class name of every value that is present; objects of one class share it. Empty if nothing is
            drawn, as in a label saved to state that nothing was found.
    """

    array: NDArray
    names: dict[int, str]


# Voxels of a label file that are opened whatever the size of its image, which may be cut out of a larger one:
# 512 x 512 x 1024.
_ROOM = 1 << 28


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Labels as they lie in their file.

    Attributes:
        array: (I, J, K) of any number type, 0 for background.
        affine: (4, 4), voxel index to RAS millimetres; None if the file has no geometry.
        names: Class names in the file by value; empty if there are none.
        has_instances: True if objects of one class have values of their own.
    """

    array: NDArray
    affine: NDArray[np.float64] | None
    names: dict[int, str] = field(default_factory=dict)
    has_instances: bool = False


def most_voxels(image: MedicalImage) -> int:
    """Limit of voxels of an image's label file: 3D Slicer can draw on a finer grid than the image's."""
    return max(_ROOM, 8 * image.shape[0] * image.shape[1] * image.shape[2])


# Largest uint16. No viewer numbers more objects.
MOST_OBJECTS = 65535
# Scale factors of NIfTI and resampling leave whole numbers off by less than that.
WHOLE = 1e-3
# Beyond it a float64 skips whole numbers, so that two labels would become one.
_LARGEST_FLOAT = 2.0**53
# Voxels that are looked at together: their copies in wider types stay small beside the label.
_CHUNK = 1 << 20


def as_labels(array: NDArray) -> tuple[NDArray, dict[int, int]]:
    """The same labels as uint8 or uint16, first axis fastest.

    If a value is beyond 65535, all are renumbered 1, 2, 3 ... in ascending order.

    Args:
        array: Array of any shape, of booleans, integers or floats.

    Returns:
        Labels of the same shape, and for each value that is present its value in the file.

    Raises:
        LabelError: NaN, infinite, fractional or negative numbers, or more than 65535 different ones.
    """
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype.kind not in "uif":
        raise LabelError(f"voxels of type {array.dtype} are no labels: save whole numbers, 0 for background")
    present = present_values(array)
    if present and present[0] < 0:
        raise LabelError(
            f"it has negative values, down to {present[0]}: 0 is background and labels count from 1; give "
            "these voxels a value of their own, or 0"
        )
    if not present or present[-1] <= MOST_OBJECTS:
        return _lean(array, present[-1] if present else 0), {value: value for value in present}
    numbered = np.empty(array.shape, dtype=np.uint16, order="F")
    table = np.array([0, *present])
    flat, start = numbered.ravel(order="K"), 0
    for chunk in _chunks(array):
        flat[start : start + chunk.size] = np.searchsorted(table, np.rint(chunk))
        start += chunk.size
    return _lean(numbered, len(present)), dict(enumerate(present, 1))


def present_values(array: NDArray) -> list[int]:
    """Values of an array other than 0, ascending.

    Raises:
        LabelError: Fractional numbers, or more than 65535 values.
    """
    found: set[int] = set()
    for chunk in _chunks(array):
        whole = _whole(chunk)
        if int(whole.min()) >= 0 and int(whole.max()) <= MOST_OBJECTS:
            # Counting is ten times faster than sorting, and nearly every label is so.
            found.update(np.flatnonzero(np.bincount(whole.astype(np.intp, copy=False))).tolist())
        else:
            found.update(np.unique(whole).tolist())
        if len(found - {0}) > MOST_OBJECTS:
            raise LabelError(
                f"it has more than {MOST_OBJECTS} different values: is it the image instead of its label?"
            )
    return sorted(found - {0})


def _chunks(array: NDArray) -> Iterator[NDArray]:
    """Parts of the array, flat, first axis fastest."""
    flat = array.ravel(order="F")
    return (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))


def _lean(array: NDArray, highest: int) -> NDArray:
    """Labels in the smaller of uint8 and uint16 that holds them; a copy only where something changes."""
    dtype = np.dtype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
    if array.dtype.kind != "f":
        return np.asfortranarray(array, dtype=dtype)
    lean = np.empty(array.shape, dtype=dtype, order="F")
    return np.rint(array, out=lean, casting="unsafe")


def _whole(chunk: NDArray) -> NDArray:
    """Floats as integers; integers as they are."""
    if chunk.dtype.kind != "f":
        return chunk
    if not np.isfinite(chunk).all():
        raise LabelError("it has NaN or infinite values: replace them by 0 and save it again")
    rounded = np.rint(chunk)
    off = chunk[np.abs(chunk - rounded) > WHOLE]
    if off.size:
        raise LabelError(
            f"it has values that are no whole numbers, such as {float(off[0]):.4g}: probabilities and grey "
            "levels are no labels; threshold them and save whole numbers"
        )
    if float(np.abs(rounded).max()) > _LARGEST_FLOAT:
        raise LabelError(
            f"it has values as far from 0 as {float(np.abs(rounded).max()):.4g}: number its labels from 1"
        )
    return rounded.astype(np.int64)


def paint_order(sizes: Sequence[float]) -> list[int]:
    """Order in which objects are painted over each other: the largest first, equal ones as in the file.

    A voxel in two objects belongs to the smaller one: a lesion stays whole in its organ whichever was drawn
    first. Of two objects of one size it belongs to the later one.

    Args:
        sizes: Voxels, or area, of each object in the order of the file.

    Returns:
        Indices of all objects.
    """
    return sorted(range(len(sizes)), key=lambda index: -sizes[index])


def listed_label_info(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List of classes in the datastore's info of a label; empty if the client sent none.

    Args:
        info: Info of the label. Slicer's params are kept whole, under ``params`` or not, depending on the
            release of MONAI Label that saved them.

    Returns:
        ``[{"name": "spleen", "idx": 1}, ...]``.
    """
    nested = info.get("params")
    listed = info.get("label_info") or (nested.get("label_info") if isinstance(nested, Mapping) else None)
    return [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []


def name_values(
    values: Sequence[int],
    own: Mapping[int, str],
    label_info: Sequence[Mapping[str, Any]] | None,
) -> dict[int, str]:
    """Names of values: those of the datastore, else the file's own, else ``label_<value>``.

    The datastore's list says which classes there are, and not reliably by which values: 3D Slicer counts in
    ``idx`` the segments that it does not export, and numbers those that it does from 1. So an entry's place
    in the list, from 1, is its value, and its ``idx`` only where these are the values that are present, or 1,
    2, 3 ... in another order, or explain the values while the places do not. Where neither does, entries and
    values are paired in order if there are as many, and a list of one class names all values: they are its
    instances. A file that itself names all its values, by names from the list, is believed.

    Args:
        values: Values in the file, ascending, without 0.
        own: Value to name, from the file itself.
        label_info: MONAI Label's list of classes, ``[{"name": "spleen", "idx": 1}, ...]``. An entry with
            ``idx`` 0 is the background.
    """
    listed = _entries(label_info or ())
    named = {own.get(value) for value in values}
    if named <= {name for name, _ in listed}:
        listed = []
    given = _by_datastore(values, listed)
    return {value: given.get(value) or own.get(value) or f"label_{value}" for value in values}


def _entries(label_info: Sequence[Mapping[str, Any]]) -> list[tuple[str, int | None]]:
    """Name and idx of the entries; an entry without a name keeps its place."""
    found = []
    for entry in label_info:
        fields = entry if isinstance(entry, Mapping) else {}
        idx = _number(fields.get("idx"))
        if idx != 0:
            found.append((str(fields.get("name") or "").strip(), idx))
    return found


def _number(idx: Any) -> int | None:
    try:
        return int(idx)
    except (TypeError, ValueError):
        return None


def _by_datastore(values: Sequence[int], listed: Sequence[tuple[str, int | None]]) -> Mapping[int, str]:
    places = range(1, len(listed) + 1)
    by_place = {place: name for place, (name, _) in zip(places, listed, strict=True)}
    by_index = {idx: name for name, idx in listed if idx is not None}
    if len(by_index) < len(listed):
        by_index = {}
    if set(by_index) == set(places):
        by_place = by_index
    if set(by_index) == set(values):
        return by_index
    if set(values) <= set(places):
        return by_place
    if set(values) <= set(by_index):
        return by_index
    if len(values) == len(listed):
        return {value: name for value, (name, _) in zip(values, listed, strict=True)}
    if len(listed) == 1:
        return dict.fromkeys(values, listed[0][0])
    return by_place


# Client id that 3D Slicer sends until a user name is entered in its settings.
UNNAMED_CLIENT = "user-xyz"
# User name of everybody in MONAI Label if access control is off.
_UNNAMED_USER = "admin"


def annotator_of(info: Mapping[str, Any]) -> str:
    """Annotator named in an info; empty if it names nobody in particular.

    Args:
        info: Info of a label, or MONAI Label's record of an assignment. The signed-in user comes first:
            ``saved_by``, or ``user``, which becomes the reviewer's name. ``client_id`` is sent by the
            client; Slicer's params are kept whole, under ``params`` or not, depending on the release of MONAI
            Label that saved them.
    """
    nested = info.get("params")
    inner = nested if isinstance(nested, Mapping) else {}
    names = (info.get("saved_by"), info.get("user"), info.get("client_id"), inner.get("client_id"))
    return next((str(name) for name in names if name and name not in (UNNAMED_CLIENT, _UNNAMED_USER)), "")
