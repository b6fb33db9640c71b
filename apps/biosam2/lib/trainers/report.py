"""Report of a training: Dice before and after, course, example masks, reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lib.metrics.calibration import expected_calibration_error, reliability_diagram
from lib.metrics.overlap import dice
from lib.reports.figures import curves
from lib.reports.overlay import outlined, png_bytes
from lib.reports.page import Page
from lib.reports.sheet import Tile, contact_sheet
from lib.trainers.training_state import TrainingResult, TrainingState
from lib.trainers.validation import CLICK, FAR, Measurement, ValidationTarget

REPORT_FILE = "report.html"
# Number of example objects, evenly spaced from the largest gain to the largest loss.
PICTURES = 8
_TILE = 260  # pixels
_MEANINGS = {FAR: "a click far from the object must not segment it: lower is better"}


def write_report(path: Path, result: TrainingResult) -> None:
    """Writes the report as one self-contained HTML page.

    Args:
        path: HTML file.
        result: Result of the training.
    """
    page = Page(f"Fine-tuning of {result.plan.weights.name}")
    accepted, reason = result.acceptance.accepted, result.acceptance.reason
    page.paragraph(f"{'Published' if accepted else 'Rejected'}: {reason}.")
    page.heading("Before and after, on held-out images")
    page.table(["Prompt", "Before", "After", "Change", ""], _comparison(result.before, result.after))
    if pictures := _pictures(result.before, result.after):
        page.picture(pictures, "Held-out objects with the masks of one click before and after the training")
    _add_course(page, result.state)
    _add_reliability(page, result)
    page.heading("Images")
    rows = [[item["image"], item["side"], item.get("frames"), _remark(item)] for item in result.data]
    page.table(["Image", "Side", "Frames", "Labels, or reason for leaving it out"], rows)
    page.heading("Options")
    page.key_values({name: str(value) for name, value in result.plan.options.model_dump().items()})
    page.write(path)


def _comparison(before: Measurement, after: Measurement) -> list[list[str]]:
    rows = [("mean", before.score, after.score)]
    rows += [(kind, value, after.means[kind]) for kind, value in before.means.items() if kind in after.means]
    return [
        [name, f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}", _MEANINGS.get(name, "")]
        for name, old, new in rows
    ]


def _add_course(page: Page, state: TrainingState) -> None:
    if not state.history:
        return
    page.heading("Course")
    page.paragraph(
        f"{state.epoch} epochs, {state.seconds / 60:.1f} minutes; epoch {state.best_epoch} was the best. The "
        f"result has {state.learned_share:.0%} of the learned weights, the rest are the start weights."
    )
    dice_series = {
        kind: [(item["epoch"], item["means"][kind]) for item in state.history if kind in item["means"]]
        for kind in state.history[-1]["means"]
    }
    page.picture(
        curves(dice_series, "epoch", "Dice", "On held-out images", y_limits=(0, 1)), "Dice over the epochs"
    )
    losses = {
        name: [(item["epoch"], item["loss"][name]) for item in state.history if name in item["loss"]]
        for name in ("total", "dice", "bce", "occlusion", "iou")
    }
    page.picture(curves(losses, "epoch", "loss", "In training"), "Losses over the epochs")


def _add_reliability(page: Page, result: TrainingResult) -> None:
    """Reliability diagram of the confidence, before and after its calibration."""
    predicted, true = result.after.confidences, result.after.ious
    if not predicted:
        return
    calibrated = [result.calibration(value) for value in predicted]
    page.heading("Reliability of the confidence")
    page.paragraph(
        f"Predicted IoU times probability of presence against the true IoU of {len(predicted)} masks on "
        "held-out images. Expected calibration error "
        f"{expected_calibration_error(predicted, true):.3f}, with the fitted calibration "
        f"{expected_calibration_error(calibrated, true):.3f} (on the masks that it was fitted on)."
    )
    series = {
        name: [(item.predicted, item.true) for item in reliability_diagram(values, true)]
        for name, values in (("as predicted", predicted), ("calibrated", calibrated))
    }
    series["ideal"] = [(0.0, 0.0), (1.0, 1.0)]
    figure = curves(series, "predicted", "true IoU", y_limits=(0, 1))
    page.picture(figure, "Reliability diagram: true IoU over predicted confidence")


def _pictures(before: Measurement, after: Measurement) -> bytes | None:
    """Contact sheet of held-out objects, from the largest gain to the largest loss."""
    changes = []
    for target in before.masks.keys() & after.masks.keys():
        old, new = (dice(found.masks[target], target.truth) for found in (before, after))
        changes.append((new - old, target.image.id, target.frame, target.value, target, old, new))
    if not changes:
        return None
    changes.sort(key=lambda change: change[:4], reverse=True)
    step = max(1.0, (len(changes) - 1) / (PICTURES - 1))
    chosen = [changes[round(place * step)] for place in range(min(PICTURES, len(changes)))]
    tiles = [
        Tile(_overlay(target, before, after), f"{target.name}: {old:.2f} to {new:.2f}\n{target.place}")
        for *_, target, old, new in chosen
    ]
    half = (len(tiles) + 1) // 2
    sheet = contact_sheet(
        [tiles[:half], tiles[half:]],
        heading=f"Dice of {CLICK}, from the largest gain to the largest loss",
        legend=("truth", "before", "after"),
    )
    return png_bytes(sheet)


def _overlay(target: ValidationTarget, before: Measurement, after: Measurement) -> np.ndarray:
    masks = {"truth": target.truth, "before": before.masks[target], "after": after.masks[target]}
    return outlined(target.image[target.frame], masks, side=_TILE, fill=0.0)


def _remark(item: Mapping[str, object]) -> str:
    if "reason" in item:
        return str(item["reason"])
    labels = item["labels"]
    return ", ".join(labels) if isinstance(labels, list) else str(labels)
