"""The end of a training: the new weights as they would be served are measured, and published if they won."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lib.engine.checkpoints import Weights, sha256_of
from lib.engine.model_versions import CONFIG_FILE, WEIGHTS_FILE, Versions, save_weights
from lib.engine.network import Network
from lib.trainers.acceptance import Verdict, judge
from lib.trainers.config import TrainingPlan
from lib.trainers.progress import EVENTS_FOLDER, Progress
from lib.trainers.report import REPORT_FILE, write_report
from lib.trainers.training_state import Course
from lib.trainers.validation import Measurement


def publish(
    plan: TrainingPlan,
    network: Network,
    before: Measurement,
    measured: Callable[[Weights], Measurement],
    course: Course,
    data: list[dict[str, Any]],
    progress: Progress,
) -> None:
    """Writes the weights beside those in service, measures the file, and serves it if it is better.

    Where others were put in service since the training began, it is a version that is not served: against
    those it was not measured, and a person chose them.

    Args:
        plan: of the training.
        network: with the best parameters.
        before: measurement of the weights in service.
        measured: measures a checkpoint on the same objects.
        course: of the training.
        data: what is recorded of each image.
        progress: told the end.
    """
    versions = Versions(plan.model_dir)
    with versions.new_folder() as folder:
        weights = _write(plan, network, folder)
        after = measured(weights)
        verdict, name = judge(before, after, plan.options.min_gain), plan.service.name
        is_better = verdict.publish
        with versions.unchanged():
            if (current := versions.current()) != plan.published:
                name = current or plan.service.base
                verdict = _overtaken(verdict, name)
            write_report(folder / REPORT_FILE, plan, before, after, course, data, verdict)
            shutil.copy(folder / REPORT_FILE, plan.folder / REPORT_FILE)
            if is_better:
                shutil.copytree(progress.events, folder / EVENTS_FOLDER, dirs_exist_ok=True)
                record = _record(plan, weights, before, after, course, data, verdict)
                version = versions.add(folder, {**record, "before": current})
            if verdict.publish:
                versions.switch(version.name)
                name = version.name
    message = f"{name} {'is' if verdict.publish else 'stays'} in service: {verdict.reason}"
    if is_better and not verdict.publish:
        message += f"; train again, or start the server with --conf rollback {version.name}"
    facts = {"after": {"dice": after.score, **after.means}, "best_metric": after.score}
    progress.end("published" if verdict.publish else "kept", message, version=name, **facts)


def _overtaken(verdict: Verdict, name: str) -> Verdict:
    """What becomes of a verdict where other weights, of this name, were put in service meanwhile."""
    if not verdict.publish:
        return verdict
    reason = f"{verdict.reason}, but {name} came into service meanwhile, which it was not measured against"
    return Verdict(False, reason)


def _write(plan: TrainingPlan, network: Network, folder: Path) -> Weights:
    """The checkpoint of a version to be."""
    assert plan.weights.config is not None
    shutil.copy(plan.weights.config, folder / CONFIG_FILE)
    save_weights(folder / WEIGHTS_FILE, network.state_dict())
    return replace(
        plan.weights,
        name="the new weights",
        path=folder / WEIGHTS_FILE,
        config=folder / CONFIG_FILE,
        image_size=int(network.image_size),
        sha256=sha256_of(folder / WEIGHTS_FILE),
        meta_settings=False,
        single_mask=True,
    )


def _record(
    plan: TrainingPlan,
    weights: Weights,
    before: Measurement,
    after: Measurement,
    course: Course,
    data: list[dict[str, Any]],
    verdict: Verdict,
) -> dict[str, Any]:
    """What is known of a version to be; not what it comes after, which is known when it is added."""
    return {
        "base": plan.weights.base,
        "parent": plan.weights.version,
        "image_size": weights.image_size,
        "rendered_prompts": weights.rendered_prompts,
        "sha256": weights.sha256,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "metrics": {
            "verdict": verdict.reason,
            "before": {"dice": before.score, **before.means},
            "after": {"dice": after.score, **after.means},
            "epochs": course.epoch,
            "best_epoch": course.best_epoch,
            "blend": course.blend,
            "seconds": round(course.seconds, 1),
        },
        "options": plan.options.model_dump(),
        "data": data,
    }
