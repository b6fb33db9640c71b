"""The evaluation protocol: prompts drawn from the ground truth, and the paper's three pipelines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lib.engine.predictor import FrameMask, Predictor
from lib.engine.propagation import propagate
from lib.evaluation.cases import Kind, LabelledSequence
from lib.evaluation.options import DEFAULT_TOLERANCE_MM, EvaluationOptions, PipelineName, SliceRule
from lib.metrics.segmentation import (
    dice,
    hausdorff95,
    instance_f1,
    normalized_surface_dice,
    region_and_boundary,
)
from lib.prompts.simulation import jittered_box, random_clicks, tight_box
from lib.prompts.types import FramePrompts
from lib.transforms.sampling import evenly_spaced, seeded_rng

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
    """A kind of prompt, with its number of clicks per prompted frame and of prompted frames."""

    kind: Literal["click", "box", "mask"]
    clicks: int = 0
    frames: int = 1

    @property
    def name(self) -> str:
        """Name in tables: ``1 click``, ``3 clicks``, ``box``, ``mask``."""
        if self.kind != "click":
            return self.kind
        return "1 click" if self.clicks == 1 else f"{self.clicks} clicks"


def prompt_rng(seed: int, case: str, *purpose: object) -> np.random.Generator:
    """A random generator for one purpose in a case.

    Prompts do not depend on earlier ones: all networks, and a resumed evaluation, get the same prompts.
    """
    return seeded_rng("|".join(map(str, (seed, case, *purpose))))


@dataclass(frozen=True)
class PromptTrial:
    """Objects (their values in the ground truth) to segment with one kind of prompt.

    ``frame`` is the frame index of an image trial, and None in the other pipelines.
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
    """An opened case with the settings of its evaluation."""

    id: str
    sequence: LabelledSequence
    options: EvaluationOptions
    rules: MetricRules

    def draw(self, prompt: Prompt, value: int, frame: int) -> FramePrompts:
        """The prompt for an object on a frame, drawn from its ground truth.

        All clicks are drawn before any answer (Yan et al., eq. 1).
        """
        mask, jitter = self.sequence.mask(value, frame), self.options.jitter
        rng = prompt_rng(self.options.seed, self.id, value, frame, prompt.kind, prompt.clicks)
        if prompt.kind == "mask":
            return FramePrompts.of_mask(mask)
        if prompt.kind == "box":
            return FramePrompts.of_box(jittered_box(mask, rng, jitter) if jitter else tight_box(mask))
        return FramePrompts(random_clicks(mask, prompt.clicks, rng), np.ones(prompt.clicks, np.int32))


class Pipeline(ABC):
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

    @abstractmethod
    def trials(self, case: CaseContext, objects: Sequence[int]) -> list[PromptTrial]:
        """All trials of a case."""

    @abstractmethod
    def run(self, predictor: Predictor, case: CaseContext, trial: PromptTrial) -> list[ObjectResult]:
        """Prompts the network and measures its answers, at least those of ``expects``."""

    def expects(self, trial: PromptTrial, rules: MetricRules) -> tuple[int, ...]:
        """Object values of the results of a trial: each object."""
        return trial.objects


