"""Labelled images of a training: frames on disk, read one by one, and their split into two sides."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from tqdm import tqdm

from lib.errors import BioSam2Error, LabelError, TrainingError
from lib.files import replacing, write_atomically
from lib.images.cache import file_stamp
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image
from lib.labels.labelled_slices import AXIS
from lib.labels.reading import read_labels
from lib.transforms.frames import FrameStack, frame_view, spacing

if TYPE_CHECKING:
    from lib.trainers.config import TrainingPlan
    from lib.trainers.progress import TrainingProgress

logger = logging.getLogger(__name__)

# Unlabelled frames kept on each side of the labelled ones, as examples of the end of an object.
MARGIN = 2
_FORMAT = 1  # another number invalidates all prepared frames


@dataclass(frozen=True)
class LabelledImage:
    """Files of an image with a final label.

    Attributes:
        id: Image id in the datastore.
        image: Image file, or folder of DICOM files.
        label: Label file.
        label_info: Names of the label values from the client, ``[{"name": ..., "idx": ...}]``.
    """

    id: str
    image: Path
    label: Path
    label_info: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """Labelled frames of one image with their neighbours; a ``FrameSequence`` of the engine.

    Attributes:
        id: Image id in the datastore.
        digest: Digest of the image and label files.
        height: Pixels of a frame along y.
        width: Pixels of a frame along x.
        spacing: Pixel spacing in mm along (y, x).
        objects: Pixel count by label value for each frame.
        names: Label value to class name.
        folder: Folder of the prepared frames.
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
        """Identifies a frame within its image."""
        return index

    def mask(self, index: int, value: int) -> NDArray[np.bool_]:
        """Mask (H, W) of a label value on a frame."""
        mask: NDArray[np.bool_] = np.asarray(self._labels[index] == value)
        return mask

    # Mapped on first use, also after unpickling.
    @cached_property
    def _levels(self) -> NDArray[np.uint8]:
        mapped: NDArray[np.uint8] = np.load(self.folder / "levels.npy", mmap_mode="r")
        return mapped

    @cached_property
    def _labels(self) -> NDArray[np.uint16]:
        mapped: NDArray[np.uint16] = np.load(self.folder / "labels.npy", mmap_mode="r")
        return mapped


def prepare_frames(labelled: LabelledImage, folder: Path, max_voxels: int) -> LabelledFrames:
    """Writes the frames of a labelled image to disk, or reuses those of an earlier call.

    Raises:
        ImageError, LabelError: Image and label cannot be used together.
        OSError: A file cannot be written.
    """
    key = _key(labelled)
    target = folder / key
    if not (target / "facts.json").is_file():
        image = read_image(labelled.image, max_voxels)
        labels = read_labels(labelled.label, image, list(labelled.label_info))
        if not labels.names:
            raise LabelError(f"Label {labelled.label.name} is empty: there is no object to learn from")
        _write(target, image, labels.array, labels.names)
    facts = json.loads((target / "facts.json").read_text())
    known = {"id": labelled.id, "digest": key, "folder": target}
    return TypeAdapter(LabelledFrames).validate_python({**known, **facts})


def _write(target: Path, image: MedicalImage, labels: NDArray, names: dict[int, str]) -> None:
    stack = FrameStack(image.array, AXIS, image.window())
    labelled = np.flatnonzero(labels.any((0, 1)))
    kept = range(max(0, int(labelled[0]) - MARGIN), min(len(stack), int(labelled[-1]) + 1 + MARGIN))
    target.mkdir(parents=True, exist_ok=True)
    channels = slice(None) if image.is_rgb else 0
    _fill(target / "levels.npy", np.uint8, kept, lambda t: stack[t][..., channels])
    _fill(target / "labels.npy", np.uint16, kept, lambda t: frame_view(labels, AXIS, t))
    along_x, along_y, _ = spacing(image.affine)
    facts = {
        "height": stack.height,
        "width": stack.width,
        "spacing": [along_y, along_x],
        "objects": [_areas(frame_view(labels, AXIS, t)) for t in kept],
        "names": {str(value): name for value, name in names.items()},
    }
    # Written last: it marks the folder as complete.
    write_atomically(target / "facts.json", json.dumps(facts).encode())


