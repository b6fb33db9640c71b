"""Whether what was learned takes the place of the weights in service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lib.trainers.validation import CLICK, FAR, SCORED, Measurement

# Dice that a kind of prompt may lose while the whole gains: less is the noise of few objects.
MOST_LOSS = 0.03
# A click far from the object may overlap it with a Dice up to this, or up to this part of what a click on it
# has: beyond, the prompts do not steer. What the weights in service do is allowed.
MOST_FAR = 0.25
MOST_FAR_SHARE = 0.5


@dataclass(frozen=True)
class Verdict:
    """The decision and its reason, in words for a person."""

    publish: bool
    reason: str


def judge(before: Measurement, after: Measurement, min_gain: float) -> Verdict:
    """Compares new weights with those in service, on the same objects with the same prompts.

    Args:
        before: of the weights in service.
        after: of the new ones.
        min_gain: Dice that they must gain over all prompts.
    """
    gain = after.score - before.score
    summary = f"Dice {before.score:.3f} before, {after.score:.3f} after"
    if gain < min_gain:
        return Verdict(False, f"{summary}: less than the {min_gain:.3f} that is asked for")
    for kind in SCORED:
        lost = before.means.get(kind, 0.0) - after.means.get(kind, 0.0)
        if kind in before.means and lost > MOST_LOSS:
            change = _change(kind, before.means, after.means)
            return Verdict(False, f"{summary}, and yet it got worse at one thing: {change}")
    far = after.means.get(FAR, 0.0)
    most = min(MOST_FAR, MOST_FAR_SHARE * after.means.get(CLICK, 1.0))
    if far > max(most, before.means.get(FAR, 0.0)):
        return Verdict(
            False,
            f"{summary}, but the prompts do not steer it: a click far away finds the object ({far:.2f})",
        )
    return Verdict(True, summary)


def _change(kind: str, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    return f"{kind} {before[kind]:.3f} before, {after.get(kind, 0.0):.3f} after"