def batches(objects: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Objects in groups of at most ``size``."""
    for start in range(0, len(objects), size):
        yield tuple(objects[start : start + size])


# Side in pixels below which one click is ambiguous: Table 3 reports 6.6 J&F for one click on the 112 pixels
# of EchoNet-Dynamic.
SMALL_FRAME = 128

Masks = Mapping[int, NDArray[np.bool_]]


class ImagePipeline(Pipeline):
    """2-D (section 4.1): each object on its frames with 1, 3 or 5 clicks, all drawn before the first answer.

    DSC and NSD measure each object on each frame. F1 measures all objects of a frame together: an object
    counts as found if the two masks share half of their union.
    """

    name: PipelineName = "image"
    fits: frozenset[Kind] = frozenset({"picture", "volume", "clip"})
    suits: frozenset[Kind] = frozenset({"picture"})
    metrics: tuple[str, ...] = ("dice", "nsd", "f1")

    def trials(self, case: CaseContext, objects: Sequence[int]) -> list[PromptTrial]:
        """One trial per frame with objects and kind of prompt."""
        prompts = [Prompt("click", count) for count in case.options.clicks]
        if case.options.box:
            prompts.append(Prompt("box"))
        on_frame: dict[int, list[int]] = {}
        for value in objects:
            frames = case.sequence.visible(value)
            for place in evenly_spaced(len(frames), case.options.slices or len(frames)):
                on_frame.setdefault(frames[place], []).append(value)
        return [
            PromptTrial(self.name, prompt, tuple(on_frame[frame]), frame)
            for frame in sorted(on_frame)
            for prompt in prompts
        ]

    def expects(self, trial: PromptTrial, rules: MetricRules) -> tuple[int, ...]:
        """Each object, then all objects together for F1."""
        return (*trial.objects, ALL_OBJECTS) if rules.wants("f1") else trial.objects

    def run(self, predictor: Predictor, case: CaseContext, trial: PromptTrial) -> list[ObjectResult]:
        """Prompts each object separately."""
        sequence, frame = case.sequence, trial.frame or 0
        found, results = {}, []
        for value in trial.objects:
            prompts = case.draw(trial.prompt, value, frame)
            found[value] = predictor.segment(sequence.frames, frame, prompts)
            mask, truth = found[value].mask, sequence.mask(value, frame)
            values = _overlaps(case, value, mask, truth, sequence.spacing[1:])
            results.append(ObjectResult(value, values, {frame: mask}, {frame: prompts}, (frame,)))
        if case.rules.wants("f1"):
            results.append(_all_objects(sequence, frame, found, case.rules.border))
        return results


class VolumePipeline(Pipeline):
    """3-D (section 3.4): a box on one slice, propagated to the first slice, then to the last.

    DSC, NSD and HD95 measure the volume of each object, with the spacing of its voxels.
    """

    name: PipelineName = "volume"
    fits: frozenset[Kind] = frozenset({"volume"})
    suits: frozenset[Kind] = frozenset({"volume"})
    metrics: tuple[str, ...] = ("dice", "nsd", "hd95")

    def trials(self, case: CaseContext, objects: Sequence[int]) -> list[PromptTrial]:
        """One trial per batch of objects."""
        return [
            PromptTrial(self.name, Prompt("box"), group) for group in batches(objects, case.options.batch)
        ]

    def run(self, predictor: Predictor, case: CaseContext, trial: PromptTrial) -> list[ObjectResult]:
        """Propagates the objects together; each has its own memory."""
        prompts = {}
        for value in trial.objects:
            start = prompted_slice(case.sequence, value, case.options.slice)
            prompts[value] = {start: case.draw(trial.prompt, value, start)}
        results = []
        for value, masks in _propagated(predictor, case.sequence, prompts).items():
            # The prompted slice, and the slices half way to the object's ends.
            visible, start = case.sequence.visible(value), min(prompts[value])
            shown = tuple(sorted({(visible[0] + start) // 2, start, (start + visible[-1] + 1) // 2}))
            values = _volume_values(case, value, masks)
            results.append(ObjectResult(value, values, masks, prompts[value], shown))
        return results


class VideoPipeline(Pipeline):
    """Video (section 4.2): k clicks on each of the first n frames, or the ground truth on the first frame.

    The first frames are those with a ground truth that shows the object; an object on fewer frames has no
    trial with n frames. J&F (Perazzi et al. 2016) is the mean over the labelled frames from the first
    prompted one on. ``jf_tracked`` excludes the prompted frames and is absent if there are no others.
    """

    name: PipelineName = "video"
    fits: frozenset[Kind] = frozenset({"clip", "volume"})
    suits: frozenset[Kind] = frozenset({"clip"})
    metrics: tuple[str, ...] = ("jf", "j", "f", "jf_tracked")

    def trials(self, case: CaseContext, objects: Sequence[int]) -> list[PromptTrial]:
        """One trial per kind of prompt and batch of objects with the same first frame."""
        prompts = [
            Prompt("click", clicks, frames)
            for clicks in case.options.clicks
            for frames in case.options.frames
        ]
        visible = {value: case.sequence.visible(value) for value in objects}
        trials: list[PromptTrial] = []
        for start in sorted({frames[0] for frames in visible.values()}):
            own = {value: frames for value, frames in visible.items() if frames[0] == start}
            for prompt in (*prompts, Prompt("mask")):
                fit = [value for value, frames in own.items() if len(frames) >= prompt.frames]
                trials.extend(
                    PromptTrial(self.name, prompt, group) for group in batches(fit, case.options.batch)
                )
        return trials

    def run(self, predictor: Predictor, case: CaseContext, trial: PromptTrial) -> list[ObjectResult]:
        """Propagates the objects forward together, from their common first frame."""
        sequence, prompts = case.sequence, {}
        for value in trial.objects:
            first = sequence.visible(value)[: trial.prompt.frames]
            prompts[value] = {index: case.draw(trial.prompt, value, index) for index in first}
        bounds = (min(prompts[trial.objects[0]]), sequence.annotated[-1] + 1)
        results = []
        for value, masks in _propagated(predictor, sequence, prompts, bounds).items():
            asked = prompts[value]
            values = _video_values(case, value, masks, tuple(asked))
            visible = [index for index in sequence.visible(value) if index >= min(asked)]
            shown = tuple(sorted({visible[0], visible[len(visible) // 2], visible[-1]}))
            results.append(ObjectResult(value, values, masks, asked, shown))
        return results


ALL_PIPELINES: tuple[Pipeline, ...] = (ImagePipeline(), VolumePipeline(), VideoPipeline())


def pipeline_named(name: str) -> Pipeline:
    """The pipeline with a name."""
    return next(pipeline for pipeline in ALL_PIPELINES if pipeline.name == name)


def without_border(labels: NDArray[np.integer], border: int) -> NDArray[np.integer]:
    """A label map (H, W) without the instances that touch a border of ``border`` pixels.

    The cells challenge and U-Mamba's ``compute_cell_metric`` remove them with 2 pixels.
    """
    if not border:
        return labels
    inside = (slice(border, -border), slice(border, -border))
    edge = labels.copy()
    edge[inside] = 0
    return np.where(np.isin(labels, np.unique(edge[edge > 0])), 0, labels)


def prompted_slice(sequence: LabelledSequence, value: int, rule: SliceRule) -> int:
    """The slice with an object's box.

    ``largest``: the slice with the largest area; ``middle``: the middle of the object's extent (the lower one
    of two), or the nearest slice with the object if it has a gap there.
    """
    visible = sequence.visible(value)
    if rule == "largest":
        return max(visible, key=lambda index: int(sequence.mask(value, index).sum()))
    middle = (visible[0] + visible[-1]) // 2
    return min(visible, key=lambda index: abs(index - middle))


def _propagated(
    predictor: Predictor,
    sequence: LabelledSequence,
    prompts: Mapping[int, Mapping[int, FramePrompts]],
    bounds: tuple[int, int] | None = None,
) -> dict[int, dict[int, NDArray[np.bool_]]]:
    """Masks by object and frame; frames beyond an object's end are absent."""
    values = list(prompts)
    found: dict[int, dict[int, NDArray[np.bool_]]] = {value: {} for value in values}
    asked = [dict(prompts[value]) for value in values]
    for number, index, result in propagate(predictor, sequence.frames, asked, bounds):
        found[values[number]][index] = result.mask
    return found