def _fill(path: Path, dtype: type[np.generic], kept: range, frame: Callable[[int], NDArray]) -> None:
    """Writes frames (T, H, W[, 3]) to a .npy file, one in memory at a time.

    Not through a memory map: on a full disk that ends the process by SIGBUS, and a write raises ENOSPC.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (len(kept), *frame(kept[0]).shape),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for t in kept:
            file.write(np.ascontiguousarray(frame(t), dtype=dtype).data)


def _areas(values: NDArray) -> dict[str, int]:
    found, counts = np.unique(values, return_counts=True)
    return {str(value): int(count) for value, count in zip(found.tolist(), counts, strict=True) if value}


def _key(labelled: LabelledImage) -> str:
    """Changes whenever the image or the label is written."""
    info = json.dumps(list(labelled.label_info), sort_keys=True, default=str)
    parts = [str(_FORMAT), labelled.id, info]
    for path in (labelled.image, labelled.label):
        parts += [str(path), file_stamp(path)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


Side = Literal["train", "val"]
LEAST_IMAGES = 2  # one to learn from and one to measure on


def split(images: Iterable[str], val_split: float, record: Path) -> dict[str, Side]:
    """Assigns images to sides; an image keeps the side on record.

    A new image is assigned by the hash of its id. If a side would stay empty, the new image whose hash is
    nearest to the threshold changes sides.

    Args:
        images: Image ids.
        val_split: Share of validation images.
        record: File with all sides ever assigned; new ones are added.

    Raises:
        TrainingError: There are fewer than two images, or all of them are on one side of the record.
    """
    names = sorted(set(images))
    if len(names) < LEAST_IMAGES:
        raise TrainingError(
            f"Training needs at least {LEAST_IMAGES} usable labelled images, not {len(names)}: one to learn "
            "from and one to measure on. Label more images, submit them, and train again"
        )
    known = _read(record)
    sides: dict[str, Side] = {
        name: known.get(name, "val" if _share(name) < val_split else "train") for name in names
    }
    for missing, other in (("val", "train"), ("train", "val")):
        if missing not in sides.values():
            movable = [name for name in names if name not in known]
            if not movable:
                raise TrainingError(
                    f"All {len(names)} labelled images belong to the {other} side since an earlier training; "
                    "label one more image"
                )
            nearest = min(movable, key=lambda name: abs(_share(name) - val_split))
            sides[nearest] = "val" if missing == "val" else "train"
    write_atomically(record, json.dumps({**known, **sides}, indent=1, sort_keys=True).encode())
    return sides


def _share(name: str) -> float:
    """Hash of a name as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _read(record: Path) -> dict[str, Side]:
    try:
        found = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {name: side for name, side in found.items() if side in ("train", "val")}


def open_images(
    plan: TrainingPlan, progress: TrainingProgress
) -> tuple[list[LabelledFrames], dict[str, Side], list[dict[str, str]]]:
    """Usable images, their sides, and unusable images with the reason."""
    images, left_out = [], []
    for labelled in tqdm(plan.images, desc="Reading labelled images", disable=None):
        try:
            images.append(prepare_frames(labelled, plan.frames_folder, plan.max_voxels))
        except BioSam2Error as error:
            logger.warning("Image %s left out of the training: %s", labelled.id, error)
            left_out.append({"image": labelled.id, "reason": str(error)})
    sides = split((image.id for image in images), plan.options.val_split, plan.split_record)
    counts = {side: list(sides.values()).count(side) for side in ("train", "val")}
    progress.note(
        f"learning from {counts['train']} images, measuring on {counts['val']}, {len(left_out)} left out",
        images=counts,
        left_out=left_out,
    )
    return images, sides, left_out


def image_records(
    images: list[LabelledFrames], sides: dict[str, Side], left_out: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Entries of the version's record, one for each image."""
    used = [
        {
            "image": image.id,
            "side": sides[image.id],
            "frames": len(image),
            "labels": sorted(set(image.names.values())),
        }
        for image in images
    ]
    return used + [{**item, "side": "left out"} for item in left_out]
