"""Where a training stands: kept with its state, so that it can go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Course:
    """The way of a training so far.

    Attributes:
        epoch: the last one that was measured; 0 before the first.
        best: trained parameters of the best one by name; None before the first.
        best_score: its mean Dice.
        best_is_publishable: whether it was better than the weights in service in every respect. Such an epoch
            is better than one with a higher score that is not.
        best_epoch: its number.
        blend: how much of what was learned is published, 0 to 1; the rest is what it started from.
        history: for each epoch its number, ``loss`` by part, ``means`` by kind of prompt, and ``score``.
        seconds: of training, those before it was cut off too.
    """

    epoch: int = 0
    best: dict[str, torch.Tensor] | None = None
    best_score: float = -1.0
    best_is_publishable: bool = False
    best_epoch: int = 0
    blend: float = 1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
