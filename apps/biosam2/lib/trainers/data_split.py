"""Split of the labelled images into training and validation images, fixed once for each image."""

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
    """Assigns images to sides; an image keeps the side on record.

    A new image is assigned by the hash of its id. If a side would stay empty, the new image whose hash is
    nearest to the threshold changes sides.

    Args:
        images: Image ids.
        val_split: Share of validation images.
        record: File with all sides ever assigned; new ones are added.

    Raises:
        TrainingError: There are fewer than two images, or all of them are on one side of the record.
    """
    names = sorted(set(images))
    if len(names) < LEAST_IMAGES:
        raise TrainingError(
            f"Training needs at least {LEAST_IMAGES} usable labelled images, not {len(names)}: one to learn "
            "from and one to measure on. Label more images, submit them, and train again"
        )
    known = _read(record)
    sides: dict[str, Side] = {name: known.get(name, _side(name, val_split)) for name in names}
    for missing, other in (("val", "train"), ("train", "val")):
        if missing not in sides.values():
            movable = [name for name in names if name not in known]
            if not movable:
                raise TrainingError(
                    f"All {len(names)} labelled images belong to the {other} side since an earlier training; "
                    "label one more image"
                )
            nearest = min(movable, key=lambda name: abs(_share(name) - val_split))
            sides[nearest] = "val" if missing == "val" else "train"
    write_atomically(record, json.dumps({**known, **sides}, indent=1, sort_keys=True).encode())
    return sides


def _side(name: str, val_split: float) -> Side:
    return "val" if _share(name) < val_split else "train"


def _share(name: str) -> float:
    """Hash of a name as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _read(record: Path) -> dict[str, Side]:
    try:
        found = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {name: side for name, side in found.items() if side in ("train", "val")}
