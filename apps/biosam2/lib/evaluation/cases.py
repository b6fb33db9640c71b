"""Evaluation cases: frames to segment, with ground truth on some or all of them."""

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
class LabelledSequence:
    """Frames and their ground truth.

    Attributes:
        kind: ``picture`` (one frame), ``volume`` (neighbouring slices) or ``clip`` (video frames).
        frames: All frames.
        content: Hash of frames and ground truth, part of the key of a result.
        annotated: Frames with ground truth, ascending; all frames of a volume.
        truth: Label map (H, W) per annotated frame; 0 is background, each other value one object.
        names: Class by object value.
        spacing: Millimetres between frames, rows and columns; 1 if unknown.
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
        """Object values, ascending."""
        return tuple(sorted({int(value) for frame in self.truth for value in np.unique(frame)} - {0}))

    def labels(self, index: int) -> NDArray[np.integer]:
        """Label map of an annotated frame, (H, W)."""
        return self.truth[self.annotated.index(index)]

    def mask(self, value: int, index: int) -> NDArray[np.bool_]:
        """Mask of an object on an annotated frame, (H, W)."""
        return self.labels(index) == value

    def visible(self, value: int) -> tuple[int, ...]:
        """Annotated frames with an object."""
        return tuple(
            index for index, frame in zip(self.annotated, self.truth, strict=True) if (frame == value).any()
        )


@dataclass(frozen=True, eq=False)
class EvaluationCase:
    """A case that can be opened.

    Attributes:
        id: Unique id in one evaluation.
        open: Function from the slice axis of volumes to the opened case. It raises ``LabelError`` or
            ``ImageError`` if the files cannot be used.
    """

    id: str
    open: Callable[[int], LabelledSequence]


def open_image(
    image: Path, label: Path, read_truth: ReadTruth, axis: int, crop: Sequence[int] = ()
) -> LabelledSequence:
    """Opens a picture or a volume with its label.

    Args:
        image: Image file or folder that ``read_image`` supports.
        label: Label file or folder that ``read_truth`` supports.
        read_truth: Function from the label's path and the image to the label map on the image's grid.
        axis: Slice axis of a volume.
        crop: First i, first j, width and height in voxels; ignored if empty or outside the image.

    Raises:
        ImageError: the image cannot be read.
        LabelError: the label cannot be read, has another grid, or is empty.
    """
    opened = read_image(image, MAX_VOXELS)
    found = read_truth(label, opened)
    array, labels = opened.array, found.array
    if crop and array.shape[0] >= crop[0] + crop[2] and array.shape[1] >= crop[1] + crop[3]:
        part = (slice(crop[0], crop[0] + crop[2]), slice(crop[1], crop[1] + crop[3]))
        array, labels = array[part], labels[part]
    if not labels.any():
        raise LabelError(f"{label.name} is empty: draw an object of {image.name}, or remove the label")
    axis = 2 if opened.is_2d else axis
    truth = [frame_view(labels, axis, t) for t in range(labels.shape[axis])]
    digest = f"{opened.digest} {list(crop)}"
    x_axis, y_axis = in_plane_axes(axis)
    steps = spacing(opened.affine)
    return LabelledSequence(
        kind="picture" if opened.is_2d else "volume",
        frames=FrameStack(array, axis, opened.window(), digest),
        content=content_of(digest, truth),
        annotated=tuple(range(len(truth))),
        truth=truth,
        names=found.names,
        spacing=(steps[axis], steps[y_axis], steps[x_axis]),
    )


def content_of(digest: str, truth: Sequence[NDArray]) -> str:
    """Hash of frames and ground truth, in hex."""
    content = hashlib.sha256(f"{digest} {len(truth)}".encode())
    for frame in truth:
        content.update(np.ascontiguousarray(frame, dtype=np.int64).data)
    return content.hexdigest()[:16]
