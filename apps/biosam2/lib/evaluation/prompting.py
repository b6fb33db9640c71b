"""The prompts of the paper, drawn from the truth: the same for every network, whenever it is asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.prompts.simulation import jittered_box, random_clicks, tight_box
from lib.prompts.types import FramePrompts


@dataclass(frozen=True)
class Prompt:
    """One way to say what to segment.

    Attributes:
        kind: ``click``, ``box`` or ``mask``.
        clicks: how many, on each prompted frame; 0 but for clicks.
        frames: how many frames are prompted.
    """

    kind: Literal["click", "box", "mask"]
    clicks: int = 0
    frames: int = 1

    @property
    def name(self) -> str:
        """For tables: ``1 click``, ``3 clicks``, ``box``, ``mask``."""
        if self.kind != "click":
            return self.kind
        return "1 click" if self.clicks == 1 else f"{self.clicks} clicks"


@dataclass(frozen=True)
class Drawing:
    """Draws the prompts of one case.

    Every draw has a random source of its own, made from what it is for, so that nothing depends on what was
    drawn before: two networks see the same prompts, and so does an evaluation that was broken off.

    Attributes:
        seed: of the evaluation.
        case: the case's id.
        jitter: deviation of a box's borders as a part of its sides; 0 for tight boxes.
    """

    seed: int
    case: str
    jitter: float = 0.0

    def draw(self, prompt: Prompt, mask: NDArray[np.bool_], value: int, frame: int) -> FramePrompts:
        """The prompt of an object on a frame.

        Clicks are all drawn at once and before any answer (Yan et al. 2024, equation 1).

        Args:
            prompt: what to draw.
            mask: the object's truth there, (H, W).
            value: of the object.
            frame: the frame's index.

        Raises:
            PromptError: the mask is empty.
        """
        rng = self.source(value, frame, prompt.kind, prompt.clicks)
        if prompt.kind == "mask":
            return FramePrompts.of_mask(mask)
        if prompt.kind == "box":
            box = jittered_box(mask, rng, self.jitter) if self.jitter else tight_box(mask)
            return FramePrompts.of_box(box)
        return FramePrompts(random_clicks(mask, prompt.clicks, rng), np.ones(prompt.clicks, np.int32))

    def source(self, *purpose: object) -> np.random.Generator:
        """A random source for one purpose."""
        name = "|".join(map(str, (self.seed, self.case, *purpose)))
        return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
