"""The next patch of a picture or a slide, for QuPath."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import PromptError


def next_patch(
    request: Mapping[str, Any], rng: np.random.Generator, tissue: NDArray[np.bool_] | None = None
) -> list[int] | None:
    """Chooses a random position of a patch: ``[x, y, width, height]`` in pixels.

    Args:
        request: ``patch_size`` and ``image_size``, each ``[width, height]``.
        rng: Random generator.
        tissue: bool (h, w), tissue on an overview of the image; the patch's centre lies on it. None for
            anywhere.

    Returns:
        The patch, no larger than the image; None where one of the two sizes is missing or zero.

    Raises:
        PromptError: A size is no pair of whole numbers.
    """
    patch, image = (_size(request, name) for name in ("patch_size", "image_size"))
    if not all(patch) or not all(image):
        return None
    width, height = (min(of_patch, of_image) for of_patch, of_image in zip(patch, image, strict=True))
    if tissue is None:
        x, y = (int(rng.integers(image[axis] - side + 1)) for axis, side in enumerate((width, height)))
        return [x, y, width, height]
    rows, columns = np.nonzero(tissue)
    chosen = int(rng.integers(len(rows)))
    x, y = (
        round((index[chosen] + rng.random()) / size * image[axis] - side / 2)
        for axis, (index, size, side) in enumerate(
            zip((columns, rows), tissue.shape[::-1], (width, height), strict=True)
        )
    )
    return [min(max(0, x), image[0] - width), min(max(0, y), image[1] - height), width, height]


def _size(request: Mapping[str, Any], name: str) -> tuple[int, int]:
    value = request.get(name) or (0, 0)
    whole = isinstance(value, (list, tuple)) and all(type(side) is int and side >= 0 for side in value)
    if not whole or len(value) != 2:
        raise PromptError(f"{name} is {value!r}; it must be [width, height] in pixels")
    return value[0], value[1]
