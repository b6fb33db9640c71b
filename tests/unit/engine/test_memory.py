import math

import numpy as np
import pytest
import torch

from lib.engine.memory import (
    BANK_SIZE,
    MemoryBank,
    confidence,
    multiplicities,
    replaced,
)


def test_prompted_frames_stay_and_the_oldest_tracked_ones_go():
    bank = MemoryBank(reach=2)
    bank.add_prompted(0, {"n": 0})
    for frame in (1, 2, 3):
        bank.add_tracked(frame, {"n": frame})
    assert list(bank.recall(0, False, torch.ones(1))["cond_frame_outputs"]) == [0]
    assert list(bank.recall(0, False, torch.ones(1))["non_cond_frame_outputs"]) == [2, 3]


def test_turning_round_forgets_tracked_frames_alone():
    bank = MemoryBank(reach=2)
    bank.add_prompted(5, {})
    bank.add_tracked(4, {})
    bank.forget_tracked()
    assert bank.recall(0, False, torch.ones(1)) == {
        "cond_frame_outputs": {5: {}},
        "non_cond_frame_outputs": {},
    }


def test_the_neighbour_is_the_frame_that_was_visited_before():
    bank = MemoryBank(reach=4)
    bank.add_prompted(5, {"n": 5})
    bank.add_tracked(6, {"n": 6})
    assert bank.neighbour(7, reverse=False) == {"n": 6}
    assert bank.neighbour(6, reverse=False) == {"n": 5}
    assert bank.neighbour(4, reverse=True) == {"n": 5}
    assert bank.neighbour(9, reverse=False) is None


def test_a_copy_goes_its_own_way():
    bank = MemoryBank(reach=1)
    bank.add_prompted(0, {"n": 0})
    other = bank.copy()
    other.add_tracked(1, {"n": 1})
    other.add_tracked(2, {"n": 2})
    assert bank.recall(0, False, torch.ones(1)) == {
        "cond_frame_outputs": {0: {"n": 0}},
        "non_cond_frame_outputs": {},
    }
    assert other.recall(0, False, torch.ones(1))["non_cond_frame_outputs"] == {2: {"n": 2}}


def test_confidence_is_the_predicted_iou_of_an_object_that_is_there():
    assert confidence(0.8, 0.5) == pytest.approx(0.4)


def test_a_new_memory_replaces_the_one_most_like_that_from_which_it_differs_most():
    cosines = [[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 1.0]]
    # Least like memory 0, which is most like memory 1 (0.9): memory 1 goes, where c > 0.7 - 0.1.
    assert replaced([0.1, 0.5, 0.6], cosines, 0.65, [0.8, 0.7, 0.9]) == 1
    assert replaced([0.1, 0.5, 0.6], cosines, 0.60, [0.8, 0.7, 0.9]) is None
    # Least like memory 2 (0.4), but that is less like the others (0.3): the new one adds nothing.
    assert replaced([0.6, 0.5, 0.4], cosines, 1.0, [0.8, 0.7, 0.9]) is None


def test_memories_are_picked_up_in_proportion_to_their_likeness():
    # softmax of (ln 3, 0) is (3/4, 1/4), of six 4.5 and 1.5: the remainders are equal, the first one counts.
    assert multiplicities([math.log(3), 0.0], picked=6, temperature=1.0) == [5, 1]
    assert multiplicities([0.4, 0.4, 0.4], picked=6) == [2, 2, 2]
    assert sum(multiplicities([0.9, 0.1, -0.3], picked=6)) == 6


def memory(channels: list[float], c: float = 1.0) -> dict:
    features = torch.tensor(channels)[None, :, None, None].expand(1, -1, 2, 2)
    return {
        "maskmem_features": features,
        "maskmem_pos_enc": [features],
        "obj_ptr": 1,
        "confidence": c,
        "embedding": features,
        "logits": torch.ones(1, 1, 2, 2),
    }


def places_read(bank: MemoryBank, frame: int) -> dict[int, int]:
    """Rows of the memory of each tracked frame that memory attention reads."""
    recalled = bank.recall(frame, False, torch.ones(1, 2, 2, 2))["non_cond_frame_outputs"]
    return {index: item["maskmem_features"].shape[-2] for index, item in recalled.items()}


def track(bank: MemoryBank, frame: int, channels: list[float], present: bool = True) -> bool:
    """Adds a frame as the predictor does; whether it has a memory of its own."""
    new = memory(channels) | {"logits": torch.full((1, 1, 4, 4), 1.0 if present else -1.0)}
    spared = bank.spares(new["embedding"][0], new["logits"][0])
    if spared:
        bank.add_spared(frame, {name: new[name] for name in ("obj_ptr", "logits")})
    else:
        bank.add_tracked(frame, new)
    return not spared


def test_the_pruned_policy_reads_one_memory_of_frames_on_which_the_object_looks_the_same():
    bank = MemoryBank(reach=16, policy="pruned", spatial=5)
    bank.add_prompted(0, memory([0.0, 1.0]))
    assert [
        track(bank, frame, channels)
        for frame, channels in enumerate([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0], [0.6, 0.8]], 1)
    ] == [True, True, False, False, True]
    # Frames 2, 3 and 4 share a memory, which stands at the newest of them. The prompted frame is always read.
    assert places_read(bank, 6) == {1: 2, 2: 0, 3: 0, 4: 2, 5: 2}
    recalled = bank.recall(6, False, torch.ones(1))
    assert recalled["cond_frame_outputs"][0]["maskmem_features"].shape[-2] == 2
    assert recalled["non_cond_frame_outputs"][4]["maskmem_features"][0, :, 0, 0].tolist() == [0.0, 1.0]
    assert places_read(bank.copy(), 6) == places_read(bank, 6)
    assert track(bank.copy(), 6, [0.6, 0.8]) is False
    bank.forget_tracked()
    assert places_read(bank, 6) == {}
    assert track(bank, 6, [0.6, 0.8])  # nothing is left that could stand in


