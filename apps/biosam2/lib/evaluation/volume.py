"""3-D: a box on one slice of each object, followed backward and forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.engine.predictor import Predictor
from lib.engine.propagation import propagate
from lib.evaluation.cases import Kind, Scene
from lib.evaluation.options import Options, PipelineName, SliceRule
from lib.evaluation.prompting import Drawing, Prompt
from lib.evaluation.protocol import Judgement, Rules, Trial, batches
from lib.metrics.overlap import dice
from lib.metrics.surface import hausdorff95, normalized_surface_dice

Masks = Mapping[int, NDArray[np.bool_]]


class VolumePipeline:
    """Yan et al. 2024, section 3.4: a box on the middle slice, to the first slice, then to the last.

    DSC, NSD and HD95 rate the volume of each object, with the distances of its voxels.
    """

    name: PipelineName = "volume"
    fits: frozenset[Kind] = frozenset({"volume"})
    suits: frozenset[Kind] = frozenset({"volume"})
    metrics: tuple[str, ...] = ("dice", "nsd", "hd95")

    def trials(self, scene: Scene, objects: Sequence[int], options: Options) -> list[Trial]:
        """One for each batch of objects."""
        return [Trial(self.name, Prompt("box"), group) for group in batches(objects, options.batch)]

    def expects(self, trial: Trial, rules: Rules) -> tuple[int, ...]:
        """Each object."""
        return trial.objects

    def run(
        self,
        predictor: Predictor,
        scene: Scene,
        trial: Trial,
        drawing: Drawing,
        options: Options,
        rules: Rules,
    ) -> list[Judgement]:
        """Follows the objects together; each has a memory of its own."""
        prompts = []
        for value in trial.objects:
            start = prompted_slice(scene, value, options.slice)
            prompts.append({start: drawing.draw(trial.prompt, scene.mask(value, start), value, start)})
        found: dict[int, dict[int, NDArray[np.bool_]]] = {value: {} for value in trial.objects}
        for number, index, result in propagate(predictor, scene.frames, prompts):
            found[trial.objects[number]][index] = result.mask
        return [
            Judgement(
                value,
                _rate(scene, value, masks, rules),
                masks,
                asked,
                _shown(scene, value, next(iter(asked))),
            )
            for (value, masks), asked in zip(found.items(), prompts, strict=True)
        ]


def prompted_slice(scene: Scene, value: int, rule: SliceRule) -> int:
    """The slice that an object is boxed on.

    Args:
        scene: the volume.
        value: of the object.
        rule: ``middle`` of the object's extent, the lower one of two, and where the object has a gap there
            the nearest slice that holds it; or the one where it is ``largest``.
    """
    visible = scene.visible(value)
    if rule == "largest":
        return max(visible, key=lambda index: int(scene.mask(value, index).sum()))
    middle = (visible[0] + visible[-1]) // 2
    return min(visible, key=lambda index: abs(index - middle))


def _rate(scene: Scene, value: int, masks: Masks, rules: Rules) -> dict[str, float]:
    label, visible = scene.names.get(value, ""), scene.visible(value)
    rated: Sequence[int] = scene.annotated
    if label in rules.labelled_slices:
        rated = range(visible[0], visible[-1] + 1)
    nothing = np.zeros(scene.truth[0].shape, dtype=np.bool_)
    found = np.stack([masks.get(index, nothing) for index in rated])
    truth = np.stack([scene.mask(value, index) for index in rated])
    values = {}
    if rules.wants("dice"):
        values["dice"] = dice(found, truth)
    if rules.wants("nsd"):
        values["nsd"] = normalized_surface_dice(found, truth, scene.spacing, rules.tolerance(label))
    if rules.wants("hd95"):
        values["hd95"] = hausdorff95(found, truth, scene.spacing)
    return values


def _shown(scene: Scene, value: int, start: int) -> tuple[int, ...]:
    """The boxed slice and those half way to the object's ends."""
    visible = scene.visible(value)
    return tuple(sorted({(visible[0] + start) // 2, start, (start + visible[-1] + 1) // 2}))
