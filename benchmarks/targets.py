"""The segmented objects: a bounded, reproducible choice per image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.items import Item
from lib.prompts.simulation import tight_box

MAX_LABELS = 6  # largest structures of a volume
MAX_INSTANCES = 12  # drawn with a fixed seed
MAX_COMPONENTS = 6  # largest pieces
# Smaller pieces are gaps between membranes instead of cells.
_SMALLEST_COMPONENT = 100
# Smaller instances are remnants of a colour mask that was resized.
_SMALLEST_INSTANCE = 30
_ALL_NEIGHBOURS = 3  # connectivity through faces, edges and corners

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Target:
    """One object of one image.

    Attributes:
        item: Image.
        name: Name of the object.
        voxels: Mask (I, J, K); a picture has one slice.
    """

    item: Item
    name: str
    voxels: Mask

    @cached_property
    def index(self) -> int:
        """Slice of clicks and box: the one with the object's largest island."""
        areas = self.voxels.sum(axis=(0, 1))
        # An island is no larger than its slice: search from the largest slice until none can win.
        best, best_area = 0, 0
        for index in np.argsort(-areas, kind="stable"):
            if areas[index] <= best_area:
                break
            area = int(largest_island(self.voxels[:, :, index].T).sum())
            if area > best_area:
                best, best_area = int(index), area
        return best

    @cached_property
    def truth(self) -> Mask:
        """The object's largest island on slice :attr:`index`, (H, W)."""
        return largest_island(self.voxels[:, :, self.index].T)

    @property
    def middle(self) -> int:
        """The middle slice of the object, on which a propagation starts."""
        slices = np.flatnonzero(self.voxels.any(axis=(0, 1)))
        return int(slices[len(slices) // 2])

    def box(self, index: int | None = None) -> Box:
        """Half-open box x0, y0, x1, y1 around the object on a slice; default: around :attr:`truth`."""
        mask = self.truth if index is None else self.voxels[:, :, index].T
        x0, y0, x1, y1 = tight_box(mask).astype(int).tolist()
        return x0, y0, x1, y1


def choose_targets(item: Item, labels: NDArray[np.int32], *, seed: int = 0) -> list[Target]:
    """The segmented objects of an image.

    The object of a label is its largest connected piece in 3-D. The largest labels and pieces are chosen, and
    instances at random.

    Args:
        item: Image.
        labels: Label values (I, J, K) from :meth:`Item.read_label`.
        seed: Seed of the choice of instances.
    """
    if item.rule == "union":
        return [Target(item, "all labels", largest_piece(labels > 0))]
    if item.rule == "instances":
        return _instances(item, labels, seed)
    if item.rule == "components":
        pieces, _ = ndimage.label(labels > 0)
        return [Target(item, f"piece {value}", pieces == value) for value in _largest_values(pieces)]
    sizes = np.bincount(labels.ravel(), minlength=max(item.names) + 1)
    values = sorted((value for value in item.names if sizes[value]), key=lambda value: -sizes[value])[
        :MAX_LABELS
    ]
    return [Target(item, item.names[value], largest_piece(labels == value)) for value in values]


def _instances(item: Item, labels: NDArray[np.int32], seed: int) -> list[Target]:
    """A seeded choice of the instances; small ones only if there are no others."""
    values, sizes = np.unique(labels[labels > 0], return_counts=True)
    if (sizes >= _SMALLEST_INSTANCE).any():
        values = values[sizes >= _SMALLEST_INSTANCE]
    chosen = np.random.default_rng(seed).permutation(values)[:MAX_INSTANCES]
    return [
        Target(item, f"{item.names.get(value, 'instance')} {value}", labels == value)
        for value in sorted(chosen.tolist())
    ]


def largest_piece(mask: Mask) -> Mask:
    """The largest connected piece of a volume; voxels with a common corner are connected."""
    return _largest(mask, ndimage.generate_binary_structure(mask.ndim, min(_ALL_NEIGHBOURS, mask.ndim)))


def largest_island(mask: Mask) -> Mask:
    """The largest 4-connected piece of a slice."""
    return _largest(mask, None)


def _largest(mask: Mask, structure: NDArray | None) -> Mask:
    pieces, count = ndimage.label(mask, structure)
    if count < 2:
        return mask
    return pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))


def _largest_values(pieces: NDArray[np.int32]) -> list[int]:
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")[:MAX_COMPONENTS]
    return [int(value) for value in order if sizes[value] >= _SMALLEST_COMPONENT]
