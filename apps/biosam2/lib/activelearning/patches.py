"""The next patch of a picture, as QuPath asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lib.errors import PromptError


def next_patch(request: Mapping[str, Any], rng: np.random.Generator) -> list[int] | None:
    """A place of the patch's size, drawn by chance: ``[x, y, width, height]`` in pixels.

    Args:
        request: with ``patch_size`` and ``image_size``, each ``[width, height]``.
        rng: draws it.

    Returns:
        The patch, no larger than the image; None where one of the two is missing or zero.

    Raises:
        PromptError: one of them is no pair of whole numbers.
    """
    patch, image = (_size(request, name) for name in ("patch_size", "image_size"))
    if not all(patch) or not all(image):
        return None
    width, height = (min(of_patch, of_image) for of_patch, of_image in zip(patch, image, strict=True))
    x = int(rng.integers(image[0] - width + 1))
    y = int(rng.integers(image[1] - height + 1))
    return [x, y, width, height]


def _size(request: Mapping[str, Any], name: str) -> tuple[int, int]:
    value = request.get(name) or (0, 0)
    whole = isinstance(value, (list, tuple)) and all(type(side) is int and side >= 0 for side in value)
    if not whole or len(value) != 2:
        raise PromptError(f"{name} is {value!r}; it must be [width, height] in pixels")
    return value[0], value[1]
