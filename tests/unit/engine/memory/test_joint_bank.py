"""Objects that are followed together have the masks that they have alone, with fewer steps of the network."""

import numpy as np
import pytest
import torch

from lib.engine.network import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.propagation import propagate
from lib.engine.runtime import Runtime
from lib.prompts.types import FramePrompts
from tests.unit.engine.conftest import make_tiny


def click(x: float, y: float, label: int = 1) -> FramePrompts:
    return FramePrompts(points=[[x, y]], labels=[label])


@pytest.mark.parametrize("rendered", [False, True])
def test_together_is_as_alone(frames, rendered):
    network = make_tiny()
    network.rendered_prompts = rendered
    predictor = Predictor(network, Runtime(torch.device("cpu"), "fp32"), EmbeddingCache(1 << 30), "tiny", "1")
    objects = [
        {2: click(40, 70)},
        {2: click(80, 20)},
        {2: click(60, 60), 4: click(64, 64)},  # remembers one frame more
        {2: click(20, 100), 3: click(20, 100, label=0)},  # corrected on its way, by itself
    ]
    alone = {
        (number, index): result
        for number, prompts in enumerate(objects)
        for _, index, result in propagate(predictor, frames, [prompts])
    }
    steps = []
    track = network.track
    network.track = lambda features, *rest: steps.append(len(features.maps[0])) or track(features, *rest)
    together = list(propagate(predictor, frames, objects))
    assert {(number, index) for number, index, _ in together} == set(alone)
    for number, index, result in together:
        assert np.mean(result.mask != alone[number, index].mask) < 1e-3, (number, index)
        assert result.score == pytest.approx(alone[number, index].score, abs=1e-3)
    assert sum(steps) == len(alone) - 5
    assert max(steps) == 3
    assert len(steps) < len(alone) - 5
