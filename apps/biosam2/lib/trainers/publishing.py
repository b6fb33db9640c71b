"""Publishing of weights as versions: fine-tuned ones with a report, and uploaded ones."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lib.engine.auto_head import HEAD_FILE
from lib.engine.builder import described, load_network
from lib.engine.checkpoints import Weights, sha256_of
from lib.engine.model_versions import CONFIG_FILE, WEIGHTS_FILE, Version, Versions, save_weights
from lib.engine.network import Network
from lib.engine.openvino_export import convert_in_child
from lib.engine.openvino_parts import parts_folder
from lib.engine.registry import DeviceType, Registry
from lib.errors import CheckpointError
from lib.metrics.calibration import (
    IDENTITY,
    Calibration,
    expected_calibration_error,
    fit_calibration,
    reliability_diagram,
)
from lib.metrics.segmentation import dice
from lib.reports.figures import curves
from lib.reports.page import Page
from lib.reports.pictures import Tile, contact_sheet, outlined, png_bytes
from lib.trainers.config import TrainingPlan
from lib.trainers.progress import EVENTS_FOLDER, TrainingProgress
from lib.trainers.validation import CLICK, FAR, Acceptance, Measurement, judge

NOT_MEASURED = Acceptance(False, "not measured")


@dataclass
class TrainingState:
    """Progress of a training so far.

    Attributes:
        epoch: Number of completed epochs.
        best: Trained parameters after the best epoch, by name; None before the first epoch.
        best_score: Mean Dice after the best epoch.
        best_is_acceptable: Whether the best epoch would be published. An acceptable epoch is better than one
            with a higher score that is not.
        best_epoch: Number of the best epoch.
        learned_share: Share of the learned weights in the result, 0 to 1; the rest are the start weights.
        history: Number, ``loss`` by part, ``means`` by kind of prompt, and ``score`` of each epoch.
        seconds: Training time, including the time before an interruption.
    """

    epoch: int = 0
    best: dict[str, torch.Tensor] | None = None
    best_score: float = -1.0
    best_is_acceptable: bool = False
    best_epoch: int = 0
    learned_share: float = 1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class TrainingResult:
    """Everything that the report and the record of a version contain.

    Attributes:
        data: Record of each image: id, side, frames, labels, or the reason why it was left out.
        before: Measurement of the weights in service.
        after: Measurement of the result.
        calibration: Calibration of predicted IoU times presence, fitted on the validation targets.
    """

    plan: TrainingPlan
    state: TrainingState
    data: list[dict[str, Any]]
    before: Measurement
    after: Measurement = field(default_factory=lambda: Measurement({}))
    acceptance: Acceptance = NOT_MEASURED
    calibration: Calibration = IDENTITY


REPORT_FILE = "report.html"
# Number of example objects, evenly spaced from the largest gain to the largest loss.
PICTURES = 8
_TILE = 260  # pixels
_MEANINGS = {FAR: "a click far from the object must not segment it: lower is better"}


def write_report(path: Path, result: TrainingResult) -> None:
    """Writes the report as one self-contained HTML page."""
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
    rows = [
        [item["image"], item["side"], item.get("frames"), item.get("reason") or ", ".join(item["labels"])]
        for item in result.data
    ]
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
        Tile(
            outlined(
                target.image[target.frame],
                {"truth": target.truth, "before": before.masks[target], "after": after.masks[target]},
                side=_TILE,
                fill=0.0,
            ),
            f"{target.name}: {old:.2f} to {new:.2f}\n{target.place}",
        )
        for *_, target, old, new in chosen
    ]
    half = (len(tiles) + 1) // 2
    sheet = contact_sheet(
        [tiles[:half], tiles[half:]],
        heading=f"Dice of {CLICK}, from the largest gain to the largest loss",
        legend=("truth", "before", "after"),
    )
    return png_bytes(sheet)


logger = logging.getLogger(__name__)


def publish(
    result: TrainingResult,
    network: Network,
    measured: Callable[[Weights], Measurement],
    progress: TrainingProgress,
) -> None:
    """Writes the weights as a version, measures the file, and puts it in service if it is better.

    If other weights came into service since the training began, the version is stored but not served: it was
    not compared with them.

    ``network`` has the best parameters; ``measured`` measures a checkpoint on the validation targets. The
    progress ends here.
    """
    plan, versions = result.plan, Versions(result.plan.model_dir)
    with versions.new_folder() as folder:
        weights = _write(plan, network, folder)
        result.after = measured(weights)
        result.acceptance = judge(result.before, result.after, plan.options.min_gain)
        fitted = fit_calibration(result.after.confidences, result.after.ious)
        result.calibration = replace(fitted, images=len({target.image.id for target in result.after.masks}))
        is_better, name = result.acceptance.accepted, plan.service.name
        if is_better and plan.convert_for is not None:
            progress.note("Converting the weights for OpenVINO")
            _convert(weights, plan.model_dir, plan.convert_for)
        with versions.unchanged():
            if (current := versions.current()) != plan.published:
                name = current or plan.service.base
                if is_better:
                    overtaken = f"but {name} came into service meanwhile and was not compared"
                    result.acceptance = Acceptance(False, f"{result.acceptance.reason}, {overtaken}")
            write_report(folder / REPORT_FILE, result)
            shutil.copy(folder / REPORT_FILE, plan.folder / REPORT_FILE)
            if is_better:
                shutil.copytree(progress.events, folder / EVENTS_FOLDER, dirs_exist_ok=True)
                version = versions.add(folder, {**_record(result, weights), "before": current})
            if result.acceptance.accepted:
                versions.switch(version.name)
                name = version.name
    _report_end(result, name, version.name if is_better else None, progress)


def _convert(weights: Weights, model_dir: Path, dtype: torch.dtype) -> None:
    """Converts the weights for OpenVINO before they come into service; without that, torch serves them."""
    size = weights.image_size or 0
    try:
        convert_in_child(weights, model_dir, dtype, parts_folder(weights, str(weights.sha256), size, dtype))
    except (CheckpointError, OSError) as error:
        logger.warning("%s", error)


def _report_end(
    result: TrainingResult, serving: str, version: str | None, progress: TrainingProgress
) -> None:
    accepted, reason = result.acceptance.accepted, result.acceptance.reason
    if accepted:
        message = f"Published: {serving} is in service; {reason}"
    else:
        message = f"Rejected: {serving} stays in service; {reason}"
    if version is not None and not accepted:
        message += f"; train again, or start the server with --conf rollback {version}"
    facts = {"after": result.after.summary, "best_metric": result.after.score, "version": serving}
    progress.end("published" if accepted else "kept", message, published=accepted, reason=reason, **facts)


def _write(plan: TrainingPlan, network: Network, folder: Path) -> Weights:
    """Writes the checkpoint of a future version."""
    copy_config(plan.weights, folder)
    parent = Versions(plan.model_dir).folder(plan.weights.version or "")
    # A head stays where the features are those that it was trained on (preset ``auto_head``).
    is_same = plan.options.is_encoder_frozen and int(network.image_size) == plan.weights.image_size
    if is_same and (parent / HEAD_FILE).is_file():
        shutil.copy(parent / HEAD_FILE, folder / HEAD_FILE)
    save_weights(folder / WEIGHTS_FILE, network.state_dict())
    return replace(
        plan.weights,
        name="the fine-tuned weights",
        path=folder / WEIGHTS_FILE,
        config=folder / CONFIG_FILE,
        image_size=int(network.image_size),
        sha256=sha256_of(folder / WEIGHTS_FILE),
        meta_settings=False,
        single_mask=True,
    )


def copy_config(weights: Weights, folder: Path) -> None:
    """Copies the network's configuration beside the weights of a future version."""
    if weights.config is None:
        raise CheckpointError(f"{weights.name} has no network configuration")
    shutil.copy(weights.config, folder / CONFIG_FILE)


