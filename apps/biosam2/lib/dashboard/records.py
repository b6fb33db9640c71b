"""What MONAI Label's folder knows of its images and of who labelled them, read and never written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.labels.annotators import annotator_of

RECORD_FILE = "datastore_v2.json"
FINAL = "final"


@dataclass(frozen=True)
class ImageRecord:
    """One image of a datastore.

    Attributes:
        id: in the datastore.
        path: its file.
        labelled_at: seconds since 1970 when its final label was last saved; None where it has none.
        annotator: who saved it; empty where that is not known.
        scores: numbers that scoring wrote of the image and of its final label, by name.
    """

    id: str
    path: Path
    labelled_at: float | None
    annotator: str
    scores: Mapping[str, float]


def read_records(folder: Path) -> list[ImageRecord]:
    """The images of a datastore, by id; none where the folder is no datastore yet.

    What is missing or of another shape than MONAI Label writes is left out: this is for a page that people
    look at, and not for anything that must not be wrong.
    """
    try:
        objects = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["objects"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if not isinstance(objects, dict):
        return []
    return [_record(folder, name, item) for name, item in sorted(objects.items()) if isinstance(item, dict)]


def _record(folder: Path, name: str, item: Mapping[str, Any]) -> ImageRecord:
    image = _table(item.get("image"))
    label = _table(_table(item.get("labels")).get(FINAL))
    info = _table(label.get("info"))
    return ImageRecord(
        id=name,
        path=folder / f"{name}{image.get('ext', '')}",
        labelled_at=(_number(info.get("ts")) or 0.0) if label else None,
        annotator=annotator_of(info),
        scores={**_numbers(_table(image.get("info"))), **_numbers(info)},
    )


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(info: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an info, those of tables in it by ``table.name``."""
    found = {}
    for name, value in info.items():
        if isinstance(value, Mapping):
            found.update({f"{name}.{inner}": number for inner, number in _numbers(value).items()})
        elif (number := _number(value)) is not None:
            found[name] = number
    return found


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    with contextlib.suppress(OverflowError):
        return float(value)
    return None
