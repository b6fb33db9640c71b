"""A labelled image as frames on disk, read one by one: memory does not grow with the dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import LabelError
from lib.files import file_stamp, replacing, write_atomically
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image
from lib.labels.reading import read_labels
from lib.trainers.labelled_image import Case
from lib.transforms.frames import FrameStack, frame_view

# The slices that viewers show and people label: those of the file's third axis.
AXIS = 2
# Frames beside the labelled ones that are kept: there an object has ended.
MARGIN = 2
_FORMAT = 1  # of the files below: another number makes them anew


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """The frames of one image that are labelled, and those beside them.

    It is a ``Frames`` of the predictor, as every image is in service.

    Attributes:
        id: of the image in the datastore.
        digest: of image and label as they were read.
        height: pixels of a frame along y.
        width: pixels along x.
        spacing: (mm along y, mm along x) of a pixel.
        objects: for each frame, the label values on it and how many pixels each has.
        names: label value to class name.
    """

    id: str
    digest: str
    height: int
    width: int
    spacing: tuple[float, float]
    objects: tuple[dict[int, int], ...]
    names: dict[int, str]
    folder: Path

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index``: uint8 (H, W, 3)."""
        levels: NDArray[np.uint8] = np.array(self._levels[index])
        return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)

    def key(self, index: int) -> Hashable:
        """Equal for equal frames of one image."""
        return index

    def mask(self, index: int, value: int) -> NDArray[np.bool_]:
        """Where an object is on a frame: (H, W)."""
        mask: NDArray[np.bool_] = np.asarray(self._labels[index] == value)
        return mask

    # Mapped anew after pickling, and never before it is needed.
    @cached_property
    def _levels(self) -> NDArray[np.uint8]:
        mapped: NDArray[np.uint8] = np.load(self.folder / "levels.npy", mmap_mode="r")
        return mapped

    @cached_property
    def _labels(self) -> NDArray[np.uint16]:
        mapped: NDArray[np.uint16] = np.load(self.folder / "labels.npy", mmap_mode="r")
        return mapped


def prepare_frames(case: Case, folder: Path, max_voxels: int) -> LabelledFrames:
    """Opens an image with its label and lays its frames out on disk, or finds them there from before.

    Args:
        case: the image and its label.
        folder: for the frames of all images.
        max_voxels: largest image that is opened.

    Raises:
        ImageError, LabelError: where the two cannot be used together.
        OSError: where the disk is full.
    """
    key = _key(case)
    target = folder / key
    if not (target / "facts.json").is_file():
        image = read_image(case.image, max_voxels)
        labels = read_labels(case.label, image, list(case.label_info))
        if not labels.names:
            raise LabelError(f"nothing is drawn in {case.label.name}: there is no object to learn from")
        _write(target, image, labels.array, labels.names)
    facts = json.loads((target / "facts.json").read_text())
    return _from_facts(case.id, key, facts, target)


def _write(target: Path, image: MedicalImage, labels: NDArray, names: dict[int, str]) -> None:
    stack = FrameStack(image.array, AXIS, image.window())
    labelled = np.flatnonzero(labels.any((0, 1)))
    kept = range(max(0, int(labelled[0]) - MARGIN), min(len(stack), int(labelled[-1]) + 1 + MARGIN))
    target.mkdir(parents=True, exist_ok=True)
    channels = slice(None) if image.is_rgb else 0
    _fill(target / "levels.npy", np.uint8, kept, lambda t: stack[t][..., channels])
    _fill(target / "labels.npy", np.uint16, kept, lambda t: frame_view(labels, AXIS, t))
    spacing = np.linalg.norm(image.affine[:3, :2], axis=0)
    facts = {
        "height": stack.height,
        "width": stack.width,
        "spacing": [float(spacing[1]), float(spacing[0])],
        "objects": [_areas(frame_view(labels, AXIS, t)) for t in kept],
        "names": {str(value): name for value, name in names.items()},
    }
    # The last one written: with it the folder is complete.
    write_atomically(target / "facts.json", json.dumps(facts).encode())


def _fill(path: Path, dtype: type[np.generic], kept: range, frame: Callable[[int], NDArray]) -> None:
    """Writes frames (T, H, W[, 3]) to a file, one in memory at a time."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (len(kept), *frame(kept[0]).shape),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for t in kept:
            file.write(np.ascontiguousarray(frame(t), dtype=dtype).data)


def _areas(marks: NDArray) -> dict[str, int]:
    values, counts = np.unique(marks, return_counts=True)
    return {str(value): int(count) for value, count in zip(values.tolist(), counts, strict=True) if value}


def _from_facts(name: str, key: str, facts: dict[str, Any], folder: Path) -> LabelledFrames:
    along_y, along_x = facts["spacing"]
    return LabelledFrames(
        id=name,
        digest=key,
        height=facts["height"],
        width=facts["width"],
        spacing=(along_y, along_x),
        objects=tuple({int(value): area for value, area in areas.items()} for areas in facts["objects"]),
        names={int(value): label for value, label in facts["names"].items()},
        folder=folder,
    )


def _key(case: Case) -> str:
    """Another one whenever the image or the label was written again."""
    parts = [str(_FORMAT), case.id, json.dumps(list(case.label_info), sort_keys=True, default=str)]
    for path in (case.image, case.label):
        parts += [str(path), file_stamp(path)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
