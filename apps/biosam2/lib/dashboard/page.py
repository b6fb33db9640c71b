"""The page: labels over time, learning curve, corrections, and the images with the highest uncertainty."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lib.dashboard.history import ImageRecord, labels_over_time, learning_curve, read_records, version_rows
from lib.engine.model_versions import Versions
from lib.errors import BioSam2Error
from lib.images.reading import read_image
from lib.reports.figures import box_plot, curves
from lib.reports.overlay import outlined, png_bytes
from lib.reports.page import Page
from lib.reports.sheet import Tile, contact_sheet
from lib.scoring.store import ImageScore, ScoreStore, scores_folder
from lib.transforms.frames import FrameStack

logger = logging.getLogger(__name__)

OVERVIEW_FILE = "overview.html"
UNSURE_SHOWN = 12  # number of thumbnails, in two rows of six
_COLUMNS = 6
_TILE = 150  # pixels
_AXIS = 2
# Key of the score for the agreement of the model with accepted labels.
DICE = "dice"


def write_overview(studies: Path, model_dir: Path, output: Path, max_voxels: int) -> None:
    """Writes the dashboard as one self-contained HTML page.

    Args:
        studies: Folder of the datastore.
        model_dir: Folder of the registry, the versions and the scores.
        output: HTML file.
        max_voxels: Limit of voxels in an image with a thumbnail.

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
        frame = FrameStack(image.array, _AXIS, image.window())[score.slice_index]
    except (BioSam2Error, IndexError) as error:
        logger.warning("No thumbnail of %s: %s", record.id, error)
        return None
    return Tile(outlined(frame, {}, side=_TILE), f"{score.score:.2f}, slice {score.slice_index}\n{record.id}")
