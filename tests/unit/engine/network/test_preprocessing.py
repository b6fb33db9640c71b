import numpy as np
import torch

from lib.engine.network import network_image, stack_prompts
from lib.prompts.types import FramePrompts

CPU = torch.device("cpu")


def test_a_frame_becomes_levels_from_0_to_1_at_the_size_of_the_network():
    frame = np.zeros((10, 20, 3), np.uint8)
    frame[2:4, 16:18] = 255
    levels = network_image(frame, 128)
    assert levels.shape == (1, 3, 128, 128)
    assert float(levels.max()) == 1.0
    y, x = divmod(int(levels[0, 0].argmax()), 128)
    assert x * 20 // 128 in (16, 17)
    assert y * 10 // 128 in (2, 3)


def test_prompts_reach_the_network_at_the_places_of_their_native_pixels():
    # 64 wide, 32 high: x grows by 2 and y by 4. The prompt encoder adds half a pixel to what it gets.
    prompts = FramePrompts(points=[[10, 20]], labels=[0], box=[4, 8, 16, 24])
    sent = stack_prompts([prompts], [(64, 32)], 128, CPU)
    assert (sent.coordinates[0] + 0.5).tolist() == [[8, 32], [32, 96], [21, 82]]
    assert sent.labels[0].tolist() == [2, 3, 0]


def test_each_of_several_prompts_is_scaled_by_its_own_frame():
    click = FramePrompts(points=[[10, 20]], labels=[1])
    sent = stack_prompts([click, click], [(64, 32), (128, 128)], 128, CPU)
    assert (sent.coordinates[:, 0] + 0.5).tolist() == [[21, 82], [10.5, 20.5]]