def version_record(weights: Weights, **facts: Any) -> dict[str, Any]:
    """Record of a future version that comes from some weights, with facts in place of theirs."""
    return {
        "base": weights.base,
        "parent": weights.version,
        "image_size": weights.image_size,
        "rendered_prompts": weights.rendered_prompts,
        "sha256": weights.sha256 or "",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **facts,
    }


def _record(result: TrainingResult, weights: Weights) -> dict[str, Any]:
    """Record of a future version, without its predecessor."""
    state, after = result.state, result.after
    metrics = {
        "verdict": result.acceptance.reason,
        "before": result.before.summary,
        "after": after.summary,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "blend": state.learned_share,
        "seconds": round(state.seconds, 1),
        "calibration_error": round(expected_calibration_error(after.confidences, after.ious), 4),
    }
    return version_record(
        weights,
        metrics=metrics,
        calibration=result.calibration.to_json(),
        options=result.plan.options.model_dump(),
        data=result.data,
    )


def publish_upload(source: BinaryIO, service: Weights, registry: Registry, device: DeviceType) -> Version:
    """Puts an uploaded checkpoint in service as a new version; the former one stays available.

    Raises:
        CheckpointError: The checkpoint cannot be read, holds more than tensors, or does not fit the network
            in service.
    """
    versions = Versions(registry.folder)
    with versions.new_folder() as folder:
        path = folder / WEIGHTS_FILE
        with path.open("wb") as file:
            shutil.copyfileobj(source, file)
        known = described(service, registry, device)
        copy_config(known, folder)
        weights = replace(known, name="the uploaded file", path=path, sha256=None)
        network = load_network(weights, registry, device)
        record = version_record(
            known,
            image_size=int(network.image_size),
            sha256=sha256_of(path),
            metrics={"verdict": "uploaded, not measured"},
        )
        with versions.unchanged():
            version = versions.add(folder, {**record, "before": versions.current()})
            versions.switch(version.name)
        return version
