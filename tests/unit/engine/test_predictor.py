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


def test_prompts_reach_the_network_at_the_places_of_their_native_pixels(predictor):
    # 64 wide, 32 high: x grows by 2 and y by 4. The prompt encoder adds half a pixel to what it gets.
    frames = ArrayFrames(np.zeros((1, 32, 64, 3), np.uint8))
    prompts = FramePrompts(points=[[10, 20]], labels=[0], box=[4, 8, 16, 24])
    sent = predictor._network_prompts(prompts, frames)
    assert (sent.coordinates[0] + 0.5).tolist() == [[8, 32], [32, 96], [21, 82]]
    assert sent.labels[0].tolist() == [2, 3, 0]


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


def test_a_frame_becomes_levels_from_0_to_1_at_the_size_of_the_network(predictor):
    frame = np.zeros((10, 20, 3), np.uint8)
    frame[2:4, 16:18] = 255
    levels = predictor._network_image(frame)
    assert levels.shape == (1, 3, SIZE, SIZE)
    assert float(levels.max()) == 1.0
    y, x = divmod(int(levels[0, 0].argmax()), SIZE)
    assert x * 20 // SIZE in (16, 17)
    assert y * 10 // SIZE in (2, 3)


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
