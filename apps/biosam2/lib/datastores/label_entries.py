"""Label files of a datastore with their infos, and the change stamps of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.errors import ImageNotFoundError
from lib.images.cache import file_stamp
from lib.labels.values import listed_label_info

FINAL, ORIGINAL = DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value
# Key of a label's info: made by a model, with no person having looked at it.
AUTOMATIC = "automatic"


@dataclass(frozen=True)
class LabelEntry:
    """A label file of an image.

    Attributes:
        path: Label file.
        info: Label info from the client.
    """

    path: Path
    info: Mapping[str, Any]

    @property
    def label_info(self) -> list[Mapping[str, Any]]:
        """Names of the label values, ``[{"name": ..., "idx": ...}]``; empty if the client sent none."""
        return listed_label_info(self.info)

    @property
    def names(self) -> list[str]:
        """Class names that the client sent, without the background."""
        return [str(item["name"]) for item in self.label_info if item.get("name") and item.get("idx") != 0]


def image_path(datastore: Datastore, image_id: str) -> Path:
    """File of an image, or its folder of DICOM files; a DICOMweb datastore downloads it now.

    Raises:
        ImageNotFoundError: The datastore has no such image, or cannot load it.
    """
    try:
        uri = datastore.get_image_uri(image_id)
    except Exception as error:
        # DICOMweb clients raise many kinds of exceptions for a failed download.
        raise ImageNotFoundError(f"Image {image_id} cannot be loaded from the datastore: {error}") from error
    if not uri or not Path(uri).exists():
        raise ImageNotFoundError(f"Image {image_id} is no longer in the datastore")
    return Path(uri)


def is_here(datastore: Datastore, image_id: str) -> bool:
    """Whether an image is stored on this machine; an image of a DICOM store may have to be downloaded."""
    ask = getattr(datastore, "is_here", None)
    return ask is None or bool(ask(image_id))


def label_entry(datastore: Datastore, image_id: str, tag: str = FINAL) -> LabelEntry | None:
    """Label of an image; None without a label of this tag, or if its file is missing."""
    label_id = datastore.get_label_by_image_id(image_id, tag)
    if not label_id:
        return None
    uri = datastore.get_label_uri(label_id, tag)
    if not uri or not Path(uri).is_file():
        return None
    return LabelEntry(Path(uri), dict(datastore.get_label_info(label_id, tag) or {}))


def labelled(datastore: Datastore) -> Iterator[tuple[str, LabelEntry]]:
    """Images with a final label, by id; from a DICOM store only those on this machine."""
    for image_id in sorted(datastore.list_images()):
        entry = label_entry(datastore, image_id) if is_here(datastore, image_id) else None
        if entry is not None:
            yield image_id, entry


def stamp(path: Path) -> str:
    """Changes whenever a file, or a file of a folder, is written.

    Raises:
        ImageNotFoundError: The file is missing.
    """
    try:
        return file_stamp(path)
    except OSError as error:
        raise ImageNotFoundError(f"{path.name} is missing: {error}") from error
