import numpy as np
import pytest
import torch

from lib.engine.network import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.runtime import Runtime
from lib.prompts.types import FramePrompts
from tests.unit.engine.conftest import SIZE, ArrayFrames, make_tiny

CLICK = FramePrompts(points=[[30, 90]], labels=[1])


def test_a_second_click_on_a_frame_does_not_encode_again(predictor, frames):
    first = predictor.segment(frames, 2, CLICK)
    again = predictor.segment(frames, 2, CLICK)
    assert frames.reads == [2]
    assert (first.mask == again.mask).all()


def test_another_image_or_other_weights_do_not_share_an_embedding(predictor, tiny, frames):
    predictor.segment(frames, 2, CLICK)
    frames.digest = "another image"
    predictor.segment(frames, 2, CLICK)
    other = Predictor(tiny, predictor.runtime, predictor._embeddings, "tiny", "2")
    other.segment(frames, 2, CLICK)
    assert frames.reads == [2, 2, 2]


def test_frames_without_a_digest_are_never_cached(predictor, frames):
    frames.digest = ""
    predictor.segment(frames, 2, CLICK)
    predictor.segment(frames, 2, CLICK)
    assert frames.reads == [2, 2]


def test_a_mask_has_the_size_of_the_native_frame(predictor):
    frames = ArrayFrames(np.zeros((1, 50, 70, 3), np.uint8))
    result = predictor.segment(frames, 0, CLICK)
    assert result.mask.shape == (50, 70)
    assert result.mask.dtype == bool
    assert 0 <= result.score <= 1
    assert 0 <= result.presence <= 1


def test_a_mask_prompt_is_the_result_and_is_remembered(predictor, frames):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:60, 70:110] = True
    bank = predictor.new_bank()
    result = predictor.segment(frames, 1, FramePrompts(points=[], labels=[], mask=mask), bank)
    assert (result.mask == mask).all()
    assert list(bank.recall(0, False, torch.ones(1))["cond_frame_outputs"]) == [1]


def test_memories_stay_in_the_compute_dtype(tiny, frames):
    predictor = Predictor(tiny, Runtime(torch.device("cpu"), "fp32"), EmbeddingCache(1 << 30), "tiny", "1")
    bank = predictor.new_bank()
    predictor.segment(frames, 0, CLICK, bank)
    (memory,) = bank.recall(0, False, torch.ones(1))["cond_frame_outputs"].values()
    assert memory["maskmem_features"].dtype == torch.float32


def test_bf16_gives_nearly_the_masks_of_fp32(tiny, frames):
    masks = [
        Predictor(tiny, Runtime(torch.device("cpu"), precision), EmbeddingCache(0), "tiny", "1")
        .segment(frames, 0, CLICK)
        .mask
        for precision in ("fp32", "bf16")
    ]
    assert (masks[0] == masks[1]).mean() > 0.95


def test_the_outputs_of_several_objects_are_those_of_each_alone(predictor, frames):
    clicks = [FramePrompts(points=[[x, 90]], labels=[1]) for x in range(10, 110, 10)]
    together = predictor.outputs(frames, 2, clicks)
    assert frames.reads == [2]
    assert together.logits.shape == (10, SIZE // 4, SIZE // 4)
    assert len(together.ious) == len(together.object_logits) == 10
    for number in (0, 9):  # one of the first step and one of the next
        alone = predictor.outputs(frames, 2, clicks[number : number + 1])
        np.testing.assert_allclose(alone.logits[0], together.logits[number], atol=1e-3)
        np.testing.assert_allclose(alone.ious[0], together.ious[number], atol=1e-4)
        np.testing.assert_allclose(alone.object_logits[0], together.object_logits[number], atol=1e-2)
        mask = predictor.segment(frames, 2, clicks[number])
        assert mask.score == pytest.approx(np.clip(together.ious[number].max(), 0, 1), abs=1e-4)
        native = torch.nn.functional.interpolate(
            torch.from_numpy(together.logits[number])[None, None], (SIZE, SIZE), mode="bilinear"
        )
        assert ((native[0, 0].numpy() > 0) == mask.mask).mean() > 0.999


def test_the_smallest_and_the_largest_mask_are_those_that_the_network_decoded(predictor, frames):
    clicks = [FramePrompts(points=[[x, 90]], labels=[1]) for x in (20, 60, 100)]
    found = {
        choice: predictor.outputs(frames, 2, clicks, choice) for choice in ("best", "smallest", "largest")
    }
    areas = {choice: (item.logits > 0).sum(axis=(1, 2)) for choice, item in found.items()}
    assert (areas["smallest"] <= areas["best"]).all()
    assert (areas["best"] <= areas["largest"]).all()
    assert (areas["smallest"] < areas["largest"]).any()
    assert found["best"].ious.shape[1] > 1
    assert found["smallest"].ious.shape == (3, 1)


def test_embeddings_outlive_the_next_run_of_a_compiled_encoder(frames, monkeypatch):
    """A CUDA graph returns the same memory each time; here a function does so."""
    memory, runtime = {}, Runtime(torch.device("cpu"), "fp32")

    def like_a_graph(function, mode):
        def run(image):
            for level, value in enumerate(function(image)["backbone_fpn"]):
                memory.setdefault(level, torch.empty_like(value)).copy_(value)
            return {"backbone_fpn": list(memory.values())}

        return run

    expected = Predictor(make_tiny(), runtime, EmbeddingCache(1 << 30), "tiny", "1")
    monkeypatch.setattr(torch, "compile", like_a_graph)
    compiled = Predictor(make_tiny(), runtime, EmbeddingCache(1 << 30), "tiny", "1")
    compiled.use_compiler()
    first, _ = compiled.features(frames, 0), compiled.features(frames, 1)
    for found, wanted in zip(first.maps, expected.features(frames, 0).maps, strict=True):
        assert torch.equal(found, wanted)
