"""Templates in the memory bank of a policy, and images that do not influence each other."""

import numpy as np
import pytest
import torch

from lib.engine.network import EmbeddingCache
from lib.engine.one_prompt import OnePrompt
from lib.engine.predictor import Predictor
from lib.engine.runtime import Runtime
from lib.labels.labelled_slices import LabelledSlice
from tests.unit.engine.conftest import SIZE, ArrayFrames, make_tiny


def template(seed: int) -> LabelledSlice:
    levels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20 + seed : 60 + seed, 30:70] = True
    return LabelledSlice(f"template {seed}", 0, levels, {"cell": mask})


@pytest.fixture(scope="module")
def rendering() -> Predictor:
    network = make_tiny()
    network.rendered_prompts = True
    return Predictor(network, Runtime(torch.device("cpu"), "fp32"), EmbeddingCache(1 << 30), "tiny", "1")


@pytest.mark.parametrize("policy", ["fifo", "confidence"])
def test_each_image_is_segmented_from_the_templates_alone(rendering, frames, policy):
    segmenter = OnePrompt(rendering, [template(0), template(1)], "cell", policy)
    first = segmenter.frame(frames, 0)
    other = segmenter.frame(frames, 1)
    assert (segmenter.frame(frames, 0).mask == first.mask).all()
    assert first.mask.shape == other.mask.shape == (SIZE, SIZE)


def test_fifo_takes_the_templates_as_the_frames_before_and_confidence_the_most_similar(rendering):
    templates = [template(seed) for seed in range(4)]
    # A copy of the second template: confidence looks at that one, fifo at the last.
    frames = ArrayFrames(templates[1].levels[None], digest="copy")
    query = rendering.features(frames, 0).maps[-1]
    neighbours = {}
    for policy in ("fifo", "confidence"):
        bank = OnePrompt(rendering, templates, "cell", policy)._bank
        remembered = list(bank._prompted.values())
        (neighbours[policy],) = (
            place for place, memory in enumerate(remembered) if memory is bank.neighbour(0, False, query)
        )
    assert neighbours == {"fifo": 3, "confidence": 1}


def test_without_templates_there_is_no_label(rendering):
    with pytest.raises(ValueError, match="no labelled slice of 'cell'"):
        OnePrompt(rendering, [], "cell")
