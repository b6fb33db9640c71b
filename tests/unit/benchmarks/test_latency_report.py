import math

import pytest

from benchmarks.interleaved import CLICK_AGAIN, FLOOR, LARGE_CLICK, NEXT_SLICE, OURS, PEER, TORCH
from benchmarks.latency_report import (
    bytes_table,
    floor_seconds,
    latency_table,
    memory_table,
    parts_table,
    scrolling_table,
)

SECONDS = {
    "second click, same slice": {OURS: [0.1, 0.1, 0.2], PEER: [2.0, 2.0]},
    "cold click, image not open": {OURS: [2.0], PEER: [3.0]},
    "encoder": {FLOOR: [1.0]},
    "decoder": {FLOOR: [0.07]},
    "write": {FLOOR: [0.01, 0.03]},
}


def _row(table, name):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {name}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_floor_is_the_sum_of_medians():
    assert floor_seconds(SECONDS, ("decoder", "write")) == pytest.approx(0.09)
    assert math.isnan(floor_seconds(SECONDS, ("decoder", "memory")))


def test_what_meets_its_aim_is_bold_and_what_does_not_is_said():
    row = _row(latency_table(SECONDS), "second click")
    assert row[1:5] == ["100 / 100", "2000 / 2000", "**20.00**", "≥ 12"]
    assert row[5:8] == ["90", "**1.11**", "≤ 1.3"]
    assert _row(latency_table(SECONDS), "cold click")[3] == "1.50 (missed)"
    compared = {**SECONDS, "second click, same slice": {OURS: [0.1], PEER: [2.0], TORCH: [0.25]}}
    assert _row(latency_table(compared), "second click")[-2:] == ["250 / 250", "2.50"]


def test_what_was_not_measured_has_no_row():
    assert "propagation" not in latency_table(SECONDS)


def test_memory_is_compared_with_its_limit():
    table = memory_table(
        {"2-D tasks": {OURS: 1500.4, PEER: 2400.0}, "3-D tasks": {OURS: 3000.0, PEER: 2900.0}}
    )
    assert _row(table, "2-D") == ["2-D tasks", "**1500**", "-", "2400", "< peer"]
    assert _row(table, "3-D")[1] == "3000 (missed)"


def test_parts_of_the_floor_have_their_own_table():
    assert _row(parts_table(SECONDS), "write") == ["write", "10 / 20"]


def test_the_next_slice_is_compared_with_a_click_on_an_encoded_one():
    seconds = {CLICK_AGAIN: {OURS: [0.1], PEER: [0.2]}, NEXT_SLICE: {OURS: [0.12], PEER: [3.0]}}
    table = scrolling_table(seconds)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [NEXT_SLICE, "ours", "120 / 120", "**1.20**", "≤ 1.3", "1"] in rows
    assert [NEXT_SLICE, "peer", "3000 / 3000", "15.00", "≤ 1.3", "1"] in rows


def test_bytes_are_compared_with_the_peers():
    seconds = {LARGE_CLICK: {OURS: [0.1], PEER: [20.0]}}
    table = bytes_table(seconds, {OURS: 50_000, PEER: 80_000_000}, "512x512x300")
    assert _row(table, "ours")[1:] == ["50,000", "**0.06**", "≤ 1", "100 / 100"]
    assert _row(table, "peer")[1:] == ["80,000,000", "", "", "20000 / 20000"]
    assert _row(bytes_table(seconds, {OURS: 3, PEER: 100}, ""), "ours")[2] == "3.00 (missed)"
