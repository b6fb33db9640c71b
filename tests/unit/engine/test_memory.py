from lib.engine.memory import MemoryBank


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
