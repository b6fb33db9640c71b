from types import SimpleNamespace

import pytest

from benchmarks.memory_growth import growth, measure, report


def test_growth_is_from_the_fifth_with_full_caches_to_the_last():
    assert growth([100.0, 150.0, *[200.0] * 8]) == 0
    assert growth([100.0 + number for number in range(10)]) == pytest.approx(6)


def test_every_volume_gets_its_share_of_the_clicks_and_the_report_says_what_is_allowed(viewer_of):
    viewer = viewer_of(lambda model, params: None)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=500e6 + 1e6 * len(viewer.asked)))
    resident = measure(viewer, process, ["a", "b"], 10)
    assert [name for _, name, _ in viewer.asked] == ["a"] * 5 + ["b"] * 5
    assert resident == [500.0, 505.0, 510.0]
    assert "| 500 | 510 | 510 | 10 | 332 | kept |" in report(resident, 10, "cores 2")
    assert "missed" in report([500.0, 900.0], 10, "cores 2")
