"""Pictures of one object each, of which most are easy and some are hard in one of several ways.

    python -m benchmarks.hard_and_easy FOLDER

writes the datastore of the simulated learning curve.

Easy is what the bundled weights segment at the first click. What is hard is hard because nobody can know
without a label where the object ends: a dark core in a rim that belongs to it, and so on. A label of one kind
helps with that kind most, so who finds the hard kinds early learns faster than chance does.
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
# Of the learning curve: three in ten are hard, in the pool as in the part that measures.
POOL = {"easy": 28, "rim": 4, "striped": 4, "ring": 4}
TEST = {"easy": 21, "rim": 3, "striped": 3, "ring": 3}
_LEVELS = {
    "easy": (-0.6, 0.7, 0.7),
    "rim": (0.5, 0.1, -0.9),
    "striped": (-0.1, 0.7, 0.7),
    "ring": (-0.9, 0.8, -0.85),
}


def picture(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and where its object is: uint8 (H, W) and bool (H, W).

    Place, size, brightness, contrast, shading and noise differ from picture to picture: those of one kind do
    not all look alike.

    Args:
        kind: one of ``KINDS``.
        seed: of all that differs.
    """
    rng = np.random.default_rng([KINDS.index(kind), seed])
    shape = (SIDE, SIDE)
    centre, radii = rng.uniform(24, 40, 2), rng.uniform(11, 15, 2)
    whole = _ellipse(centre, radii)
    inner = _ellipse(centre, radii * 0.5)
    y, x = np.indices(shape)
    # Levels of the ground, of the object, and of what is inside it, between -1 and 1.
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
        folder: of the datastore.
        pool: how many of each kind there are to label.
        test: how many of each kind only measure; their names begin with ``test``.
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
