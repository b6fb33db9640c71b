"""Prompts that a person would have given, drawn for training: the kinds that viewers send."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.prompts.simulation import correction_click, jittered_box, random_clicks
from lib.prompts.types import FramePrompts

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Kind:
    """A kind of prompt.

    Attributes:
        name: for people.
        clicks: positive clicks, all drawn at once from the mask (BioSAM-2, equation 1).
        box: whether there is a box, jittered as a hand draws it.
        share: how often it is drawn, beside the others.
    """

    name: str
    clicks: int
    box: bool
    share: float


# BioSAM-2 measures 1, 3 and 5 clicks and boxes. One click is the first that everybody makes, and the weakest.
KINDS = (
    Kind("1 click", 1, False, 0.4),
    Kind("3 clicks", 3, False, 0.15),
    Kind("5 clicks", 5, False, 0.1),
    Kind("box", 0, True, 0.25),
    Kind("box and click", 1, True, 0.1),
)


def draw_kind(rng: np.random.Generator) -> Kind:
    """A kind, as often as its share says."""
    return KINDS[int(rng.choice(len(KINDS), p=[kind.share for kind in KINDS]))]


def draw_prompts(kind: Kind, mask: Mask, rng: np.random.Generator) -> FramePrompts:
    """Prompts of a kind for the object of a mask (H, W); anywhere on the frame where the mask is empty."""
    if not mask.any():
        mask = _somewhere(mask.shape, rng)
    points = random_clicks(mask, kind.clicks, rng) if kind.clicks else np.zeros((0, 2), np.float32)
    return FramePrompts(
        points=points,
        labels=np.ones(len(points), dtype=np.int32),
        box=jittered_box(mask, rng) if kind.box else None,
    )


def correct(prompts: FramePrompts, truth: Mask, found: Mask, rng: np.random.Generator) -> FramePrompts:
    """The prompts with one more click, in the middle of the largest error; a random click where none is.

    Viewers send all prompts again with each click, and so does this.
    """
    click = correction_click(truth, found, rng)
    if click is None:
        (x, y), positive = random_clicks(truth, 1, rng)[0] if truth.any() else (0.0, 0.0), bool(truth.any())
    else:
        x, y, positive = click
    return FramePrompts(
        points=np.concatenate([prompts.points, [[x, y]]]),
        labels=np.concatenate([prompts.labels, [int(positive)]]),
        box=prompts.box,
    )


def _somewhere(shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """A rectangle of a tenth to a third of each side, anywhere on the frame."""
    height, width = shape
    mask = np.zeros(shape, dtype=bool)
    sides = [max(1, int(side * rng.uniform(0.1, 0.33))) for side in (height, width)]
    top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(shape, sides, strict=True))
    mask[top : top + sides[0], left : left + sides[1]] = True
    return mask
