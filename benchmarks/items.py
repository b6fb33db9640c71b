"""Images with ground truth: those of the data packs, or the sample study without a pack."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pretraining.split import HELD_OUT, NEVER, TRAINED, read_manifest
from sample_study.files import truth_folder, write_study

Rule = Literal["labels", "union", "instances", "components"]

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = "manifest.json"
DATA_VARIABLE, TRAINING_VARIABLE = "BIOSAM2_DATA", "BIOSAM2_TRAINING_DATA"
_DEFAULTS = {
    DATA_VARIABLE: ROOT.parent / "shared" / "data",
    TRAINING_VARIABLE: ROOT.parent / "shared" / "training_data",
}
_KINDS = ("volume", "image2d", "video")
# Modality groups by words of the manifest's modality; the first match counts.
_MODALITIES = {
    "histology": "histology",
    "microscopy": "microscopy",
    "ultrasound": "ultrasound",
    "endoscopy": "endoscopy",
    "X-ray": "X-ray",
    "fundus": "fundus",
    "dermoscopy": "dermoscopy",
    "PET": "PET",
    "CT": "CT",
    "MR": "MR",
}


@dataclass(frozen=True)
class Item:
    """One image and its labels.

    Attributes:
        id: Image id in the datastore.
        modality: Modality as the manifest names it.
        image: Image file: NIfTI, PNG or JPEG.
        label: Label file with whole numbers on the same grid; 0 is background.
        names: Name by label value; empty if values only number the instances.
        rule: Definition of one object: each label's largest piece (``labels``), all labels together
            (``union``), each value (``instances``), or each connected piece (``components``).
        split: ``trained on``, ``held out`` or ``not for training`` (``pretraining/split.py``); empty for
            phantoms.
    """

    id: str
    modality: str
    image: Path
    label: Path
    names: Mapping[int, str]
    rule: Rule
    split: str = ""

    @property
    def seen(self) -> bool | None:
        """Whether training may use the image; None for phantoms."""
        return self.split == TRAINED if self.split else None

    @property
    def group(self) -> str:
        """Modality group."""
        return next((group for word, group in _MODALITIES.items() if word in self.modality), self.modality)

    @property
    def is_volume(self) -> bool:
        """Whether the image has slices to propagate through."""
        return self.image.name.endswith((".nii", ".nii.gz"))

    def read_image(self) -> NDArray:
        """Intensities (I, J, K); a picture is (I, J, 1) or (I, J, 1, 3) with [i, j] = [x, y]."""
        return _read(self.image)

    def read_label(self) -> NDArray[np.int32]:
        """Label values (I, J, K); a picture has one slice."""
        return np.rint(_read(self.label)).astype(np.int32)


def find_pack(variable: str) -> Path | None:
    """Folder of a data pack: the value of an environment variable or its default; None if it is absent."""
    data = Path(os.environ.get(variable, _DEFAULTS[variable]))
    return data if (data / MANIFEST).is_file() else None


def find_data() -> Path | None:
    """Folder of the data pack; None if it is absent."""
    return find_pack(DATA_VARIABLE)


def find_items(work: Path) -> tuple[list[Item], str]:
    """The images of the data pack, or phantoms in ``work``, and a sentence about them."""
    data = find_data()
    if data is not None:
        return read_items(data), "Real images with masks."
    return phantom_items(work), (
        f"No real images: {DATA_VARIABLE} names no folder with a {MANIFEST}. These are the phantoms of the "
        "sample study, whose truth is exact and whose structures are easy."
    )


def read_items(data: Path) -> list[Item]:
    """The images of a data pack in its order.

    DICOM entries are omitted: they duplicate others; so are images whose masks lie elsewhere. A video is
    represented by one labelled frame.

    Args:
        data: Folder of ``manifest.json``.
    """
    entries, splits = read_manifest(data)
    return [_item(data, entry, splits[entry["id"]]) for entry in entries if entry["kind"] in _KINDS]


def held_out_items(data: Path, per_kind: int) -> list[Item]:
    """Images of a data pack that training never uses, at most ``per_kind`` of each modality and split."""
    counts: dict[tuple[str, str], int] = {}
    chosen = []
    for item in read_items(data):
        key = item.modality, item.split
        counts[key] = counts.get(key, 0) + 1
        if item.split in (HELD_OUT, NEVER) and counts[key] <= per_kind:
            chosen.append(item)
    return chosen


def phantom_items(folder: Path) -> list[Item]:
    """Writes the sample study to ``folder`` and returns its images, whose truth is exact."""
    items = []
    for image in write_study(folder / "study"):
        name = image.name.split(".")[0]
        truth = truth_folder(folder / "study")
        labels = json.loads((truth / f"{name}.json").read_text(encoding="utf-8"))["labels"]
        names = {value: label for label, value in labels.items()}
        items.append(Item(name, "phantom", image, truth / image.name, names, "labels"))
    return items


def rule_of(entry: Mapping[str, Any]) -> Rule:
    """Definition of one object in a manifest entry."""
    names = list(entry["labels"].values())
    if entry.get("label_ids_are_objects") or any(".." in value for value in entry["labels"]):
        return "instances"
    if names == ["cell_interior"]:
        return "components"
    # BraTS sequences differ in necrosis, oedema and enhancing tumour, but share the whole tumour.
    return "union" if "oedema" in names else "labels"


def _item(data: Path, entry: Mapping[str, Any], split: str) -> Item:
    image, label = entry["file"], entry["label_file"]
    if entry["kind"] == "video":
        frame = entry["frames_with_mask"][0]
        image, label = entry["frames"] % frame, label % frame
    names = {int(value): name for value, name in entry["labels"].items() if value.isdigit()}
    return Item(
        id=entry["id"],
        modality=entry["modality"],
        image=data / image,
        label=data / label,
        names=names,
        rule=rule_of(entry),
        split=split,
    )


def _read(path: Path) -> NDArray:
    if path.name.endswith((".nii", ".nii.gz")):
        return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj)
    with Image.open(path) as picture:
        return np.expand_dims(np.swapaxes(np.asarray(picture), 0, 1), 2)
