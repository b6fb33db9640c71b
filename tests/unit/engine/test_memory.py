import math

import numpy as np
import pytest
import torch

from lib.engine.memory import (
    BANK_SIZE,
    MemoryBank,
    confidence,
    most_redundant,
    multiplicities,
    object_places,
    redundancy,
    replaced,
    unit_channels,
)


def test_prompted_frames_stay_and_the_oldest_tracked_ones_go():
    bank = MemoryBank(reach=2)
    bank.add_prompted(0, {"n": 0})
    for frame in (1, 2, 3):
        bank.add_tracked(frame, {"n": frame})
    assert list(bank.as_output_dict()["cond_frame_outputs"]) == [0]
    assert list(bank.as_output_dict()["non_cond_frame_outputs"]) == [2, 3]


def test_turning_round_forgets_tracked_frames_alone():
    bank = MemoryBank(reach=2)
    bank.add_prompted(5, {})
    bank.add_tracked(4, {})
    bank.forget_tracked()
    assert bank.as_output_dict() == {"cond_frame_outputs": {5: {}}, "non_cond_frame_outputs": {}}


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
    assert bank.as_output_dict() == {"cond_frame_outputs": {0: {"n": 0}}, "non_cond_frame_outputs": {}}
    assert other.as_output_dict()["non_cond_frame_outputs"] == {2: {"n": 2}}


def test_confidence_is_the_predicted_iou_of_an_object_that_is_there():
    assert confidence(0.8, 0.5) == pytest.approx(0.4)


def test_redundancy_is_the_sum_of_cosines_over_the_places():
    newest = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])  # (1, 0) at the first place, (0, 2) at the second
    memory = torch.tensor([[[3.0, 1.0]], [[0.0, 1.0]]])  # (3, 0) and (1, 1): cosines 1 and 1 / sqrt(2)
    memory, newest = unit_channels(memory), unit_channels(newest)
    assert float(redundancy(memory, newest)) == pytest.approx(1 + 0.5**0.5)
    assert float(redundancy(-memory, newest)) == pytest.approx(-1 - 0.5**0.5)
    places = torch.tensor([[0.25, 0.75]])
    assert float(redundancy(memory, newest, places)) == pytest.approx(0.25 + 0.75 * 0.5**0.5)
    assert unit_channels(torch.zeros(2, 1, 1)).tolist() == [[[0.0]], [[0.0]]]
    assert most_redundant([0.2, 0.9, 0.4, 0.9, 0.1], 2) == [1, 3]


@pytest.mark.parametrize(
    ("held", "newest", "expected"),
    [
        ([0.0, 1.0], [0.5, 0.0], [1 / 3, 2 / 3]),
        ([1.0, 0.0], [0.5, 0.0], [1, 0]),
        ([0, 0], [0, 0], [0.5, 0.5]),
    ],
)
def test_places_count_as_far_as_one_of_two_memories_holds_the_object(held, newest, expected):
    places = object_places(torch.tensor([held]), torch.tensor([newest]))
    assert places.flatten().tolist() == pytest.approx(expected, abs=1e-5)


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


def test_the_pruned_policy_leaves_out_tracked_frames_that_are_nearly_the_newest():
    bank = MemoryBank(reach=16, policy="pruned", spatial=5)
    bank.add_prompted(0, memory([0.0, 1.0]))
    for frame, channels in enumerate([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.1, 1.0]], start=1):
        bank.add_tracked(frame, memory(channels))
    # Cosines with the newest: 0.1, 0.995 and 0.86. The prompted frame is always read.
    assert places_read(bank, 5) == {1: 2, 2: 0, 3: 2, 4: 2}
    assert bank.recall(5, False, torch.ones(1))["cond_frame_outputs"][0]["maskmem_features"].shape[-2] == 2
    assert places_read(bank.copy(), 5) == places_read(bank, 5)
    bank.add_tracked(5, memory([0.6, 0.8]))  # frame 1 is out of the window
    assert places_read(bank, 6) == {1: 2, 2: 2, 3: 0, 4: 2, 5: 2}
    bank.forget_tracked()
    assert places_read(bank, 6) == {}
    few = MemoryBank(reach=16, policy="pruned", spatial=5)
    few.add_prompted(0, memory([1.0, 0.0]))
    few.add_tracked(1, memory([1.0, 0.0]))
    assert few.recall(2, False, torch.ones(1, 2, 2, 2)) == few.as_output_dict()


def test_two_memories_at_most_are_left_out_as_in_the_paper():
    bank = MemoryBank(reach=16, policy="pruned", spatial=7)
    bank.keeps_absent = False
    bank.add_prompted(0, memory([0.0, 1.0]))
    for frame, x in enumerate([0.81, 0.95, 0.82, 0.83, 0.94, 1.0], start=1):
        bank.add_tracked(frame, memory([x, 1.0]))
    # Frames are read at the distance at which the object was last seen: frame 6 stands at 8, before 9.
    assert places_read(bank, 9) == {8: 2, 7: 0, 6: 2, 5: 2, 4: 0, 3: 2}


def test_the_background_does_not_decide_what_is_pruned():
    def seen_at(column: int) -> dict:
        """An object of one column, with features of its own, on a background that never changes."""
        features = torch.zeros(1, 2, 4, 4)
        features[:, 0], features[:, 0, :, column], features[:, 1, :, column] = 1, 0, 1
        logits = torch.full((1, 1, 4, 4), -1.0)
        logits[..., column] = 1
        return memory([1.0, 0.0]) | {"maskmem_features": features, "logits": logits}

    bank = MemoryBank(reach=4, policy="pruned", spatial=3)
    bank.add_prompted(0, memory([1.0, 0.0]))
    bank.add_tracked(1, seen_at(0))
    bank.add_tracked(2, seen_at(0))
    assert bank.joint_key[-1] == 1  # left out
    bank.add_tracked(3, seen_at(1))
    assert bank.joint_key[-1] == "out"


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
    bank.add_prompted(-2, template(1.0, 0.0))
    recalled = bank.recall(1, False, torch.ones(1, 2, 1, 1))
    assert recalled == {
        "cond_frame_outputs": bank.as_output_dict()["cond_frame_outputs"],
        "non_cond_frame_outputs": {},
    }


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
