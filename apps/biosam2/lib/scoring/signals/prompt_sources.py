"""Where prompts come from when nobody gives any: the seam for other ways of finding objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lib.engine.frames import FrameSequence
from lib.engine.predictor import Predictor
from lib.prompts.types import FramePrompts


@dataclass(frozen=True, eq=False)
class Suggestion:
    """An object that may be on a frame.

    Attributes:
        label: its class; empty where the source knows none.
        prompts: for it, in pixels of the native frame; None where the source looked for the class and did
            not find it.
        presence: probability, 0 to 1, that the object is there, as the source saw it; None where only the
            answer to the prompts will tell.
    """

    label: str
    prompts: FramePrompts | None
    presence: float | None = None


class PromptSource(Protocol):
    """Finds objects on frames that nobody has labelled.

    Every suggestion's prompts are one box: a score says how sure the model is of its answers, and answers to
    clicks are less sure than those to boxes. A source has no memory of the frames that it was asked about:
    the same frame gets the same suggestions.
    """

    @property
    def name(self) -> str:
        """What tells this source from others; scores that were made with another source are made again."""
        ...

    def suggest(self, predictor: Predictor, frames: FrameSequence, index: int) -> list[Suggestion]:
        """Objects on a frame, the likeliest first.

        Args:
            predictor: of the weights in service.
            frames: the image's frames.
            index: of the frame.
        """
        ...
