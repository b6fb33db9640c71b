"""Labelled slices of images, one mask for each class: examples of what people drew."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.images.medical_image import MedicalImage
from lib.labels.values import LabelMap
from lib.transforms.frames import FrameStack, frame_view
from lib.transforms.sampling import evenly_spaced

Mask = NDArray[np.bool_]

# Slice axis: the file's third axis, which viewers show and people label.
AXIS = 2
# Pixels below which a component is the tip of an object, or noise.
LEAST_PIXELS = 12


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """One slice with accepted masks; a ``FrameSequence`` of one frame.

    Attributes:
        digest: Digest of the image's content.
        index: Slice index in the image.
        levels: (H, W, 3) uint8 levels.
        masks: Class name to (H, W) mask, none of them empty.
    """

    digest: str
    index: int
    levels: NDArray[np.uint8]
    masks: dict[str, Mask]

    @property
    def height(self) -> int:
        """Pixels along y."""
        return int(self.levels.shape[0])

    @property
    def width(self) -> int:
        """Pixels along x."""
        return int(self.levels.shape[1])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The slice, uint8 (H, W, 3), for every index."""
        return self.levels

    def key(self, index: int) -> Hashable:
        """Identifies the slice among those of its image."""
        return ("labelled", self.index)


def image_frames(image: MedicalImage) -> FrameStack:
    """Frames of an image along the slice axis of labels."""
    return FrameStack(image.array, AXIS, image.window(), image.digest)


def labelled_slices(image: MedicalImage, labels: LabelMap, most: int) -> list[LabelledSlice]:
    """At most ``most`` slices, evenly spaced over those that contain objects; one mask for each class."""
    frames = image_frames(image)
    held = [index for index in range(len(frames)) if (frame_view(labels.array, AXIS, index) != 0).any()]
    slices = []
    for place in evenly_spaced(len(held), most):
        masks = class_masks(frame_view(labels.array, AXIS, held[place]), labels.names)
        if masks:
            slices.append(LabelledSlice(image.digest, held[place], frames[held[place]], masks))
    return slices


def class_masks(values: NDArray, names: dict[int, str]) -> dict[str, Mask]:
    """Masks (H, W) by class on one slice of a label map, without those below ``LEAST_PIXELS``.

    Args:
        values: (H, W) label values.
        names: Label value to class name.
    """
    by_name: dict[str, list[int]] = {}
    for value in np.unique(values[values != 0]).tolist():
        by_name.setdefault(names.get(value, str(value)), []).append(value)
    masks = {name: np.isin(values, own) for name, own in sorted(by_name.items())}
    return {name: mask for name, mask in masks.items() if np.count_nonzero(mask) >= LEAST_PIXELS}
