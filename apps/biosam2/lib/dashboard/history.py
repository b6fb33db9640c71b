"""Series over time: labels, and what each version of the model was worth."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from lib.dashboard.records import ImageRecord
from lib.engine.model_versions import Version
from lib.trainers.validation import SCORED

_HOUR_S = 3600.0
# The kinds of prompt whose course is shown.
SHOWN = ("dice", *SCORED)


def labels_over_time(records: Sequence[ImageRecord]) -> dict[str, list[tuple[float, float]]]:
    """Labelled images by hours since the first, for all together and for each annotator.

    A line's name ends with its count, ``all (3)``: an annotator may be called anything, also *all*.
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
    """Dice on held-out images over the images that were learned from, by kind of prompt.

    The weights that the first version had to beat stand at 0 images.
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
                points.append((float(_learned_from(version)), float(value)))
        if points:
            series["all that count" if kind == "dice" else kind] = sorted(points)
    return series


def version_rows(versions: Sequence[Version], current: str | None) -> list[list[str | int | float | None]]:
    """A row for each version, newest first: name, when, from what, images, Dice before and after."""
    rows: list[list[str | int | float | None]] = []
    for version in reversed(versions):
        before, after = (version.metrics.get(when, {}).get("dice") for when in ("before", "after"))
        rows.append(
            [
                f"{version.name} (in service)" if version.name == current else version.name,
                _day(version.created),
                version.parent or version.base,
                _learned_from(version) or None,
                None if before is None else f"{before:.3f}",
                None if after is None else f"{after:.3f}",
            ]
        )
    return rows


def _learned_from(version: Version) -> int:
    return sum(item.get("side") == "train" for item in version.data)


def _day(created: str) -> str:
    try:
        return datetime.fromisoformat(created).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return created
