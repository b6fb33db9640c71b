"""State of a training, saved after each epoch, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from lib.metrics.calibration import IDENTITY, Calibration
from lib.trainers.acceptance import Acceptance
from lib.trainers.config import TrainingPlan
from lib.trainers.validation import Measurement

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
        plan: Plan of the training.
        state: State at the end.
        data: Record of each image: id, side, frames, labels, or the reason why it was left out.
        before: Measurement of the weights in service.
        after: Measurement of the result.
        acceptance: Decision.
        calibration: Calibration of predicted IoU times presence, fitted on the validation targets.
    """

    plan: TrainingPlan
    state: TrainingState
    data: list[dict[str, Any]]
    before: Measurement
    after: Measurement = field(default_factory=lambda: Measurement({}))
    acceptance: Acceptance = NOT_MEASURED
    calibration: Calibration = IDENTITY
