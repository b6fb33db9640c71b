"""What a person asks for: points, boxes and masks, per object, on the voxels of one image.

Coordinates are continuous voxel indices in the order (i, j, k) of the image array, decided here once:

* A point at index ``i`` means the centre of voxel ``i``.
* A box is the half-open interval ``[lower, upper)``: the voxels ``i`` with ``lower <= i < upper``.
* Slices are counted along ``axis``. A frame's pixel x is the first of the two other axes, y the second, so
  that a slice along axis 2 has x = i and y = j. Nothing here transposes: frame arrays are ``(H, W)``,
  indexed ``[y, x]``, and ``lib.transforms.frames`` makes them.

Every constructed object is valid: the constructors raise ``PromptError``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.errors import PromptError
from lib.transforms.frames import in_plane_axes

Triple = tuple[float, float, float]
P = TypeVar("P")

MAX_OBJECTS = 255  # one uint8 value of the answer for each object, 0 is the background


def _finite(values: Sequence[float], name: str) -> None:
    if not all(math.isfinite(value) for value in values):
        raise PromptError(f"{name} is {tuple(values)}; its coordinates must be finite numbers.")


@dataclass(frozen=True)
class Point:
    """One click on a voxel.

    Attributes:
        i, j, k: Continuous voxel index; an integer is the centre of that voxel.
        positive: True when the voxel belongs to the object, False when it does not.
    """

    i: float
    j: float
    k: float
    positive: bool = True

    def __post_init__(self) -> None:
        _finite(self.ijk, "The point")

    @property
    def ijk(self) -> Triple:
        """The three indices."""
        return self.i, self.j, self.k

    def slice_index(self, axis: int) -> int:
        """The slice along ``axis`` that holds the point (halves go up)."""
        return math.floor(self.ijk[axis] + 0.5)


@dataclass(frozen=True)
class Box:
    """A half-open box ``[lower, upper)`` of voxels.

    Attributes:
        lower: First corner (i, j, k), continuous voxel index, part of the box.
        upper: Opposite corner, above ``lower`` on every axis, not part of the box.
    """

    lower: Triple
    upper: Triple

    def __post_init__(self) -> None:
        _finite((*self.lower, *self.upper), "The box")
        if any(low >= high for low, high in zip(self.lower, self.upper, strict=True)):
            raise PromptError(
                f"The box from {self.lower} to {self.upper} is empty; upper must be above lower."
            )

    def slice_range(self, axis: int) -> tuple[int, int]:
        """The slices ``[first, stop)`` along ``axis`` whose centres are in the box."""
        return math.ceil(self.lower[axis]), math.ceil(self.upper[axis])

    def middle_slice(self, axis: int) -> int:
        """The slice in the middle along ``axis``, the lower one of two: 4 for the slices 0 to 9."""
        first, stop = self.slice_range(axis)
        return (first + stop - 1) // 2

    def in_plane(self, axis: int) -> tuple[float, float, float, float]:
        """``(x0, y0, x1, y1)`` in frame pixels, half-open, of the box on a slice along ``axis``."""
        x, y = in_plane_axes(axis)
        return self.lower[x], self.lower[y], self.upper[x], self.upper[y]


@dataclass(frozen=True, eq=False)
class MaskPrompt:
    """A mask of the object on one slice.

    Attributes:
        slice_index: The slice along the prompt set's axis.
        mask: bool ``(H, W)`` frame pixels, at least one of them set.
    """

    slice_index: int
    mask: NDArray[np.bool_]

    def __post_init__(self) -> None:
        mask = np.asarray(self.mask) != 0
        if mask.ndim != 2 or not mask.any():
            raise PromptError(
                f"The mask prompt on slice {self.slice_index} has the shape {mask.shape} and "
                f"{int(mask.sum())} pixels; it must be (H, W) with at least one pixel set."
            )
        object.__setattr__(self, "mask", mask)


@dataclass(frozen=True, eq=False)
class KnownPixels:
    """Pixels of one slice whose label a scribble or an outline gives.

    Attributes:
        slice_index: The slice along the prompt set's axis.
        pixels: int32 ``(N, 2)``, each (x, y) in frame pixels.
        positive: True for pixels of the object, False for background.
    """

    slice_index: int
    pixels: NDArray[np.int32]
    positive: bool


@dataclass(frozen=True, eq=False)
class FramePrompts:
    """The prompts of one object on one frame, in frame pixels of the native grid: what the engine takes.

    Attributes:
        points: float32 ``(N, 2)``, each (x, y); an integer is the centre of that pixel.
        labels: int32 ``(N,)``, 1 positive and 0 negative.
        box: float32 ``(4,)`` x0, y0, x1, y1, half-open, or None.
        mask: bool ``(H, W)``, or None. Alone it is the answer; beside points or a box it is where they start.
        known: int32 ``(N, 3)``, each (x, y, label): pixels whose label is given, 1 object and 0 background.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int32]
    box: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None
    known: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 3), np.int32))

    def __post_init__(self) -> None:
        points = np.array(self.points, dtype=np.float32).reshape(-1, 2)
        labels = np.array(self.labels, dtype=np.int32).reshape(-1)
        if len(points) != len(labels):
            raise PromptError(f"{len(points)} points came with {len(labels)} labels; send one label a point.")
        if not np.isfinite(points).all():
            raise PromptError("The points of a frame must be finite numbers.")
        if not np.isin(labels, (0, 1)).all():
            raise PromptError(f"Point labels are {np.unique(labels).tolist()}; allowed are 1 and 0.")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "box", _frame_box(self.box))
        if self.mask is not None:
            object.__setattr__(self, "mask", MaskPrompt(0, self.mask).mask)

    @classmethod
    def of_box(cls, box: NDArray[np.float32]) -> FramePrompts:
        """A box alone: x0, y0, x1, y1, half-open."""
        return cls(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), box=box)

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> FramePrompts:
        """A mask (H, W) alone."""
        return cls(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), mask=mask)

    @property
    def is_mask_alone(self) -> bool:
        """True where a mask says all: no point and no box corrects it."""
        return self.mask is not None and self.box is None and not len(self.points)

    @property
    def has_positive(self) -> bool:
        """True when a positive point, a box or a mask says where the object is."""
        return bool(self.labels.any()) or self.box is not None or self.mask is not None


