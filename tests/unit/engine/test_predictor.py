import numpy as np
import torch

from lib.engine.embeddings import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.runtime import Runtime
from lib.prompts.types import FramePrompts
from tests.unit.engine.conftest import SIZE, ArrayFrames

CLICK = FramePrompts(points=[[30, 90]], labels=[1])


def test_a_second_click_on_a_frame_does_not_encode_again(predictor, frames):
    first = predictor.segment(frames, "d", 2, CLICK)
    again = predictor.segment(frames, "d", 2, CLICK)
    assert frames.reads == [2]
    assert (first.mask == again.mask).all()


def test_another_image_or_other_weights_do_not_share_an_embedding(predictor, tiny, frames):
    predictor.segment(frames, "d", 2, CLICK)
    predictor.segment(frames, "e", 2, CLICK)
    other = Predictor(tiny, predictor.runtime, predictor._embeddings, "tiny", "2")
    other.segment(frames, "d", 2, CLICK)
    assert frames.reads == [2, 2, 2]


def test_a_mask_has_the_size_of_the_native_frame(predictor):
    frames = ArrayFrames(np.zeros((1, 50, 70, 3), np.uint8))
    result = predictor.segment(frames, "d", 0, CLICK)
    assert result.mask.shape == (50, 70)
    assert result.mask.dtype == bool
    assert 0 <= result.score <= 1
    assert 0 <= result.presence <= 1


def test_a_mask_prompt_is_the_result_and_is_remembered(predictor, frames):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:60, 70:110] = True
    bank = predictor.new_bank()
    result = predictor.segment(frames, "d", 1, FramePrompts(points=[], labels=[], mask=mask), bank)
    assert (result.mask == mask).all()
    assert list(bank.as_output_dict()["cond_frame_outputs"]) == [1]


def test_memories_stay_in_the_compute_dtype(tiny, frames):
    predictor = Predictor(tiny, Runtime(torch.device("cpu"), "fp32"), EmbeddingCache(1 << 30), "tiny", "1")
    bank = predictor.new_bank()
    predictor.segment(frames, "d", 0, CLICK, bank)
    assert bank.as_output_dict()["cond_frame_outputs"][0]["maskmem_features"].dtype == torch.float32


def test_bf16_gives_nearly_the_masks_of_fp32(tiny, frames):
    masks = [
        Predictor(tiny, Runtime(torch.device("cpu"), precision), EmbeddingCache(0), "tiny", "1")
        .segment(frames, "d", 0, CLICK)
        .mask
        for precision in ("fp32", "bf16")
    ]
    assert (masks[0] == masks[1]).mean() > 0.95
