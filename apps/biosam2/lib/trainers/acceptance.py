"""Decision whether fine-tuned weights replace the weights in service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lib.trainers.validation import CLICK, FAR, SCORED, Measurement

# Tolerated loss in Dice of a single kind of prompt while the mean gains: within the noise of few objects.
MOST_LOSS = 0.03
# Dice tolerated for a click far from the object, absolute and relative to a click on the object: above them
# the network ignores its prompts. What the weights in service reach is tolerated as well.
MOST_FAR = 0.25
MOST_FAR_SHARE = 0.5


@dataclass(frozen=True)
class Acceptance:
    """Decision on fine-tuned weights.

    Attributes:
        accepted: Whether they are better than the weights in service.
        reason: Reason as text for users.
    """

    accepted: bool
    reason: str


def judge(before: Measurement, after: Measurement, min_gain: float) -> Acceptance:
    """Compares fine-tuned weights with those in service, on the same objects and prompts.

    Args:
        before: Measurement of the weights in service.
        after: Measurement of the fine-tuned weights.
        min_gain: Required gain in mean Dice.
    """
    summary = f"Dice {before.score:.3f} before, {after.score:.3f} after"
    if after.score - before.score < min_gain:
        return Acceptance(False, f"{summary}: the gain is below min_gain {min_gain:.3f}")
    for kind in SCORED:
        lost = before.means.get(kind, 0.0) - after.means.get(kind, 0.0)
        if kind in before.means and lost > MOST_LOSS:
            return Acceptance(False, f"{summary}, but {_change(kind, before.means, after.means)}")
    far = after.means.get(FAR, 0.0)
    most = min(MOST_FAR, MOST_FAR_SHARE * after.means.get(CLICK, 1.0))
    if far > max(most, before.means.get(FAR, 0.0)):
        return Acceptance(
            False,
            f"{summary}, but the prompts lost their effect: a click far from the object still segments it "
            f"(Dice {far:.2f})",
        )
    return Acceptance(True, summary)


def _change(kind: str, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    return f"{kind} Dice fell from {before[kind]:.3f} to {after.get(kind, 0.0):.3f}"
