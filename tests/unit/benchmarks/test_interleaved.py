import numpy as np
import pytest

from benchmarks.interleaved import (
    FLOOR,
    OURS,
    PEER,
    TORCH,
    Timings,
    Volume,
    click_steps,
    clicks,
    measure_clicks,
    measure_propagation,
    turn_order,
)

SHAPE = (20, 16, 6)


class FakeFloor:
    def click(self, seed=0):
        return {"encoder": 0.25, "decoder": 0.125}

    def propagation(self, slices):
        return {"total": 1.0, "decoder": 0.125}


@pytest.fixture
def volumes():
    return [Volume(f"bench_{number}", SHAPE) for number in range(3)]


@pytest.fixture
def viewers(viewer_of):
    everything = np.ones(SHAPE, bool)
    return {
        who: viewer_of(lambda model, params: everything, seconds)
        for who, seconds in ((OURS, 0.5), (PEER, 2.0))
    }


def test_each_server_is_first_in_every_second_round():
    assert [turn_order(turn, (OURS, PEER))[0] for turn in range(4)] == [OURS, PEER, OURS, PEER]
    assert turn_order(1, (OURS, TORCH, PEER)) == [TORCH, PEER, OURS]


def test_only_the_first_click_of_a_round_meets_an_image_that_is_not_open():
    names = [name for name, _, _ in click_steps(SHAPE)]
    assert names[0] == "cold click, image not open"
    assert names.count("cold click, image not open") == 1


def test_clicks_are_inside_and_on_the_slice():
    points = clicks((256, 256, 24), 7, 3)
    assert len(points) == 3
    assert all(0 <= i < 256 and 0 <= j < 256 and k == 7 for i, j, k in points)


def test_both_servers_get_the_same_requests(viewers, volumes, tmp_path):
    measure_clicks(viewers, FakeFloor(), volumes, tmp_path, Timings())
    ours, peer = ([(image, params) for _, image, params in viewers[who].asked] for who in (OURS, PEER))
    assert ours == peer
    assert {model for model, _, _ in viewers[PEER].asked} == {"sam_2d"}


def test_the_first_volume_warms_up_and_is_not_counted(viewers, volumes, tmp_path):
    timings = Timings()
    measure_clicks(viewers, FakeFloor(), volumes, tmp_path, timings)
    assert timings.seconds["cold click, image not open"] == {OURS: [0.5, 0.5], PEER: [2.0, 2.0]}
    assert timings.seconds["encoder"] == {FLOOR: [0.25, 0.25]}


def test_propagation_is_per_slice(viewers, volumes):
    timings = Timings()
    measure_propagation(viewers, FakeFloor(), volumes, timings)
    assert timings.seconds["propagation, per slice"][PEER] == [2.0 / 6] * 2
    assert timings.seconds["propagation total"] == {FLOOR: [1.0, 1.0]}


def test_a_server_that_stops_early_is_not_called_fast(viewers, volumes, viewer_of):
    half = np.ones(SHAPE, bool)
    half[:, :, 3:] = False
    viewers[OURS] = viewer_of(lambda model, params: half)
    with pytest.raises(RuntimeError, match="ours answered 3 of 6 slices of bench_0"):
        measure_propagation(viewers, FakeFloor(), volumes, Timings())
