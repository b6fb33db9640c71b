"""The images with known truth: the real ones of a data pack, or the sample study where there is no pack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sample_study.files import truth_folder, write_study

Rule = Literal["labels", "union", "instances", "components"]

MANIFEST = "manifest.json"
_KINDS = ("volume", "image2d", "video")


@dataclass(frozen=True)
class Item:
    """One image and its labels.

    Attributes:
        id: the image's id in the datastore.
        modality: for people.
        image: file; NIfTI, PNG or JPEG.
        label: file of whole numbers on the same grid, 0 where nothing is labelled.
        names: what each value is called; empty for instances.
        rule: what one object is: each label, all labels together, each value (instances), or each connected
            piece of the foreground (components).
        seen: whether the bundled weights were trained on it; None when that is no question (phantoms).
    """

    id: str
    modality: str
    image: Path
    label: Path
    names: Mapping[int, str]
    rule: Rule
    seen: bool | None

    @property
    def is_volume(self) -> bool:
        """Whether there are slices to propagate through."""
        return self.image.name.endswith((".nii", ".nii.gz"))

    def read_image(self) -> NDArray:
        """(I, J, K) intensities, or (I, J, 1) or (I, J, 1, 3) for a picture, whose [i, j] is [x, y]."""
        return _read(self.image)

    def read_label(self) -> NDArray[np.int32]:
        """(I, J, K) label values; a picture has one slice."""
        return np.rint(_read(self.label)).astype(np.int32)


def read_items(data: Path) -> list[Item]:
    """The images of a data pack, in its order.

    DICOM entries are left out: they are twins of others. Of a video the one frame with a mask is taken, as a
    picture. Those that may influence the bundled weights did: ``pretraining`` trains on all of them.

    Args:
        data: folder of ``manifest.json``.
    """
    entries = json.loads((data / MANIFEST).read_text(encoding="utf-8"))["items"]
    return [_item(data, entry) for entry in entries if entry["kind"] in _KINDS]


def phantom_items(folder: Path) -> list[Item]:
    """Writes the sample study to ``folder`` and returns its images, whose truth is exact."""
    items = []
    for image in write_study(folder / "study"):
        name = image.name.split(".")[0]
        truth = truth_folder(folder / "study")
        labels = json.loads((truth / f"{name}.json").read_text(encoding="utf-8"))["labels"]
        names = {value: label for label, value in labels.items()}
        items.append(Item(name, "phantom", image, truth / image.name, names, "labels", None))
    return items


def rule_of(entry: Mapping[str, Any]) -> Rule:
    """What one object is in a manifest entry."""
    names = list(entry["labels"].values())
    if any(".." in value for value in entry["labels"]):
        return "instances"
    if names == ["cell_interior"]:
        return "components"
    # BraTS: necrosis, oedema and enhancing tumour are told apart between sequences; the whole tumour is not.
    return "union" if "oedema" in names else "labels"


def _item(data: Path, entry: Mapping[str, Any]) -> Item:
    image, label = entry["file"], entry["label_file"]
    if entry["kind"] == "video":
        frame = entry["frames_with_mask"][0]
        image, label = entry["frames"] % frame, label % frame
    rule = rule_of(entry)
    names = {} if rule == "instances" else {int(value): name for value, name in entry["labels"].items()}
    return Item(
        id=entry["id"],
        modality=entry["modality"],
        image=data / image,
        label=data / label,
        names=names,
        rule=rule,
        seen=bool(entry["may_train_shipped_weights"]),
    )


def _read(path: Path) -> NDArray:
    if path.name.endswith((".nii", ".nii.gz")):
        return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj)
    with Image.open(path) as picture:
        return np.expand_dims(np.swapaxes(np.asarray(picture), 0, 1), 2)
