"""Propagation, against Meta's own video predictor where the two are meant to agree."""

import math
import threading
from collections import OrderedDict

import numpy as np
import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from lib.engine.frames import AHEAD
from lib.engine.network import network_image
from lib.engine.predictor import FrameMask
from lib.engine.propagation import StopRule, propagate
from lib.prompts.types import FramePrompts
from tests.unit.engine.conftest import SIZE, TINY, ArrayFrames

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def click(x: float, y: float) -> FramePrompts:
    return FramePrompts(points=[[x, y]], labels=[1])


def meta_predictor(network) -> SAM2VideoPredictor:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    model = OmegaConf.load(TINY).model
    model._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    model.image_size = SIZE
    predictor = instantiate(model).eval()
    predictor.load_state_dict(network.state_dict())
    return predictor


def meta_state(images: torch.Tensor) -> dict:
    count = len(images)
    device = torch.device("cpu")
    return {
        "images": images, "num_frames": count, "offload_video_to_cpu": False, "offload_state_to_cpu": False,
        "video_height": SIZE, "video_width": SIZE, "device": device, "storage_device": device,
        "point_inputs_per_obj": {}, "mask_inputs_per_obj": {}, "cached_features": {}, "constants": {},
        "obj_id_to_idx": OrderedDict(), "obj_idx_to_id": OrderedDict(), "obj_ids": [],
        "output_dict_per_obj": {}, "temp_output_dict_per_obj": {}, "frames_tracked_per_obj": {},
    }  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
def test_masks_equal_those_of_metas_video_predictor(predictor, tiny, frames, reverse):
    start = 4 if reverse else 1
    images = torch.cat([(network_image(frames[index], SIZE) - MEAN) / STD for index in range(len(frames))])
    meta = meta_predictor(tiny)
    state = meta_state(images)
    place = np.array([[40.0, 70.0]], dtype=np.float32)
    meta.add_new_points_or_box(state, start, 1, place / SIZE, np.array([1]), normalize_coords=False)
    expected = {
        index: (logits[0, 0] > 0).numpy()
        for index, _, logits in meta.propagate_in_video(state, reverse=reverse)
    }
    found = {
        index: result.mask for _, index, result in propagate(predictor, frames, [{start: click(40.0, 70.0)}])
    }
    assert sorted(expected) == (list(range(start + 1)) if reverse else list(range(start, len(frames))))
    for index, mask in expected.items():
        assert 0 < mask.mean() < 1
        # Meta rounds its memories to bf16 even here; ours stay fp32.
        assert (found[index] == mask).mean() > 0.99, index


def visited(predictor, frames, objects, **options) -> list[tuple[int, int]]:
    return [(number, index) for number, index, _ in propagate(predictor, frames, objects, **options)]


def test_prompted_frames_come_first_then_backward_then_forward(predictor, frames):
    prompts = {2: click(40, 70), 4: click(50, 60)}
    assert [index for _, index in visited(predictor, frames, [prompts])] == [2, 4, 1, 0, 3, 5]


def test_bounds_and_limit_keep_the_way_short(predictor, frames):
    objects = [{3: click(40, 70)}]
    assert [index for _, index in visited(predictor, frames, objects, bounds=(2, 5))] == [3, 2, 4]
    assert [index for _, index in visited(predictor, frames, objects, limit=1)] == [3, 2, 4]


def test_objects_share_the_embeddings(predictor, frames):
    visited(predictor, frames, [{2: click(40, 70)}, {3: click(80, 20)}])
    assert sorted(frames.reads) == [0, 1, 2, 3, 4, 5]


def test_a_correction_on_a_tracked_frame_is_kept_and_changes_its_neighbours(predictor, frames):
    def masks(objects) -> dict[int, np.ndarray]:
        return {index: result.mask for _, index, result in propagate(predictor, frames, objects)}

    before = masks([{1: click(40, 70)}])
    corrected = masks([{1: click(40, 70), 3: click(90, 30)}])
    alone = predictor.segment(frames, 3, click(90, 30))
    assert (corrected[3] == alone.mask).all()
    assert (corrected[1] == before[1]).all()
    assert (corrected[4] != before[4]).any()


def test_negative_points_alone_correct_the_mask_that_they_lie_in_on_the_way(predictor, frames):
    def masks(objects) -> dict[int, np.ndarray]:
        return {index: result.mask for _, index, result in propagate(predictor, frames, objects)}

    def refused(place) -> FramePrompts:
        return FramePrompts(points=[place], labels=[0])

    before = masks([{1: click(40, 70)}])
    inside, outside = (np.argwhere(before[3] == side)[0][::-1] for side in (True, False))
    corrected = masks([{1: click(40, 70), 3: refused(inside)}])
    assert list(corrected) == list(before)  # not first, as a frame is that says where the object is
    assert all((corrected[index] == before[index]).all() for index in (0, 1, 2))
    assert (corrected[3] != before[3]).any()
    same = masks([{1: click(40, 70), 3: refused(outside)}])
    assert all((same[index] == before[index]).all() for index in before)


class ScriptedPredictor:
    """Stands for a network: it sees the object on the given frames and nowhere else."""

    def __init__(self, present: set[int]):
        self.present = present

    def new_bank(self, policy="fifo"):
        from lib.engine.memory import MemoryBank

        return MemoryBank(16)

    def _result(self, index: int) -> FrameMask:
        return FrameMask(np.full((4, 4), index in self.present), 0.9, 0.9)

    def segment(self, frames, index, prompts, bank):
        return self._result(index)

    def track(self, frames, index, bank, reverse, prompts=None):
        return self._result(index)


