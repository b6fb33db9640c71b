"""Pictures of one object each: most easy, some hard in one of several ways.

    python -m benchmarks.hard_and_easy FOLDER

writes the datastore of the simulated learning curve.

The bundled weights segment easy objects at the first click. The extent of a hard object is ambiguous without
a label, for example a dark core inside a rim that belongs to it. A label of one kind helps most with that
kind, so a strategy that finds the hard kinds early learns faster than random choice.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 64
KINDS = ("easy", "rim", "striped", "ring")
# The learning curve: three in ten pictures are hard, in the pool and in the test set.
POOL = {"easy": 28, "rim": 4, "striped": 4, "ring": 4}
TEST = {"easy": 21, "rim": 3, "striped": 3, "ring": 3}
_LEVELS = {
    "easy": (-0.6, 0.7, 0.7),
    "rim": (0.5, 0.1, -0.9),
    "striped": (-0.1, 0.7, 0.7),
    "ring": (-0.9, 0.8, -0.85),
}


def picture(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 (H, W), and the mask of its object, bool (H, W).

    Position, size, brightness, contrast, shading and noise differ between pictures of one kind.

    Args:
        kind: One of ``KINDS``.
        seed: Seed of the variation.
    """
    rng = np.random.default_rng([KINDS.index(kind), seed])
    shape = (SIDE, SIDE)
    centre, radii = rng.uniform(24, 40, 2), rng.uniform(11, 15, 2)
    whole = _ellipse(centre, radii)
    inner = _ellipse(centre, radii * 0.5)
    y, x = np.indices(shape)
    # Levels of background, object and core, between -1 and 1.
    ground, body, core = _LEVELS[kind]
    levels = np.full(shape, ground)
    levels[whole] = np.where(y % 8 < 4, body, -body)[whole] if kind == "striped" else body
    levels[inner & (kind != "striped")] = core
    shade = rng.uniform(-0.25, 0.25, 2) @ np.stack([y.ravel(), x.ravel()]) / SIDE
    levels = levels + shade.reshape(shape) - shade.mean()
    image = 128 + rng.uniform(-25, 25) + rng.uniform(60, 95) * ndimage.gaussian_filter(levels, 0.6)
    image = image + rng.normal(0, rng.uniform(3, 9), shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), whole


def _ellipse(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    y, x = np.indices((SIDE, SIDE), dtype=np.float64)
    inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1.0
    return np.asarray(inside)


def write_store(folder: Path, pool: Mapping[str, int] = POOL, test: Mapping[str, int] = TEST) -> Path:
    """Writes a datastore with a final label for every picture.

    Args:
        folder: Folder of the datastore.
        pool: Number of pictures to label, by kind.
        test: Number of test pictures, by kind; their names begin with ``test``.
    """
    labels = folder / "labels" / "final"
    labels.mkdir(parents=True, exist_ok=True)
    for part, counts, offset in (("pool", pool, 0), ("test", test, 10_000)):
        for kind, count in counts.items():
            for number in range(count):
                levels, mask = picture(kind, offset + number)
                name = f"{part}_{kind}_{number:03}.png"
                Image.fromarray(levels).save(folder / name)
                Image.fromarray(mask.astype(np.uint8)).save(labels / name)
    return folder


if __name__ == "__main__":
    write_store(Path(sys.argv[1]))
