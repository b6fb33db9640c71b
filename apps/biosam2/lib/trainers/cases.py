"""The datastore's final labels, as files: whatever client wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.learning.case import Case

# Endings of two parts; of any other file name, what stands after the last dot.
_DOUBLE_ENDINGS = (".nii.gz", ".seg.nrrd")


def labelled_cases(datastore: Datastore) -> list[Case]:
    """The images that have a final label, by id."""
    cases = []
    for item in datastore.datalist():
        image, label = Path(item["image"]), Path(item["label"])
        name = image_id(label)
        cases.append(Case(name, image, label, _label_info(datastore, name)))
    return sorted(cases, key=lambda case: case.id)


def image_id(label: Path) -> str:
    """The id of the image that a label file belongs to: its name without the ending."""
    for ending in _DOUBLE_ENDINGS:
        if label.name.endswith(ending):
            return label.name.removesuffix(ending)
    return label.stem


def _label_info(datastore: Datastore, name: str) -> list[Mapping[str, Any]]:
    info = datastore.get_label_info(name, DefaultLabelTag.FINAL) or {}
    # Slicer's params are kept whole, under "params" or not, by the release of MONAI Label that saved them.
    found = info.get("label_info") or info.get("params", {}).get("label_info") or []
    return [item for item in found if isinstance(item, Mapping)]
