"""The page: labels over time, what the model is worth, and which images it is least sure of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lib.dashboard.history import labels_over_time, learning_curve, version_rows
from lib.dashboard.records import ImageRecord, read_records
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
UNSURE_SHOWN = 12  # images with a thumbnail: two rows of six
_COLUMNS = 6
_TILE = 150  # pixels
_AXIS = 2
# What scoring calls the overlap of the model's answer with what people accepted.
DICE = "dice"


def write_overview(studies: Path, model_dir: Path, output: Path, max_voxels: int) -> None:
    """Writes one page that needs no other file.

    Args:
        studies: folder of the datastore.
        model_dir: of the registry, the versions and the scores.
        output: the page.
        max_voxels: largest image that is opened for a thumbnail.

    Raises:
        OSError: the page cannot be written.
    """
    records = read_records(studies)
    page = Page("How the labelling goes")
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
        ("Versions of the model", len(versions.names())),
        ("In service", versions.current() or "the weights before any training"),
    ]
    page.key_values(pairs)


def _add_labels(page: Page, records: Sequence[ImageRecord]) -> None:
    page.heading("Labels over time")
    if series := labels_over_time(records):
        page.picture(
            curves(series, "hours since the first label", "labelled images"), "Labelled images over time"
        )
    else:
        page.paragraph("Nothing was labelled yet.")


def _add_model(page: Page, model_dir: Path) -> None:
    page.heading("Learning curve")
    store = Versions(model_dir)
    versions = []
    for name in store.names():
        try:
            versions.append(store.read(name))
        except BioSam2Error as error:
            logger.warning("Left out of the overview: %s", error)
    if not versions:
        page.paragraph("No training was published yet.")
        return
    if series := learning_curve(versions):
        figure = curves(series, "images learned from", "Dice on held-out images", y_limits=(0, 1))
        page.picture(figure, "Dice over the images that were learned from")
    page.table(
        ["Version", "When", "From", "Images", "Dice before", "Dice after"],
        version_rows(versions, store.current()),
    )


def _add_corrections(page: Page, records: Sequence[ImageRecord]) -> None:
    page.heading("Model and people")
    scored = [(record.scores[DICE], record.id) for record in records if DICE in record.scores]
    if not scored:
        page.paragraph("The model's answers were not compared with the accepted labels yet: run scoring.")
        return
    page.paragraph(
        "Dice of the model's answer with the label that a person accepted: 1 is nothing corrected."
    )
    page.picture(
        box_plot({"accepted labels": [value for value, _ in scored]}, "Dice", limits=(0, 1)),
        "Spread of the Dice between the model and accepted labels",
    )
    rows = [[name, f"{value:.3f}", f"{1 - value:.3f}"] for value, name in sorted(scored)]
    page.table(["Image", "Dice", "Corrected (1 - Dice)"], rows, "Most corrected first")


def _add_unsure(page: Page, records: Sequence[ImageRecord], store: ScoreStore, max_voxels: int) -> None:
    page.heading("Where the model is least sure")
    waiting = [record for record in records if record.labelled_at is None]
    scored = [(score, record) for record in waiting if (score := store.get(record.id)) is not None]
    if not scored:
        page.paragraph("No image without a label was scored yet.")
        return
    scored.sort(key=lambda pair: pair[0].score, reverse=True)
    tiles = [_thumbnail(record, score, max_voxels) for score, record in scored[:UNSURE_SHOWN]]
    shown = [tile for tile in tiles if tile is not None]
    if shown:
        rows = [shown[start : start + _COLUMNS] for start in range(0, len(shown), _COLUMNS)]
        page.picture(png_bytes(contact_sheet(rows)), "The images that the model is least sure of")
    page.table(
        ["Image", "Uncertainty", "Slice", "Found"],
        [
            [record.id, f"{score.score:.3f}", score.slice_index, ", ".join(score.labels)]
            for score, record in scored
        ],
        "Least sure first",
    )


def _thumbnail(record: ImageRecord, score: ImageScore, max_voxels: int) -> Tile | None:
    try:
        image = read_image(record.path, max_voxels)
        frame = FrameStack(image.array, _AXIS, image.window())[score.slice_index]
    except (BioSam2Error, IndexError) as error:
        logger.warning("No thumbnail of %s: %s", record.id, error)
        return None
    return Tile(outlined(frame, {}, side=_TILE), f"{score.score:.2f}, slice {score.slice_index}\n{record.id}")
