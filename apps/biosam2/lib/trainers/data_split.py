"""Which images teach and which measure: decided once for each image, by its name alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from lib.errors import TrainingError
from lib.files import write_atomically

Side = Literal["train", "val"]
LEAST_IMAGES = 2  # one to learn from and one to measure on


def split(images: Iterable[str], val_split: float, record: Path) -> dict[str, Side]:
    """Assigns images to sides. Whoever was on a side before stays there, as long as the record lives.

    New images go where the hash of their id says. Where that would leave a side empty, the new image whose
    hash is nearest to the border changes over.

    Args:
        images: ids.
        val_split: share of images that measure.
        record: file of the sides that were ever assigned; written again with the new ones.

    Raises:
        TrainingError: there are fewer than two images, or all of them stand on one side since before.
    """
    names = sorted(set(images))
    if len(names) < LEAST_IMAGES:
        raise TrainingError(
            f"{len(names)} labelled image(s) can be used and a training needs at least {LEAST_IMAGES}: one "
            "to learn from and one to measure on. Label more images, submit them, and train again"
        )
    known = _read(record)
    sides: dict[str, Side] = {name: known.get(name, _side(name, val_split)) for name in names}
    for missing, other in (("val", "train"), ("train", "val")):
        if missing not in sides.values():
            movable = [name for name in names if name not in known]
            if not movable:
                raise TrainingError(
                    f"all {len(names)} labelled images are on the {other} side since an earlier training; "
                    "label one more image"
                )
            nearest = min(movable, key=lambda name: abs(_share(name) - val_split))
            sides[nearest] = "val" if missing == "val" else "train"
    write_atomically(record, json.dumps({**known, **sides}, indent=1, sort_keys=True).encode())
    return sides


def _side(name: str, val_split: float) -> Side:
    return "val" if _share(name) < val_split else "train"


def _share(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _read(record: Path) -> dict[str, Side]:
    try:
        found = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {name: side for name, side in found.items() if side in ("train", "val")}
