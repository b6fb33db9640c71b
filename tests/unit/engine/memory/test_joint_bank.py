"""Objects that are followed together have the masks that they have alone, with fewer steps of the network."""

from itertools import cycle

import numpy as np
import pytest
import torch

from lib.engine.memory import MemoryBank
from lib.engine.network import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.propagation import propagate
from lib.engine.runtime import Runtime
from lib.prompts.types import FramePrompts
from tests.unit.engine.conftest import make_tiny


def click(x: float, y: float, label: int = 1) -> FramePrompts:
    return FramePrompts(points=[[x, y]], labels=[label])


def make_predictor(rendered: bool) -> Predictor:
    network = make_tiny()
    network.rendered_prompts = rendered
    return Predictor(network, Runtime(torch.device("cpu"), "fp32"), EmbeddingCache(1 << 30), "tiny", "1")


def compared(predictor, frames, objects, **options) -> list[int]:
    """Numbers of objects in each step of the network, after the masks were compared with those alone."""
    alone = {
        (number, index): result
        for number, prompts in enumerate(objects)
        for _, index, result in propagate(predictor, frames, [prompts], **options)
    }
    steps, network = [], predictor._network
    track = network.track
    network.track = lambda features, *rest: steps.append(len(features.maps[0])) or track(features, *rest)
    together = list(propagate(predictor, frames, objects, **options))
    assert {(number, index) for number, index, _ in together} == set(alone)
    for number, index, result in together:
        assert np.mean(result.mask != alone[number, index].mask) < 1e-3, (number, index)
        assert result.score == pytest.approx(alone[number, index].score, abs=1e-3)
    assert sum(steps) == len(alone) - sum(here.has_positive for each in objects for here in each.values())
    return steps


@pytest.mark.parametrize("rendered", [False, True])
def test_together_is_as_alone(frames, rendered):
    objects = [
        {2: click(40, 70)},
        {2: click(80, 20)},
        {2: click(60, 60), 4: click(64, 64)},  # remembers one frame more
        {2: click(20, 100), 3: click(20, 100, label=0)},  # corrected on its way, by itself
    ]
    steps = compared(make_predictor(rendered), frames, objects)
    assert max(steps) == 3
    assert len(steps) < sum(steps)


@pytest.mark.parametrize("policy", ["fifo", "pruned"])
@pytest.mark.parametrize("rendered", [False, True])
def test_objects_of_a_video_are_followed_together_while_they_remember_equally_many_frames(
    frames, rendered, policy, monkeypatch
):
    class Lost(MemoryBank):
        """Has not seen the object on the second frame after the prompt."""

        def _put(self, frame, memory):
            if frame != 2:
                super()._put(frame, memory)

    # With random weights no two frames are alike.
    monkeypatch.setattr("lib.engine.frame_pruning.REDUNDANT", -1.0)
    predictor = make_predictor(rendered)
    banks = cycle([MemoryBank, Lost])
    monkeypatch.setattr(predictor, "new_bank", lambda policy: next(banks)(2, policy, spatial=3))
    objects = [{0: click(40, 70)}, {0: click(80, 20)}]
    # On the fourth frame one remembers a frame less; then both remember two again.
    steps = compared(predictor, frames, objects, ends=False, memory=policy)
    assert steps == [2, 2, 1, 1, 2, 2]
