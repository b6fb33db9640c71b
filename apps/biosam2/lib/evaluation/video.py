"""Video: clicks on the first frames, or a mask on the first, followed forward once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.engine.predictor import Predictor
from lib.engine.propagation import propagate
from lib.evaluation.cases import Kind, Scene
from lib.evaluation.options import Options, PipelineName
from lib.evaluation.prompting import Drawing, Prompt
from lib.evaluation.protocol import Judgement, Rules, Trial, batches
from lib.metrics.boundary import region_and_boundary

# The paper's Table 3 shows what one click does to small frames: 6.6 J&F on the 112 pixels of EchoNet-Dynamic.
SMALL_FRAME = 128


Masks = Mapping[int, NDArray[np.bool_]]


class VideoPipeline:
    """Yan et al. 2024, section 4.2: k clicks on each of the first n frames, or the truth on the first.

    The first frames are the first that have a truth with the object in it; an object that is on fewer has no
    trial with so many. J&F (Perazzi et al. 2016) is the mean over the frames with a truth, from the first
    prompted one on; ``jf_tracked`` is the same without the prompted ones, and is absent where there is no
    other.
    """

    name: PipelineName = "video"
    fits: frozenset[Kind] = frozenset({"clip", "volume"})
    suits: frozenset[Kind] = frozenset({"clip"})
    metrics: tuple[str, ...] = ("jf", "j", "f", "jf_tracked")

    def trials(self, scene: Scene, objects: Sequence[int], options: Options) -> list[Trial]:
        """One for each prompt and each batch of objects that begin on one frame."""
        prompts = [Prompt("click", clicks, frames) for clicks in options.clicks for frames in options.frames]
        visible = {value: scene.visible(value) for value in objects}
        trials: list[Trial] = []
        for start in sorted({frames[0] for frames in visible.values()}):
            for prompt in (*prompts, Prompt("mask")):
                fit = [
                    value
                    for value, frames in visible.items()
                    if frames[0] == start and len(frames) >= prompt.frames
                ]
                trials.extend(Trial(self.name, prompt, group) for group in batches(fit, options.batch))
        return trials

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
        """Follows the objects together, from the frame that all of them begin on."""
        prompts = [
            {
                index: drawing.draw(trial.prompt, scene.mask(value, index), value, index)
                for index in scene.visible(value)[: trial.prompt.frames]
            }
            for value in trial.objects
        ]
        bounds = (min(prompts[0]), scene.annotated[-1] + 1)
        found: dict[int, dict[int, NDArray[np.bool_]]] = {value: {} for value in trial.objects}
        for number, index, result in propagate(predictor, scene.frames, prompts, bounds):
            found[trial.objects[number]][index] = result.mask
        return [
            Judgement(
                value,
                _rate(scene, value, masks, tuple(asked), rules),
                masks,
                asked,
                _shown(scene, value, min(asked)),
            )
            for (value, masks), asked in zip(found.items(), prompts, strict=True)
        ]


def _rate(scene: Scene, value: int, masks: Masks, prompted: Sequence[int], rules: Rules) -> dict[str, float]:
    rated = [index for index in scene.annotated if index >= prompted[0]]
    nothing = np.zeros(scene.truth[0].shape, dtype=np.bool_)
    scores = np.array(
        [region_and_boundary(masks.get(index, nothing), scene.mask(value, index)) for index in rated]
    )
    means = dict(zip(("j", "f", "jf"), scores.mean(axis=0).tolist(), strict=True))
    tracked = ~np.isin(rated, prompted)
    if tracked.any():
        means["jf_tracked"] = float(scores[tracked, 2].mean())
    return {name: mean for name, mean in means.items() if rules.wants(name)}


def _shown(scene: Scene, value: int, start: int) -> tuple[int, ...]:
    """The first frame, and the middle one and the last of those with the object."""
    visible = [index for index in scene.visible(value) if index >= start]
    return tuple(sorted({visible[0], visible[len(visible) // 2], visible[-1]}))