def test_a_shared_memory_outlives_the_frame_that_it_was_encoded_on():
    bank = MemoryBank(reach=2, policy="pruned", spatial=3)
    for frame in range(5):
        track(bank, frame, [1.0, 0.0])
    assert places_read(bank, 5) == {3: 0, 4: 2}
    assert bank.copy().joint_key == bank.joint_key


def test_frames_that_are_not_remembered_need_no_memory():
    for policy in ("fifo", "pruned"):
        bank = MemoryBank(reach=4, policy=policy)
        bank.keeps_absent = False
        bank.add_prompted(0, memory([0.0, 1.0]))
        assert not track(bank, 1, [1.0, 0.0], present=False)
        assert places_read(bank, 2) == {}
        assert track(bank, 2, [1.0, 0.0])
        assert not track(bank, 3, [1.0, 0.0], present=False)
        assert places_read(bank, 9) == {8: 2}


def test_a_frame_without_the_object_is_remembered_where_it_counts():
    bank = MemoryBank(reach=4, policy="pruned")
    assert track(bank, 1, [1.0, 0.0])
    assert track(bank, 2, [1.0, 0.0], present=False)
    assert track(bank, 3, [1.0, 0.0], present=False)


def test_the_confidence_policy_pins_prompted_frames_and_refuses_doubtful_ones():
    bank = MemoryBank(reach=4, policy="confidence")
    bank.add_prompted(9, memory([0.0, 1.0]))
    query = memory([1.0, 0.0])["embedding"]
    assert list(bank.recall(8, True, query)["cond_frame_outputs"]) == [9]
    bank.add_tracked(8, memory([1.0, 0.0], c=0.4))
    assert list(bank.recall(7, True, query)["cond_frame_outputs"]) == [9]
    bank.add_tracked(7, memory([1.0, 0.0], c=0.6))
    recalled = bank.recall(6, True, query)["cond_frame_outputs"]
    assert list(recalled) == [7, 8, 9, 10, 11, 12, 13]  # the prompted frame once, the alike one six times
    assert recalled[7]["maskmem_features"][0, 1, 0, 0] == 1
    assert all(recalled[index]["maskmem_features"][0, 0, 0, 0] == 1 for index in range(8, 14))
    bank.forget_tracked()
    assert list(bank.recall(10, False, query)["cond_frame_outputs"]) == [9]


def test_a_full_confidence_bank_keeps_its_size():
    bank = MemoryBank(reach=4, policy="confidence")
    rng = np.random.default_rng(0)
    for frame in range(3 * BANK_SIZE):
        bank.add_tracked(frame, memory(rng.normal(size=2).tolist(), c=0.9))
    assert len(bank._confident) == BANK_SIZE


def template(*embedding):
    return {"embedding": torch.tensor(embedding).view(1, -1, 1, 1), "name": embedding}


def test_the_confidence_policy_picks_among_templates_by_similarity():
    bank, fifo = MemoryBank(16, "confidence", spatial=3), MemoryBank(16)
    for place, vector in enumerate([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]):
        bank.add_prompted(-2 * (place + 1), template(*vector))
        fifo.add_prompted(-2 * (place + 1), template(*vector))
    query = torch.tensor([0.0, 3.0]).view(1, -1, 1, 1)
    # Two picks: softmax((0, 1, 0) / 0.1) gives the second nearly all of them.
    picked = bank.recall(1, False, query)["cond_frame_outputs"]
    assert {frame: memory["name"] for frame, memory in picked.items()} == {0: (0.0, 1.0), -1: (0.0, 1.0)}
    assert bank.neighbour(1, False, query)["name"] == (0.0, 1.0)
    assert bank.similarity(torch.tensor([0.6, 0.8]).view(1, -1, 1, 1)) == pytest.approx(0.8)
    # Without the frame's embedding, and with SAM 2's own policy, a neighbour is the frame beside.
    assert bank.neighbour(1, False) is None
    assert fifo.neighbour(1, False, query) is None


def test_one_template_alone_is_all_that_the_confidence_policy_attends_to():
    bank = MemoryBank(16, "confidence")
    only = template(1.0, 0.0)
    bank.add_prompted(-2, only)
    recalled = bank.recall(1, False, torch.ones(1, 2, 1, 1))
    assert recalled == {"cond_frame_outputs": {-2: only}, "non_cond_frame_outputs": {}}


def test_without_absent_frames_the_last_sightings_stand_in_for_those_just_visited():
    bank = MemoryBank(reach=4)
    bank.keeps_absent = False
    bank.add_prompted(0, {"n": 0})
    for frame, logit in ((1, 2.0), (2, 1.0), (3, -1024.0), (4, -1024.0)):
        bank.add_tracked(frame, {"n": frame, "logits": torch.full((1, 1, 2, 2), logit)})
    assert bank.neighbour(5, reverse=False)["n"] == 2
    recalled = bank.recall(5, False, torch.zeros(1, 1, 1, 1))
    assert {index: memory["n"] for index, memory in recalled["non_cond_frame_outputs"].items()} == {
        4: 2,
        3: 1,
    }
