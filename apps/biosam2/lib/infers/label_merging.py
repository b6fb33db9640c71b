"""Saves what models answer: never over a label that a person made, and merged into what an image has."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from numpy.typing import NDArray

from lib.datastores.label_entries import AUTOMATIC
from lib.datastores.local import label_version, replace_label
from lib.errors import ConflictError, LabelError, PromptError
from lib.files import storage_errors
from lib.images.medical_image import MedicalImage
from lib.images.writing import write_mask
from lib.labels.reading import read_labels
from lib.labels.values import LabelMap

logger = logging.getLogger(__name__)

# Part of an image: axis and index of a slice, the voxels that are true, or None for the whole.
Part = tuple[int, int] | NDArray[np.bool_] | None
MOST_VALUES = 255  # of a label file: one byte for each voxel
# Attempts to save a label that others save at the same time: for each that fails, another's was saved.
_ATTEMPTS = 20
_LABEL_TAG = re.compile(r"[\w-]{1,64}")


def require_label_tag(tag: Any) -> None:
    """Lets the tag of a label pass, such as ``final``: MONAI Label makes a folder of that name.

    Raises:
        PromptError: It is none.
    """
    if not (isinstance(tag, str) and _LABEL_TAG.fullmatch(tag)):
        raise PromptError(
            f"the label's tag is {str(tag)[:100]!r}; it must have 1 to 64 letters, digits, _ or -"
        )


def save_merged(
    datastore: Datastore,
    image: MedicalImage,
    image_id: str,
    file: Path,
    tag: str,
    info: Mapping[str, Any],
    part: Part = None,
) -> str:
    """Merges an interactive answer into the label that the image has under a tag.

    It is merged anew where another answer or a person's label is saved meanwhile.

    Args:
        datastore: Datastore of the image.
        image: Image, whose grid the answer has.
        image_id: Id of the image.
        file: File of the answer.
        tag: Tag such as ``final``.
        info: Information of the label; its ``params`` have the ``label_names`` of the answer.
        part: The only part of the image that the answer is about.

    Raises:
        LabelError: The label that is there cannot be read, or would have more than 255 objects.
        ConflictError: Others saved the label before each of 20 attempts.
    """

    def merged(old_version: str) -> str:
        old = read_label(datastore, image_id, tag, image)
        automatic = old is None or not is_persons_label(datastore, image_id, tag)
        names = info["params"]["label_names"]
        answer = read_labels(file, image, [{"name": name, "idx": value} for name, value in names.items()])
        labels = merge(old, answer, names, part)
        path = write_label(labels, image)
        try:
            facts = {**info, AUTOMATIC: automatic, "label_info": label_info(labels)}
            return replace_label(datastore, image_id, path, tag, facts, old_version).label_id
        finally:
            path.unlink(missing_ok=True)

    with storage_errors():
        return _until_saved(datastore, image_id, tag, merged)


def save_automatic_label(
    datastore: Datastore, image: str, file: Path, tag: str, info: Mapping[str, Any]
) -> str:
    """Saves a model's label, unless a person has saved one under the same tag meanwhile.

    Raises:
        LabelError: A person's label is there.
        ConflictError: Others saved the label before each of 20 attempts.
    """

    def replaced(old_version: str) -> str:
        require_replaceable(datastore, image, tag)
        return replace_label(datastore, image, file, tag, {**info, AUTOMATIC: True}, old_version).label_id

    return _until_saved(datastore, image, tag, replaced)


def _until_saved(datastore: Datastore, image_id: str, tag: str, save: Callable[[str], str]) -> str:
    """Calls ``save`` with the version of the label that is there, again where it has changed meanwhile."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return save(label_version(datastore, image_id, tag))
        except ConflictError:
            logger.info("the label %r of %s was saved by somebody else meanwhile: once more", tag, image_id)
    return save(label_version(datastore, image_id, tag))


def require_replaceable(datastore: Datastore, image: str, tag: str) -> None:
    """Lets a model's label take a place that is empty, or has a model's label.

    Raises:
        LabelError: A person's label is there.
    """
    if is_persons_label(datastore, image, tag):
        raise LabelError(
            f"{image!r} has a label {tag!r} that a person made: choose another label_tag, or remove "
            "that one first"
        )


def is_persons_label(datastore: Datastore, image: str, tag: str) -> bool:
    """Whether an image has a label under a tag that no model is known to have made."""
    if tag not in datastore.get_labels_by_image_id(image):
        return False
    info = datastore.get_label_info(image, tag) or {}
    return info.get(AUTOMATIC) is not True


def merge(old: LabelMap | None, answer: LabelMap, names: Mapping[str, int], part: Part = None) -> LabelMap:
    """The old label with the objects of an answer in place of their former voxels; other objects stay.

    Args:
        old: Label of the image; None where it has none.
        answer: Answer on the same grid.
        names: Value in the answer of each object that was asked for, also of one that was not found.
        part: The only part of the image that the answer is about.

    Raises:
        LabelError: There would be more than 255 objects.
    """
    merged = np.array(old.array if old is not None else np.zeros(answer.array.shape, np.uint8), np.uint16)
    known = dict(old.names) if old is not None else {}
    where = _index(part)
    inside, found = merged[where], answer.array[where]
    for name in names:
        own = [value for value, other in known.items() if other == name]
        value = own[0] if own else max(known, default=0) + 1
        values = [number for number, other in answer.names.items() if other == name]
        inside[np.isin(inside, own)] = 0
        inside[np.isin(found, values) & (inside == 0)] = value
        known[value] = name
    merged[where] = inside
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


def _index(part: Part) -> Any:
    if isinstance(part, tuple):
        axis, number = part
        return (slice(None),) * axis + (number,)
    return ... if part is None else part
