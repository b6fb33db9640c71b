"""A case that was opened: frames to segment, and the truth on those of them that have one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.engine.frames import FrameSequence
from lib.errors import LabelError
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image
from lib.labels.label_map import LabelMap
from lib.settings import Settings
from lib.transforms.frames import FrameStack, frame_view
from lib.transforms.orientation import in_plane_axes, spacing

Kind = Literal["picture", "volume", "clip"]
ReadTruth = Callable[[Path, MedicalImage], LabelMap]

MAX_VOXELS = Settings().max_voxels


@dataclass(frozen=True, eq=False)
class Scene:
    """Frames and their truth.

    Attributes:
        kind: a picture has one frame, a volume has neighbouring slices, a clip has moments.
        frames: every frame.
        content: of frames and truth, so that rows of other contents are never taken for rows of these.
        annotated: the frames that have a truth, ascending; of a volume, all.
        truth: for each annotated frame, whole numbers (H, W); 0 is background, any other one object.
        names: class of each object in the truth.
        spacing: millimetres between frames, rows and columns; 1 where nothing is known.
    """

    kind: Kind
    frames: FrameSequence
    content: str
    annotated: tuple[int, ...]
    truth: Sequence[NDArray[np.integer]]
    names: Mapping[int, str]
    spacing: tuple[float, float, float]

    @property
    def objects(self) -> tuple[int, ...]:
        """The objects in the truth, ascending."""
        return tuple(sorted({int(value) for frame in self.truth for value in np.unique(frame)} - {0}))

    def labels(self, index: int) -> NDArray[np.integer]:
        """The truth of an annotated frame, (H, W)."""
        return self.truth[self.annotated.index(index)]

    def mask(self, value: int, index: int) -> NDArray[np.bool_]:
        """An object on an annotated frame, (H, W)."""
        return self.labels(index) == value

    def visible(self, value: int) -> tuple[int, ...]:
        """The annotated frames on which an object is."""
        return tuple(
            index for index, frame in zip(self.annotated, self.truth, strict=True) if (frame == value).any()
        )


@dataclass(frozen=True, eq=False)
class Case:
    """A case that may be opened.

    Attributes:
        id: unique in one evaluation.
        open: from the slice axis of volumes to the opened case. It raises ``LabelError`` or ``ImageError``
            where the files cannot be used.
    """

    id: str
    open: Callable[[int], Scene]


def open_image(image: Path, label: Path, read_truth: ReadTruth, axis: int, crop: Sequence[int] = ()) -> Scene:
    """Opens a picture or a volume with its label.

    Args:
        image: anything that ``read_image`` reads.
        label: what ``read_truth`` reads.
        read_truth: from the label's path and the image to the truth on the image's grid.
        axis: slice axis of a volume.
        crop: first i, first j, width and height of the part to take, in voxels; all where it is empty or
            the image has no such part.

    Raises:
        ImageError: the image cannot be read.
        LabelError: the label cannot be read, does not fit, or is empty.
    """
    opened = read_image(image, MAX_VOXELS)
    found = read_truth(label, opened)
    array, labels = opened.array, found.array
    if crop and array.shape[0] >= crop[0] + crop[2] and array.shape[1] >= crop[1] + crop[3]:
        part = (slice(crop[0], crop[0] + crop[2]), slice(crop[1], crop[1] + crop[3]))
        array, labels = array[part], labels[part]
    if not labels.any():
        raise LabelError(
            f"{label.name} labels nothing of {image.name}: draw an object, or leave the case out"
        )
    axis = 2 if opened.is_2d else axis
    truth = [frame_view(labels, axis, t) for t in range(labels.shape[axis])]
    digest = f"{opened.digest} {list(crop)}"
    x_axis, y_axis = in_plane_axes(axis)
    steps = spacing(opened.affine)
    return Scene(
        kind="picture" if opened.is_2d else "volume",
        frames=FrameStack(array, axis, opened.window(), digest),
        content=content_of(digest, truth),
        annotated=tuple(range(len(truth))),
        truth=truth,
        names=found.names,
        spacing=(steps[axis], steps[y_axis], steps[x_axis]),
    )


def content_of(digest: str, truth: Sequence[NDArray]) -> str:
    """Hash of frames and truth, in hex."""
    content = hashlib.sha256(f"{digest} {len(truth)}".encode())
    for frame in truth:
        content.update(np.ascontiguousarray(frame, dtype=np.int64).data)
    return content.hexdigest()[:16]
