"""2-D: each object on its frames, with clicks or a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.engine.predictor import FrameMask, Predictor
from lib.evaluation.cases import Kind, Scene
from lib.evaluation.options import Options, PipelineName
from lib.evaluation.prompting import Drawing, Prompt
from lib.evaluation.protocol import ALL_OBJECTS, Judgement, Rules, Trial
from lib.metrics.instances import instance_f1
from lib.metrics.overlap import dice
from lib.metrics.surface import normalized_surface_dice


class ImagePipeline:
    """Yan et al. 2024, section 4.1: 1, 3 or 5 clicks, all drawn from the mask before the first answer.

    DSC and NSD rate each object on each frame. F1 rates all objects of a frame together: one counts as found
    when the two masks share half of their union.
    """

    name: PipelineName = "image"
    fits: frozenset[Kind] = frozenset({"picture", "volume", "clip"})
    suits: frozenset[Kind] = frozenset({"picture"})
    metrics: tuple[str, ...] = ("dice", "nsd", "f1")

    def trials(self, scene: Scene, objects: Sequence[int], options: Options) -> list[Trial]:
        """One for each frame with objects and each prompt."""
        prompts = [Prompt("click", count) for count in options.clicks]
        if options.box:
            prompts.append(Prompt("box"))
        on_frame: dict[int, list[int]] = {}
        for value in objects:
            for frame in spread(scene.visible(value), options.slices):
                on_frame.setdefault(frame, []).append(value)
        return [
            Trial(self.name, prompt, tuple(on_frame[frame]), frame)
            for frame in sorted(on_frame)
            for prompt in prompts
        ]

    def expects(self, trial: Trial, rules: Rules) -> tuple[int, ...]:
        """Each object, then all together where F1 is asked for."""
        return (*trial.objects, ALL_OBJECTS) if rules.wants("f1") else trial.objects

    def run(
        self,
        predictor: Predictor,
        scene: Scene,
        trial: Trial,
        drawing: Drawing,
        options: Options,
        rules: Rules,
    ) -> list[Judgement]:
        """Prompts each object by itself."""
        frame = trial.frame or 0
        found, judgements = {}, []
        for value in trial.objects:
            prompts = drawing.draw(trial.prompt, scene.mask(value, frame), value, frame)
            found[value] = predictor.segment(scene.frames, frame, prompts)
            values = _rate(scene, value, frame, found[value].mask, rules)
            judgements.append(
                Judgement(value, values, {frame: found[value].mask}, {frame: prompts}, (frame,))
            )
        if rules.wants("f1"):
            judgements.append(_judge_together(scene, frame, found, rules.border))
        return judgements


def spread(frames: Sequence[int], most: int) -> tuple[int, ...]:
    """At most so many of the frames, evenly spread; all for 0."""
    if not most or len(frames) <= most:
        return tuple(frames)
    centres = (np.arange(most) + 0.5) * len(frames) / most
    return tuple(frames[int(centre)] for centre in centres)


def without_border(labels: NDArray[np.integer], border: int) -> NDArray[np.integer]:
    """A label map (H, W) without the instances that reach into a border of so many pixels.

    The cells challenge and U-Mamba's ``compute_cell_metric`` leave them out with 2 pixels.
    """
    if not border:
        return labels
    inside = (slice(border, -border), slice(border, -border))
    edge = labels.copy()
    edge[inside] = 0
    return np.where(np.isin(labels, np.unique(edge[edge > 0])), 0, labels)


def _rate(scene: Scene, value: int, frame: int, found: NDArray[np.bool_], rules: Rules) -> dict[str, float]:
    truth, values = scene.mask(value, frame), {}
    if rules.wants("dice"):
        values["dice"] = dice(found, truth)
    if rules.wants("nsd"):
        tolerance = rules.tolerance(scene.names.get(value, ""))
        values["nsd"] = normalized_surface_dice(found, truth, scene.spacing[1:], tolerance)
    return values


def _judge_together(scene: Scene, frame: int, found: Mapping[int, FrameMask], border: int) -> Judgement:
    truth = np.where(np.isin(scene.labels(frame), list(found)), scene.labels(frame), 0)
    drawn = _merged(found, truth)
    f1 = instance_f1(without_border(drawn, border), without_border(truth, border))
    return Judgement(ALL_OBJECTS, {"f1": f1})


def _merged(found: Mapping[int, FrameMask], truth: NDArray[np.integer]) -> NDArray[np.integer]:
    """All masks in one label map; where two overlap, the one the network is surer of."""
    labels = np.zeros_like(truth)
    for value in sorted(found, key=lambda value: (found[value].score, value)):
        labels[found[value].mask] = value
    return labels
