"""Starts trainings and kills each at a moment of its own: a script that is given their folder.

A process of its own, so that it can fork without threads; each training is a child of it, killed as
``DELETE /train/`` kills it. After each, the weights in service are loaded as the server loads them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from lib.engine.builder import described
from lib.engine.model_versions import Versions
from lib.engine.predictor_pool import PredictorPool
from lib.settings import Settings
from lib.trainers.config import TrainingPlan, TrainOptions
from lib.trainers.frames import LabelledImage
from lib.trainers.training import train

KILLS = 5
SEED = 4
SETTINGS = Settings(precision="fp32", device="cpu")


def plan_for(studies: Path, model_dir: Path) -> TrainingPlan:
    """A training that is published each time: what it gains does not matter here."""
    engines = PredictorPool(SETTINGS, model_dir)
    weights = described(engines.weights(), engines.registry, "cpu")
    labels = studies / "labels" / "final"
    images = tuple(
        LabelledImage(path.name.split(".")[0], path, labels / path.name)
        for path in sorted(studies.glob("*.nii.gz"))
    )
    options = TrainOptions(
        preset="decoder",
        image_size=64,
        max_epochs=2,
        steps_per_epoch=2,
        batch_size=2,
        val_objects=2,
        min_gain=0.0,
        learning_rate=1e-5,
        clip_share=0.0,
        device="cpu",
    )
    published = engines.versions.current()
    return TrainingPlan(
        options, images, weights, weights, published, model_dir, "cpu", "fp32", 10**6, 64, time.time()
    )


def run(plan: TrainingPlan, seconds: float | None) -> float:
    """Trains in a child, which is killed after so many seconds. Returns how long it lived."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            train(plan)
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic() - started


def main() -> None:
    """Prints, as JSON, what was served after each kill, and how the last training ended."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    studies, model_dir = folder / "studies", folder / "model"
    whole = run(plan_for(studies, model_dir), None)
    moments = np.sort(np.random.default_rng(SEED).uniform(0.0, 1.0, KILLS)) * whole
    served = []
    for seconds in moments.tolist():
        run(plan_for(studies, model_dir), seconds)
        served.append(PredictorPool(SETTINGS, model_dir).get().name)
    run(plan_for(studies, model_dir), None)
    stats = json.loads((model_dir / "training" / "stats.json").read_text())
    left = [path.name for path in (model_dir / "versions").iterdir() if path.name.startswith(".")]
    json.dump(
        {
            "served": served,
            "versions": Versions(model_dir).names(),
            "last": stats["status"],
            "left_over": left,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
