"""What all pipelines have in common: a trial asks for objects with a prompt, a judgement rates one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lib.engine.predictor import Predictor
from lib.evaluation.cases import Kind, Scene
from lib.evaluation.options import DEFAULT_TOLERANCE_MM, Options, PipelineName
from lib.evaluation.prompting import Drawing, Prompt
from lib.prompts.types import FramePrompts

# The object of a row that rates all objects of a frame together.
ALL_OBJECTS = 0


@dataclass(frozen=True)
class Rules:
    """How results are rated.

    Attributes:
        metrics: which, in the order of the tables; None: those of the pipeline.
        tolerance_mm: of NSD, by class.
        default_tolerance_mm: of NSD, of all other classes.
        labelled_slices: classes that are rated on the slices with a truth alone, because the dataset ends
            them by its own rules (FLARE22: aorta, vena cava, oesophagus).
        border: instances nearer to the image's border than this many pixels do not count for F1.
    """

    metrics: tuple[str, ...] | None = None
    tolerance_mm: Mapping[str, float] = field(default_factory=dict)
    default_tolerance_mm: float = DEFAULT_TOLERANCE_MM
    labelled_slices: frozenset[str] = frozenset()
    border: int = 0

    def tolerance(self, label: str) -> float:
        """Of NSD for a class, in mm."""
        return self.tolerance_mm.get(label, self.default_tolerance_mm)

    def wants(self, metric: str) -> bool:
        """Whether a metric is asked for."""
        return self.metrics is None or metric in self.metrics


@dataclass(frozen=True)
class Trial:
    """Objects to be segmented with one prompt.

    Attributes:
        pipeline: which one.
        prompt: which one.
        objects: their values in the truth.
        frame: of an image trial, the frame; else None.
    """

    pipeline: PipelineName
    prompt: Prompt
    objects: tuple[int, ...]
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class Judgement:
    """How well an object was segmented.

    Attributes:
        object: its value in the truth; ``ALL_OBJECTS`` where all of a frame are rated together.
        values: by metric.
        masks: what the network drew, by frame: (H, W).
        prompts: what it was asked, by frame.
        shown: frames that tell the most in a picture.
    """

    object: int
    values: Mapping[str, float]
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    prompts: Mapping[int, FramePrompts] = field(default_factory=dict)
    shown: Sequence[int] = ()


class Pipeline(Protocol):
    """One of the paper's three ways to evaluate.

    Attributes:
        name: of the pipeline.
        fits: kinds of cases that it can read.
        suits: kinds of cases that it is meant for.
        metrics: all that it knows, the one that ranks results first.
    """

    name: PipelineName
    fits: frozenset[Kind]
    suits: frozenset[Kind]
    metrics: tuple[str, ...]

    def trials(self, scene: Scene, objects: Sequence[int], options: Options) -> list[Trial]:
        """Everything to try on a case."""

    def expects(self, trial: Trial, rules: Rules) -> tuple[int, ...]:
        """The objects that a trial's judgements are of."""

    def run(
        self,
        predictor: Predictor,
        scene: Scene,
        trial: Trial,
        drawing: Drawing,
        options: Options,
        rules: Rules,
    ) -> list[Judgement]:
        """Prompts the network and rates what it draws, those of ``expects`` at least."""


def batches(objects: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Objects in groups of at most so many."""
    for start in range(0, len(objects), size):
        yield tuple(objects[start : start + size])
