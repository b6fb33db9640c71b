"""Publishing of weights as versions: fine-tuned ones after a comparison, and uploaded ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from lib.engine.builder import described, load_network
from lib.engine.checkpoints import Weights, sha256_of
from lib.engine.model_versions import CONFIG_FILE, WEIGHTS_FILE, Version, Versions, save_weights
from lib.engine.network import Network
from lib.engine.registry import DeviceType, Registry
from lib.errors import CheckpointError
from lib.metrics.calibration import Calibration, expected_calibration_error, fit_calibration
from lib.trainers.acceptance import Acceptance, judge
from lib.trainers.config import TrainingPlan
from lib.trainers.progress import EVENTS_FOLDER, TrainingProgress
from lib.trainers.report import REPORT_FILE, write_report
from lib.trainers.training_state import TrainingResult
from lib.trainers.validation import Measurement


def publish(
    result: TrainingResult,
    network: Network,
    measured: Callable[[Weights], Measurement],
    progress: TrainingProgress,
) -> None:
    """Writes the weights as a version, measures the file, and puts it in service if it is better.

    If other weights came into service since the training began, the version is stored but not served: it was
    not compared with them.

    Args:
        result: Result of the training; its measurement after the training is made here.
        network: Network with the best parameters.
        measured: Measures a checkpoint on the validation targets.
        progress: Progress of the training, which ends here.
    """
    plan, versions = result.plan, Versions(result.plan.model_dir)
    with versions.new_folder() as folder:
        weights = _write(plan, network, folder)
        result.after = measured(weights)
        result.acceptance = judge(result.before, result.after, plan.options.min_gain)
        result.calibration = _calibration(result.after)
        is_better, name = result.acceptance.accepted, plan.service.name
        with versions.unchanged():
            if (current := versions.current()) != plan.published:
                name = current or plan.service.base
                result.acceptance = _overtaken(result.acceptance, name)
            write_report(folder / REPORT_FILE, result)
            shutil.copy(folder / REPORT_FILE, plan.folder / REPORT_FILE)
            if is_better:
                shutil.copytree(progress.events, folder / EVENTS_FOLDER, dirs_exist_ok=True)
                version = versions.add(folder, {**_record(result, weights), "before": current})
            if result.acceptance.accepted:
                versions.switch(version.name)
                name = version.name
    _report_end(result, name, version.name if is_better else None, progress)


def _calibration(measurement: Measurement) -> Calibration:
    """Calibration of predicted IoU times presence, fitted on the validation targets."""
    fitted = fit_calibration(measurement.confidences, measurement.ious)
    return replace(fitted, images=len({target.image.id for target in measurement.masks}))


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
    facts = {"after": result.after.summary, "best_metric": result.after.score}
    progress.end(
        "published" if accepted else "kept",
        message,
        published=accepted,
        reason=reason,
        version=serving,
        **facts,
    )


def _overtaken(acceptance: Acceptance, name: str) -> Acceptance:
    """Withdraws an acceptance, since other weights came into service meanwhile."""
    if not acceptance.accepted:
        return acceptance
    reason = f"{acceptance.reason}, but {name} came into service meanwhile and was not compared"
    return Acceptance(False, reason)


def _write(plan: TrainingPlan, network: Network, folder: Path) -> Weights:
    """Writes the checkpoint of a future version."""
    _copy_config(plan.weights, folder)
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


def _copy_config(weights: Weights, folder: Path) -> None:
    if weights.config is None:
        raise CheckpointError(f"{weights.name} has no network configuration")
    shutil.copy(weights.config, folder / CONFIG_FILE)


def _record(result: TrainingResult, weights: Weights) -> dict[str, Any]:
    """Record of a future version, without its predecessor."""
    plan, state, after = result.plan, result.state, result.after
    calibration: Calibration = result.calibration
    return {
        "base": plan.weights.base,
        "parent": plan.weights.version,
        "image_size": weights.image_size,
        "rendered_prompts": weights.rendered_prompts,
        "sha256": weights.sha256,
        "created": _now(),
        "metrics": {
            "verdict": result.acceptance.reason,
            "before": result.before.summary,
            "after": after.summary,
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "blend": state.learned_share,
            "seconds": round(state.seconds, 1),
            "calibration_error": round(expected_calibration_error(after.confidences, after.ious), 4),
        },
        "calibration": calibration.to_json(),
        "options": plan.options.model_dump(),
        "data": result.data,
    }


def publish_upload(source: BinaryIO, service: Weights, registry: Registry, device: DeviceType) -> Version:
    """Puts an uploaded checkpoint in service as a new version; the former one stays available.

    Args:
        source: Checkpoint file.
        service: Weights in service; the checkpoint must fit their network.
        registry: Registry of the model folder.
        device: Device type of the server.

    Raises:
        CheckpointError: The checkpoint cannot be read, holds more than tensors, or fits another network.
    """
    versions = Versions(registry.folder)
    with versions.new_folder() as folder:
        path = folder / WEIGHTS_FILE
        with path.open("wb") as file:
            shutil.copyfileobj(source, file)
        known = described(service, registry, device)
        _copy_config(known, folder)
        weights = replace(known, name="the uploaded file", path=path, sha256=None)
        network = load_network(weights, registry, device)
        record = {
            "base": known.base,
            "parent": known.version,
            "image_size": int(network.image_size),
            "rendered_prompts": known.rendered_prompts,
            "sha256": sha256_of(path),
            "created": _now(),
            "metrics": {"verdict": "uploaded, not measured"},
        }
        with versions.unchanged():
            version = versions.add(folder, {**record, "before": versions.current()})
            versions.switch(version.name)
        return version


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
