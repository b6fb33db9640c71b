"""An interactive answer merged into the label that its image has already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from numpy.typing import NDArray

from lib.errors import LabelError
from lib.images.medical_image import MedicalImage
from lib.images.writing import write_mask
from lib.labels import LabelMap, read_labels
from lib.transforms.frames import frame_view

MOST_VALUES = 255  # of a label file: one byte for each voxel


def merge(
    old: LabelMap | None, answer: LabelMap, names: Mapping[str, int], part: tuple[int, int] | None
) -> LabelMap:
    """The old label with the objects of an answer in place of their former voxels; other objects stay.

    Args:
        old: Label of the image; None where it has none.
        answer: Answer on the same grid.
        names: Value in the answer of each object that was asked for, also of one that was not found.
        part: Axis and index of the only slice that the answer is about; None: the whole image.

    Raises:
        LabelError: There would be more than 255 objects.
    """
    merged = np.array(old.array if old is not None else np.zeros(answer.array.shape, np.uint8), np.uint16)
    known = dict(old.names) if old is not None else {}
    inside, found = _part(merged, part), _part(answer.array, part)
    for name in names:
        own = [value for value, other in known.items() if other == name]
        value = own[0] if own else max(known, default=0) + 1
        values = [number for number, other in answer.names.items() if other == name]
        inside[np.isin(inside, own)] = 0
        inside[np.isin(found, values) & (inside == 0)] = value
        known[value] = name
    if max(known, default=0) > MOST_VALUES:
        raise LabelError(
            f"The label would have values up to {max(known)}; at most {MOST_VALUES} are allowed."
        )
    present = set(np.unique(merged).tolist())
    return LabelMap(
        merged.astype(np.uint8), {value: name for value, name in known.items() if value in present}
    )


def read_label(datastore: Datastore, image_id: str, tag: str, image: MedicalImage) -> LabelMap | None:
    """The label of an image under a tag, on the image's grid; None where there is none.

    Raises:
        LabelError: It cannot be read.
    """
    if tag not in datastore.get_labels_by_image_id(image_id):
        return None
    info: Mapping[str, Any] = datastore.get_label_info(image_id, tag) or {}
    return read_labels(Path(datastore.get_label_uri(image_id, tag)), image, info.get("label_info"))


def write_label(labels: LabelMap, image: MedicalImage) -> Path:
    """A label as a temporary file, which is the caller's to delete."""
    return write_mask(np.asfortranarray(labels.array), image, ".nii.gz")


def label_info(labels: LabelMap) -> list[dict[str, Any]]:
    """Names and values as the datastore keeps them."""
    return [{"name": name, "idx": value} for value, name in sorted(labels.names.items())]


def _part(array: NDArray, part: tuple[int, int] | None) -> NDArray:
    return array if part is None else frame_view(array, *part)
