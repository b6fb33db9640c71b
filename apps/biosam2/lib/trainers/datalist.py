"""The datastore's final labels, as files: whatever client wrote them."""

from __future__ import annotations

from pathlib import Path

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.images.file_formats import split_ending
from lib.labels.names import listed_label_info
from lib.trainers.labelled_image import Case


def labelled_cases(datastore: Datastore) -> list[Case]:
    """The images that have a final label, by id."""
    cases = []
    for item in datastore.datalist():
        image, label = Path(item["image"]), Path(item["label"])
        name = image_id(label)
        info = datastore.get_label_info(name, DefaultLabelTag.FINAL) or {}
        cases.append(Case(name, image, label, listed_label_info(info)))
    return sorted(cases, key=lambda case: case.id)


def image_id(label: Path) -> str:
    """The id of the image that a label file belongs to: its name without the ending."""
    return split_ending(label.name)[0]