def test_following_stops_after_three_frames_without_the_object():
    predictor = ScriptedPredictor({8, 9, 10, 11, 12})
    found = [index for _, index in visited(predictor, range(30), [{10: click(1, 1)}])]
    assert found == [10, 9, 8, 7, 6, 5, 11, 12, 13, 14, 15]


def test_a_short_gap_does_not_stop_it_and_a_later_prompt_takes_it_up_again():
    predictor = ScriptedPredictor({0, 1, 4, 5, 20, 21})
    found = [index for _, index in visited(predictor, range(30), [{0: click(1, 1), 20: click(1, 1)}])]
    assert found == [0, 20, *range(1, 9), 21, 22, 23, 24]


def test_in_a_video_an_object_may_come_back_after_any_time():
    predictor = ScriptedPredictor({0, 1, 12, 13})
    found = {
        index: bool(result.mask.any())
        for _, index, result in propagate(predictor, range(20), [{0: click(1, 1)}], ends=False)
    }
    assert list(found) == list(range(20))
    assert [index for index, seen in found.items() if seen] == [0, 1, 12, 13]


def test_every_memory_policy_follows_an_object_and_fifo_is_the_default(predictor, frames):
    objects = [{0: click(40.0, 70.0)}]

    def masks(**options):
        return np.stack(
            [result.mask for _, _, result in propagate(predictor, frames, objects, ends=False, **options)]
        )

    fifo = masks()
    assert len(fifo) == len(frames)
    assert (masks(memory="fifo") == fifo).all()
    for policy in ("pruned", "confidence"):
        assert (masks(memory=policy) == masks(memory=policy)).all(), policy
        assert masks(memory=policy).shape == fifo.shape


def test_a_drawn_mask_is_its_answer_and_closes_the_object_where_three_slices_are_drawn(predictor, frames):
    drawn = np.zeros((frames.height, frames.width), bool)
    drawn[20:60, 20:60] = True
    masks = {index: FramePrompts.of_mask(drawn) for index in (1, 2, 3)}
    found = {index: result.mask for _, index, result in propagate(predictor, frames, [masks], closed=True)}
    assert sorted(found) == [1, 2, 3]
    assert all((mask == drawn).all() for mask in found.values())
    assert 0 in {index for _, index, _ in propagate(predictor, frames, [masks])}


def test_frames_are_read_ahead_in_a_thread_once_each_and_no_further_than_needed(predictor, tiny):
    noise = np.random.default_rng(1).integers(0, 256, (30, SIZE, SIZE, 3), dtype=np.uint8)
    frames, readers = ArrayFrames(noise), {}

    class Watched(ArrayFrames):
        def __getitem__(self, index):
            readers[index] = threading.current_thread().name
            return super().__getitem__(index)

    watched = Watched(noise, digest="watched")
    expected = [
        result.mask for _, _, result in propagate(predictor, frames, [{2: click(40, 70)}], bounds=(0, 8))
    ]
    steps = propagate(predictor, watched, [{2: click(40, 70)}], ends=False)
    found = [next(steps)[2].mask for _ in range(8)]
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert watched.reads.count(7) == 1
    assert max(watched.reads) <= 7 + AHEAD
    assert readers[6].startswith("frames-ahead")
    steps.close()  # as where the client goes: nothing is read any more
    assert not any(thread.name.startswith("frames-ahead") and thread.is_alive() for thread in waited())


def waited() -> list[threading.Thread]:
    found = [thread for thread in threading.enumerate() if thread.name.startswith("frames-ahead")]
    for thread in found:
        thread.join(60)
    return found


def end_of(areas: list[int]) -> int | None:
    """Position of the first slice that is no longer the object; the first area is where it starts."""
    ending = StopRule(areas[0])
    return next((index for index, area in enumerate(areas[1:], start=1) if ending.reached(area)), None)


def ball(radius: int) -> list[int]:
    return [round(math.pi * (radius**2 - height**2)) for height in range(radius)]


@pytest.mark.parametrize("radius", [3, 5, 10, 40, 200])
def test_a_ball_is_followed_to_its_last_slice_and_ends_with_the_first_empty_one(radius):
    areas = ball(radius)
    assert end_of(areas) is None
    assert end_of([*areas, 0, 0, 0]) is not None


def test_three_empty_slices_are_the_end_and_two_are_a_gap():
    assert end_of([100, 90, 0, 0, 95, 90]) is None
    assert end_of([100, 90, 0, 0, 0]) == 4


def test_what_had_tapered_ends_with_the_first_empty_slice():
    assert end_of([100, 60, 20, 0, 30]) == 3


def test_what_had_tapered_and_grows_again_is_another_object():
    assert end_of([100, 60, 20, 24, 31]) == 4


def test_what_stays_small_is_another_object():
    assert end_of([100, 60, 20, 20, 19, 19]) == 5


def test_a_tube_that_keeps_its_size_or_varies_is_followed():
    assert end_of([40, 38, 44, 30, 25, 45, 40, 12, 40, 41]) is None


def test_an_object_that_grows_from_its_prompt_is_followed_until_it_tapers():
    assert end_of([20, 60, 200, 400, 300, 120, 60, 30, 10]) is None


def test_what_stays_at_less_than_half_of_its_size_is_another_object():
    assert end_of([100, 80, 60, 45, 44, 45, 46]) == 6
    assert end_of([100, 80, 60, 45, 44, 39, 35, 34, 30]) is None
    # In thin slices an object takes more of them to shrink.
    assert end_of([*(area + 2 for area in ball(100)[:80]), *[11300] * 5]) is None
    assert end_of([*(area + 2 for area in ball(100)[:80]), *[11300] * 12]) is not None


def test_an_object_that_was_not_found_on_its_prompted_slice_is_looked_for_beside_it():
    assert end_of([0, 5, 40, 80, 60]) is None
    assert end_of([0, 0, 0, 0]) == 3
