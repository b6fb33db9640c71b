"""The picture of a training: what it gained, how it went, and masks before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.metrics.overlap import dice
from lib.reports.figures import curves
from lib.reports.overlay import outlined, png_bytes
from lib.reports.page import Page
from lib.reports.sheet import Tile, contact_sheet
from lib.trainers.acceptance import Verdict
from lib.trainers.config import TrainingPlan
from lib.trainers.training_state import Course
from lib.trainers.validation import CLICK, FAR, Measurement, Target

REPORT_FILE = "report.html"
# Held-out objects that are shown: those that changed most for the better and for the worse, and some between.
PICTURES = 8
_TILE = 260  # pixels
_MEANINGS = {FAR: "a click far from the object: it should not find it, so this should be low"}


def write_report(
    path: Path,
    plan: TrainingPlan,
    before: Measurement,
    after: Measurement,
    course: Course,
    data: Sequence[Mapping[str, Any]],
    verdict: Verdict,
) -> None:
    """Writes one page that needs no other file.

    Args:
        path: of the page.
        plan: of the training.
        before: measurement of the weights in service.
        after: of the new ones, on the same objects.
        course: of the training.
        data: what is recorded of each image.
        verdict: whether they were published, and why.
    """
    page = Page(f"Fine-tuning of {plan.weights.name}")
    decision = "Published" if verdict.publish else "Not published: the weights in service stay"
    page.paragraph(f"{decision}. {verdict.reason}.")
    page.heading("Before and after, on held-out images")
    page.table(["Prompt", "Before", "After", "Change", ""], _comparison(before, after))
    if pictures := _pictures(before, after):
        page.picture(pictures, "Held-out objects with the masks of one click before and after the training")
    _add_course(page, course)
    page.heading("Images")
    rows = [[item["image"], item["side"], item.get("frames"), _remark(item)] for item in data]
    page.table(["Image", "Side", "Frames", "Labels, or why it was left out"], rows)
    page.heading("Options")
    page.key_values({name: str(value) for name, value in plan.options.model_dump().items()})
    page.write(path)


def _comparison(before: Measurement, after: Measurement) -> list[list[str]]:
    rows = [("all that count", before.score, after.score)]
    rows += [(kind, value, after.means[kind]) for kind, value in before.means.items() if kind in after.means]
    return [
        [name, f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}", _MEANINGS.get(name, "")]
        for name, old, new in rows
    ]


def _add_course(page: Page, course: Course) -> None:
    if not course.history:
        return
    page.heading("Course")
    page.paragraph(
        f"{course.epoch} epochs, {course.seconds / 60:.1f} minutes; the best was epoch {course.best_epoch}. "
        f"Published is {course.blend:.0%} of what was learned, the rest is what it started from."
    )
    dice_series = {
        kind: [(item["epoch"], item["means"][kind]) for item in course.history if kind in item["means"]]
        for kind in course.history[-1]["means"]
    }
    page.picture(
        curves(dice_series, "epoch", "Dice", "On held-out images", y_limits=(0, 1)), "Dice over the epochs"
    )
    losses = {
        name: [(item["epoch"], item["loss"][name]) for item in course.history if name in item["loss"]]
        for name in ("total", "dice", "bce", "occlusion", "iou")
    }
    page.picture(curves(losses, "epoch", "loss", "While learning"), "Losses over the epochs")


def _pictures(before: Measurement, after: Measurement) -> bytes | None:
    """Tiles of held-out objects, from the one that gained most to the one that lost most."""
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
        heading=f"Dice of {CLICK}, most gained to most lost",
        legend=("truth", "before", "after"),
    )
    return png_bytes(sheet)


def _overlay(target: Target, before: Measurement, after: Measurement) -> Any:
    masks = {"truth": target.truth, "before": before.masks[target], "after": after.masks[target]}
    return outlined(target.image[target.frame], masks, side=_TILE, fill=0.0)


def _remark(item: Mapping[str, Any]) -> str:
    return str(item["reason"]) if "reason" in item else ", ".join(item["labels"])
