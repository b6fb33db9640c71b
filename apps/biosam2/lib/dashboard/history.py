"""Labels and versions over time: the record of MONAI Label's folder, read only, and series for figures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lib.engine.model_versions import Version
from lib.labels.names import annotator_of
from lib.trainers.validation import SCORED

_HOUR_S = 3600.0
# Kinds of prompts in the learning curve.
SHOWN = ("dice", *SCORED)
RECORD_FILE = "datastore_v2.json"
FINAL = "final"


@dataclass(frozen=True)
class ImageRecord:
    """One image of a datastore.

    Attributes:
        id: Image id.
        path: Image file.
        labelled_at: Time of saving of the final label in seconds since 1970; None without a label.
        annotator: Name of the annotator; empty if unknown.
        scores: Numbers from scoring about the image and its final label, by name.
    """

    id: str
    path: Path
    labelled_at: float | None
    annotator: str
    scores: Mapping[str, float]


def read_records(folder: Path) -> list[ImageRecord]:
    """Images of a datastore, by id; empty if the folder has no record yet.

    Entries that do not have MONAI Label's structure are left out; the result is for display only.
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
    """Numbers of an info; those of nested tables as ``table.name``."""
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


def labels_over_time(records: Sequence[ImageRecord]) -> dict[str, list[tuple[float, float]]]:
    """Number of labelled images by hours since the first label, in total and by annotator.

    Names end with the count, ``all (3)``, so that an annotator named *all* is no clash.
    """
    times = sorted((record.labelled_at, record.annotator) for record in records if record.labelled_at)
    if not times:
        return {}
    first, _ = times[0]
    named = sorted({annotator for _, annotator in times if annotator})
    lines = [("all", times)]
    if len(named) > 1:
        lines += [(name, [item for item in times if item[1] == name]) for name in named]
    return {
        f"{name} ({len(line)})": [
            ((at - first) / _HOUR_S, float(count)) for count, (at, _) in enumerate(line, 1)
        ]
        for name, line in lines
    }


def learning_curve(versions: Sequence[Version]) -> dict[str, list[tuple[float, float]]]:
    """Dice on held-out images over the number of training images, by kind of prompt.

    The point at 0 images is the Dice before the first training.
    """
    measured = [version for version in versions if "after" in version.metrics]
    if not measured:
        return {}
    series: dict[str, list[tuple[float, float]]] = {}
    for kind in SHOWN:
        before = measured[0].metrics.get("before", {}).get(kind)
        points = [(0.0, float(before))] if before is not None else []
        for version in measured:
            if (value := version.metrics["after"].get(kind)) is not None:
                points.append((float(_training_images(version)), float(value)))
        if points:
            series["mean" if kind == "dice" else kind] = sorted(points)
    return series


def version_rows(versions: Sequence[Version], current: str | None) -> list[list[str | int | float | None]]:
    """Table rows, newest version first: name, time, parent, training images, Dice before and after."""
    rows: list[list[str | int | float | None]] = []
    for version in reversed(versions):
        before, after = (version.metrics.get(when, {}).get("dice") for when in ("before", "after"))
        rows.append(
            [
                f"{version.name} (in service)" if version.name == current else version.name,
                _day(version.created),
                version.parent or version.base,
                _training_images(version) or None,
                None if before is None else f"{before:.3f}",
                None if after is None else f"{after:.3f}",
            ]
        )
    return rows


def _training_images(version: Version) -> int:
    return sum(item.get("side") == "train" for item in version.data)


def _day(created: str) -> str:
    try:
        return datetime.fromisoformat(created).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return created
