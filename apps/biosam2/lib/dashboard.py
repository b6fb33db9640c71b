"""``python -m lib.dashboard --studies FOLDER``: one page about the labels of a datastore and its model.

Labels over time, learning curve, corrections, and the images with the highest uncertainty. MONAI Label's
record of the folder is only read.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lib.engine.download import MODEL_DIR
from lib.engine.model_versions import Version, Versions
from lib.errors import BioSam2Error
from lib.evaluation.cases import LABELS, read_record
from lib.images.reading import read_image
from lib.labels.labelled_slices import image_frames
from lib.labels.values import annotator_of
from lib.reports.figures import box_plot, curves
from lib.reports.page import Page
from lib.reports.pictures import Tile, contact_sheet, outlined, png_bytes
from lib.scoring.store import ImageScore, ScoreStore, scores_folder
from lib.settings import Settings
from lib.trainers.validation import SCORED

logger = logging.getLogger(__name__)

OVERVIEW_FILE = "overview.html"
UNSURE_SHOWN = 12  # number of thumbnails, in two rows of six
_COLUMNS = 6
_TILE = 150  # pixels
# Key of the score for the agreement of the model with accepted labels.
DICE = "dice"
_HOUR_S = 3600.0
# Kinds of prompts in the learning curve.
SHOWN = ("dice", *SCORED)


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
    entries = sorted(read_record(folder).items())
    return [_record(folder, name, item) for name, item in entries if isinstance(item, dict)]


def _record(folder: Path, name: str, item: Mapping[str, Any]) -> ImageRecord:
    image = _table(item.get("image"))
    label = _table(_table(item.get("labels")).get(LABELS.name))
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


def write_overview(studies: Path, model_dir: Path, output: Path, max_voxels: int) -> None:
    """Writes the dashboard as one self-contained HTML page.

    Raises:
        OSError: The page cannot be written.
    """
    records = read_records(studies)
    page = Page("Labelling progress")
    _add_numbers(page, records, model_dir)
    _add_labels(page, records)
    _add_model(page, model_dir)
    _add_corrections(page, records)
    _add_unsure(page, records, ScoreStore(scores_folder(model_dir, studies)), max_voxels)
    page.write(output)


def _add_numbers(page: Page, records: Sequence[ImageRecord], model_dir: Path) -> None:
    labelled = [record for record in records if record.labelled_at is not None]
    versions = Versions(model_dir)
    pairs: list[tuple[str, str | int | float | None]] = [
        ("Images", len(records)),
        ("Labelled", len(labelled)),
        ("Annotators", len({record.annotator for record in labelled if record.annotator})),
        ("Model versions", len(versions.names())),
        ("In service", versions.current() or "base weights"),
    ]
    page.key_values(pairs)


def _add_labels(page: Page, records: Sequence[ImageRecord]) -> None:
    page.heading("Labels over time")
    if series := labels_over_time(records):
        page.picture(
            curves(series, "hours since the first label", "labelled images"), "Labelled images over time"
        )
    else:
        page.paragraph("No labels yet.")


def _add_model(page: Page, model_dir: Path) -> None:
    page.heading("Learning curve")
    store = Versions(model_dir)
    versions = []
    for name in store.names():
        try:
            versions.append(store.read(name))
        except BioSam2Error as error:
            logger.warning("Left out of the dashboard: %s", error)
    if not versions:
        page.paragraph("No published training yet.")
        return
    if series := learning_curve(versions):
        figure = curves(series, "training images", "Dice on held-out images", y_limits=(0, 1))
        page.picture(figure, "Dice over the number of training images")
    page.table(
        ["Version", "Created", "Parent", "Images", "Dice before", "Dice after"],
        version_rows(versions, store.current()),
    )


def _add_corrections(page: Page, records: Sequence[ImageRecord]) -> None:
    page.heading("Corrections")
    scored = [(record.scores[DICE], record.id) for record in records if DICE in record.scores]
    if not scored:
        page.paragraph("No comparison of the model with accepted labels yet: run scoring.")
        return
    page.paragraph("Dice of the model's answer with the accepted label; 1 means that nothing was corrected.")
    page.picture(
        box_plot({"accepted labels": [value for value, _ in scored]}, "Dice", limits=(0, 1)),
        "Spread of the Dice between the model and accepted labels",
    )
    rows = [[name, f"{value:.3f}", f"{1 - value:.3f}"] for value, name in sorted(scored)]
    page.table(["Image", "Dice", "Corrected (1 - Dice)"], rows, "Most corrected first")


def _add_unsure(page: Page, records: Sequence[ImageRecord], store: ScoreStore, max_voxels: int) -> None:
    page.heading("Highest uncertainty")
    unlabelled = [record for record in records if record.labelled_at is None]
    scored = [(score, record) for record in unlabelled if (score := store.get(record.id)) is not None]
    if not scored:
        page.paragraph("No score of an unlabelled image yet: run scoring.")
        return
    scored.sort(key=lambda pair: pair[0].score, reverse=True)
    tiles = [_thumbnail(record, score, max_voxels) for score, record in scored[:UNSURE_SHOWN]]
    shown = [tile for tile in tiles if tile is not None]
    if shown:
        rows = [shown[start : start + _COLUMNS] for start in range(0, len(shown), _COLUMNS)]
        page.picture(png_bytes(contact_sheet(rows)), "Unlabelled images with the highest uncertainty")
    page.table(
        ["Image", "Uncertainty", "Slice", "Found"],
        [
            [record.id, f"{score.score:.3f}", score.slice_index, ", ".join(score.labels)]
            for score, record in scored
        ],
        "Highest uncertainty first",
    )


def _thumbnail(record: ImageRecord, score: ImageScore, max_voxels: int) -> Tile | None:
    try:
        image = read_image(record.path, max_voxels)
        frame = image_frames(image)[score.slice_index]
    except (BioSam2Error, IndexError) as error:
        logger.warning("No thumbnail of %s: %s", record.id, error)
        return None
    return Tile(outlined(frame, {}, side=_TILE), f"{score.score:.2f}, slice {score.slice_index}\n{record.id}")


def main(argv: list[str] | None = None) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(prog="python -m lib.dashboard", description="Describes a datastore.")
    parser.add_argument("--studies", type=Path, required=True, help="folder of the datastore")
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR, help="the folder with registry.yaml")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "report.html")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not options.studies.is_dir():
        parser.error(f"Folder {options.studies} does not exist; use the server's --studies folder")
    write_overview(options.studies, options.model_dir, options.output, Settings().max_voxels)
    logger.info("Written: %s", options.output)


if __name__ == "__main__":
    main()