def _overlaps(
    case: CaseContext,
    value: int,
    found: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
) -> dict[str, float]:
    values = {}
    if case.rules.wants("dice"):
        values["dice"] = dice(found, truth)
    if case.rules.wants("nsd"):
        tolerance = case.rules.tolerance(case.sequence.names.get(value, ""))
        values["nsd"] = normalized_surface_dice(found, truth, spacing, tolerance)
    return values


def _all_objects(
    sequence: LabelledSequence, frame: int, found: Mapping[int, FrameMask], border: int
) -> ObjectResult:
    """F1 of a frame. Where masks overlap, the one with the higher predicted score wins."""
    labels = sequence.labels(frame)
    truth = np.where(np.isin(labels, list(found)), labels, 0)
    merged = np.zeros_like(truth)
    for value in sorted(found, key=lambda value: (found[value].score, value)):
        merged[found[value].mask] = value
    f1 = instance_f1(without_border(merged, border), without_border(truth, border))
    return ObjectResult(ALL_OBJECTS, {"f1": f1})


def _volume_values(case: CaseContext, value: int, masks: Masks) -> dict[str, float]:
    sequence, visible = case.sequence, case.sequence.visible(value)
    rated: Sequence[int] = sequence.annotated
    if sequence.names.get(value) in case.rules.labelled_slices:
        rated = range(visible[0], visible[-1] + 1)
    nothing = np.zeros(sequence.truth[0].shape, dtype=np.bool_)
    found = np.stack([masks.get(index, nothing) for index in rated])
    truth = np.stack([sequence.mask(value, index) for index in rated])
    values = _overlaps(case, value, found, truth, sequence.spacing)
    if case.rules.wants("hd95"):
        values["hd95"] = hausdorff95(found, truth, sequence.spacing)
    return values


def _video_values(case: CaseContext, value: int, masks: Masks, prompted: Sequence[int]) -> dict[str, float]:
    sequence = case.sequence
    rated = [index for index in sequence.annotated if index >= prompted[0]]
    nothing = np.zeros(sequence.truth[0].shape, dtype=np.bool_)
    scores = np.array(
        [region_and_boundary(masks.get(index, nothing), sequence.mask(value, index)) for index in rated]
    )
    means = dict(zip(("j", "f", "jf"), scores.mean(axis=0).tolist(), strict=True))
    tracked = ~np.isin(rated, prompted)
    if tracked.any():
        means["jf_tracked"] = float(scores[tracked, 2].mean())
    return {name: mean for name, mean in means.items() if case.rules.wants(name)}
