"""The evaluation protocol: prompts drawn from the ground truth, trials, results, pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lib.engine.predictor import Predictor
from lib.evaluation.cases import Kind, LabelledSequence
from lib.evaluation.options import DEFAULT_TOLERANCE_MM, EvaluationOptions, PipelineName
from lib.prompts.simulation import jittered_box, random_clicks, tight_box
from lib.prompts.types import FramePrompts
from lib.transforms.sampling import seeded_rng

# Object value of a result for all objects of a frame together.
ALL_OBJECTS = 0


class MetricRules(BaseModel):
    """How results are measured.

    Attributes:
        metrics: Metric names in the order of the tables; None: those of the pipeline.
        tolerance_mm: Tolerance of NSD in mm by class.
        default_tolerance_mm: Tolerance of NSD in mm for all other classes.
        labelled_slices: Classes measured only between their first and last labelled slice, because the
            dataset truncates them by its own rules (FLARE22: aorta, vena cava, oesophagus).
        border: Width in pixels of the image border whose instances F1 ignores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[str, ...] | None = None
    tolerance_mm: dict[str, float] = {}
    default_tolerance_mm: float = DEFAULT_TOLERANCE_MM
    labelled_slices: tuple[str, ...] = ()
    border: int = 0

    def tolerance(self, label: str) -> float:
        """Tolerance of NSD for a class in mm."""
        return self.tolerance_mm.get(label, self.default_tolerance_mm)

    def wants(self, metric: str) -> bool:
        """Whether a metric is computed."""
        return self.metrics is None or metric in self.metrics


@dataclass(frozen=True)
class Prompt:
    """A kind of prompt.

    Attributes:
        kind: ``click``, ``box`` or ``mask``.
        clicks: Clicks per prompted frame; 0 for other kinds.
        frames: Number of prompted frames.
    """

    kind: Literal["click", "box", "mask"]
    clicks: int = 0
    frames: int = 1

    @property
    def name(self) -> str:
        """Name in tables: ``1 click``, ``3 clicks``, ``box``, ``mask``."""
        if self.kind != "click":
            return self.kind
        return "1 click" if self.clicks == 1 else f"{self.clicks} clicks"


@dataclass(frozen=True)
class PromptSampler:
    """Draws the prompts of one case from its ground truth.

    Every prompt has a random generator seeded by its purpose, so prompts do not depend on earlier ones: all
    networks, and a resumed evaluation, get the same prompts.

    Attributes:
        seed: Seed of the evaluation.
        case: Case id.
        jitter: Deviation of box borders as a share of the box's sides; 0 for tight boxes.
    """

    seed: int
    case: str
    jitter: float = 0.0

    def draw(self, prompt: Prompt, mask: NDArray[np.bool_], value: int, frame: int) -> FramePrompts:
        """The prompt for an object on a frame. All clicks are drawn before any answer (Yan et al., eq. 1).

        Args:
            prompt: Kind of prompt.
            mask: Ground truth of the object, (H, W).
            value: Object value.
            frame: Frame index.

        Raises:
            PromptError: the mask is empty.
        """
        rng = self.generator(value, frame, prompt.kind, prompt.clicks)
        if prompt.kind == "mask":
            return FramePrompts.of_mask(mask)
        if prompt.kind == "box":
            box = jittered_box(mask, rng, self.jitter) if self.jitter else tight_box(mask)
            return FramePrompts.of_box(box)
        return FramePrompts(random_clicks(mask, prompt.clicks, rng), np.ones(prompt.clicks, np.int32))

    def generator(self, *purpose: object) -> np.random.Generator:
        """A random generator for one purpose."""
        name = "|".join(map(str, (self.seed, self.case, *purpose)))
        return seeded_rng(name)


@dataclass(frozen=True)
class PromptTrial:
    """Objects to segment with one kind of prompt.

    Attributes:
        pipeline: Pipeline name.
        prompt: Kind of prompt.
        objects: Object values in the ground truth.
        frame: Frame index of an image trial; None in the other pipelines.
    """

    pipeline: PipelineName
    prompt: Prompt
    objects: tuple[int, ...]
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class ObjectResult:
    """The segmentation of one object, measured.

    Attributes:
        object: Object value in the ground truth; ``ALL_OBJECTS`` for all objects of a frame together.
        values: Metric values by name.
        masks: Predicted masks (H, W) by frame.
        prompts: Prompts by frame.
        shown: Frames worth showing in a picture.
    """

    object: int
    values: Mapping[str, float]
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    prompts: Mapping[int, FramePrompts] = field(default_factory=dict)
    shown: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class CaseContext:
    """An opened case with the settings of its evaluation.

    Attributes:
        id: Case id.
        sequence: Frames and ground truth.
        options: Options of the evaluation.
        rules: How results are measured.
    """

    id: str
    sequence: LabelledSequence
    options: EvaluationOptions
    rules: MetricRules

    def draw(self, prompt: Prompt, value: int, frame: int) -> FramePrompts:
        """The prompt for an object on a frame, drawn from its ground truth."""
        sampler = PromptSampler(self.options.seed, self.id, self.options.jitter)
        return sampler.draw(prompt, self.sequence.mask(value, frame), value, frame)


class Pipeline(Protocol):
    """One of the paper's three evaluation procedures.

    Attributes:
        name: Pipeline name.
        fits: Kinds of cases that it can evaluate.
        suits: Kinds of cases that it evaluates by default.
        metrics: All its metrics; the first one ranks results.
    """

    name: PipelineName
    fits: frozenset[Kind]
    suits: frozenset[Kind]
    metrics: tuple[str, ...]

    def trials(self, case: CaseContext, objects: Sequence[int]) -> list[PromptTrial]:
        """All trials of a case."""

    def expects(self, trial: PromptTrial, rules: MetricRules) -> tuple[int, ...]:
        """Object values of the results of a trial."""

    def run(self, predictor: Predictor, case: CaseContext, trial: PromptTrial) -> list[ObjectResult]:
        """Prompts the network and measures its answers, at least those of ``expects``."""


def batches(objects: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Objects in groups of at most ``size``."""
    for start in range(0, len(objects), size):
        yield tuple(objects[start : start + size])
