"""The structures that the demo segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.prompts.simulation import tight_box
from sample_study.case import Case

# Structures that are segmented one by one. The ventricles (two pieces) and the brain (nearly the whole head)
# say little about prompts.
OBJECTS = {
    "abdomen_ct": ("liver", "left kidney", "right kidney", "spleen"),
    "head_mr": ("lesion",),
    "cells": ("cell 1", "cell 2", "cell 3"),
}


@dataclass(frozen=True)
class Target:
    """One structure of one image, with the slice for its prompts.

    Attributes:
        case: Image with its ground truth.
        label: Name of the structure.
    """

    case: Case
    label: str

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Mask ``(I, J, K)``; a picture has one slice."""
        mask = self.case.mask(self.label)
        return mask if self.case.is_volume else mask[:, :, None]

    @property
    def middle(self) -> int:
        """The middle slice of the structure."""
        slices = np.flatnonzero(self.truth.any(axis=(0, 1)))
        return int(slices[len(slices) // 2])

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Half-open box ``(x0, y0, x1, y1)`` around the structure on its middle slice."""
        x0, y0, x1, y1 = tight_box(self.truth[:, :, self.middle].T).astype(int).tolist()
        return x0, y0, x1, y1


def targets(cases: Iterable[Case]) -> Iterator[Target]:
    """All structures, image by image."""
    for case in cases:
        for label in OBJECTS.get(case.name, ()):
            yield Target(case, label)