def _frame_box(box: ArrayLike | None) -> NDArray[np.float32] | None:
    if box is None:
        return None
    values = np.array(box, dtype=np.float32).reshape(-1)
    if values.shape != (4,) or not np.isfinite(values).all() or (values[:2] >= values[2:]).any():
        raise PromptError(
            f"The box of a frame is {values.tolist()}; it must be x0, y0, x1, y1 with x0 < x1, y0 < y1."
        )
    return values


@dataclass(frozen=True)
class ObjectPrompts:
    """All prompts of one object, on any slices.

    Attributes:
        label: Name of the object's class.
        points: Positive and negative points.
        boxes: At most one for each slice.
        masks: At most one for each slice.
        index: Value of the object in a label map, 1 to 255.
        known: Pixels whose label is given.
    """

    label: str
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    masks: tuple[MaskPrompt, ...] = ()
    index: int = 1
    known: tuple[KnownPixels, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.index <= MAX_OBJECTS:
            raise PromptError(
                f"The object {self.label!r} would get the label value {self.index}; "
                f"a label map holds 1 to {MAX_OBJECTS}. Send fewer labels at once."
            )
        if self.boxes or self.masks or any(point.positive for point in self.points):
            return
        if self.points:
            raise PromptError(
                f"The object {self.label!r} has only negative points; add a positive one or a box."
            )
        raise PromptError(
            f"The object {self.label!r} has no prompt; add a positive point or a box on the object."
        )


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one request: everything that the engine needs to know about what was asked.

    Attributes:
        objects: At least one; labels and indices are unique.
        axis: Slice axis, 0, 1 or 2.
        slice_range: Bound ``[lo, hi)`` on the slices of the answer, or None for the whole volume.
    """

    objects: tuple[ObjectPrompts, ...]
    axis: int = 2
    slice_range: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise PromptError(f"axis is {self.axis!r}; the slice axis is 0, 1 or 2.")
        if not self.objects:
            raise PromptError("There is no prompt; add a positive point or a box on an object.")
        for name, values in (
            ("label", [item.label for item in self.objects]),
            ("index", [item.index for item in self.objects]),
        ):
            if len(set(values)) < len(values):
                raise PromptError(f"Two objects share one {name} in {values}; each object needs its own.")
        if self.slice_range is not None and self.slice_range[0] >= self.slice_range[1]:
            raise PromptError(f"slice_range is {self.slice_range}; it is half-open, lo < hi.")
        for item in self.objects:
            self.frames(item)

    @property
    def label_names(self) -> dict[str, int]:
        """Label map value of every object by its name."""
        return {item.label: item.index for item in self.objects}

    @property
    def slices(self) -> tuple[int, ...]:
        """Every slice that holds a prompt of any object, ascending."""
        return tuple(sorted({index for item in self.objects for index in self.frames(item)}))

    def frames(self, item: ObjectPrompts) -> dict[int, FramePrompts]:
        """One object's prompts by slice, ascending; a box counts on its middle slice alone.

        Args:
            item: One of ``objects``.

        Raises:
            PromptError: Two boxes or two masks are on one slice.
        """
        x, y = in_plane_axes(self.axis)
        points: dict[int, list[Point]] = {}
        for point in item.points:
            points.setdefault(point.slice_index(self.axis), []).append(point)
        boxes = _one_each([(box.middle_slice(self.axis), box) for box in item.boxes], "boxes", item.label)
        masks = _one_each([(mask.slice_index, mask) for mask in item.masks], "masks", item.label)
        frames = {}
        for index in sorted({*points, *boxes, *masks}):
            here = points.get(index, [])
            frames[index] = FramePrompts(
                points=np.array([(point.ijk[x], point.ijk[y]) for point in here], dtype=np.float32),
                labels=np.array([point.positive for point in here], dtype=np.int32),
                box=np.array(boxes[index].in_plane(self.axis), np.float32) if index in boxes else None,
                mask=masks[index].mask if index in masks else None,
                known=_known_on(item, index),
            )
        return frames


def _known_on(item: ObjectPrompts, index: int) -> NDArray[np.int32]:
    """The known pixels (x, y, label) of an object on a slice, the object's before the background's."""
    here = sorted((known for known in item.known if known.slice_index == index), key=lambda k: not k.positive)
    parts = [np.insert(known.pixels, 2, known.positive, axis=1) for known in here]
    return np.concatenate([np.zeros((0, 3), np.int32), *parts]).astype(np.int32)


def _one_each(pairs: Iterable[tuple[int, P]], what: str, label: str) -> dict[int, P]:
    by_slice: dict[int, P] = {}
    for index, prompt in pairs:
        if index in by_slice:
            raise PromptError(
                f"The object {label!r} has two {what} on slice {index}; send one for each slice."
            )
        by_slice[index] = prompt
    return by_slice
