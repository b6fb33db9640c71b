"""The numbers of the speed benchmark as Markdown tables, with their aims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.interleaved import (
    BEFORE,
    CLICK_AGAIN,
    FLOOR,
    INTERRUPTING,
    LARGE_CLICK,
    NEXT_SLICE,
    OURS,
    PEER,
    TORCH,
)
from benchmarks.tables import NOTHING, Summary, number, summarise
from lib.evaluation.results import markdown_table

# Percent of the peer's bytes that an answer on a large volume may have.
MOST_BYTES = 1.0

Seconds = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Attributes:
        name: Name of the measurement.
        floor: Measurements with medians that add up to the floor.
        times_faster: Smallest ratio of the peer's time to ours; None without an aim.
        over_floor: Largest ratio of our time to the floor; None without an aim.
    """

    name: str
    floor: tuple[str, ...]
    times_faster: float | None
    over_floor: float | None


_COLD, _WARM = ("encoder", "decoder", "write"), ("decoder", "write")

MEASUREMENTS = (
    Measurement("cold click, image not open", _COLD, 6.0, 1.15),
    Measurement("click on another slice", _COLD, 6.0, 1.15),
    Measurement("second click, same slice", _WARM, 12.0, 1.3),
    Measurement("back to the first slice", _WARM, None, 1.3),
    Measurement("propagation, per slice", ("propagation total",), 5.0, 1.15),
    Measurement("propagation again, per slice", ("propagation total",), None, None),
)


def floor_seconds(seconds: Seconds, parts: Sequence[str]) -> float:
    """Sum of the parts' medians in seconds; NaN if one was not measured."""
    return sum(summarise(seconds.get(part, {}).get(FLOOR, ())).middle for part in parts)


def latency_table(seconds: Seconds) -> str:
    """Minimum and median in ms, ratios of the medians, and the aims."""
    header = ["", "ours, ms", "peer, ms", "peer / ours", "aim", "floor, ms", "ours / floor", "aim", "n"]
    others = [who for who in (TORCH, BEFORE) if any(who in by for by in seconds.values())]
    for who in others:
        header += [f"{who}, ms", f"{who} / ours"]
    rows = []
    for row in MEASUREMENTS:
        ours = summarise(seconds.get(row.name, {}).get(OURS, ()))
        peer = summarise(seconds.get(row.name, {}).get(PEER, ()))
        if not ours.count:
            continue
        floor = floor_seconds(seconds, row.floor)
        rows.append(
            [
                row.name,
                _milliseconds(ours),
                _milliseconds(peer),
                _verdict(peer.middle / ours.middle, at_least=row.times_faster),
                _aim("≥", row.times_faster),
                number(1000 * floor, 0),
                _verdict(ours.middle / floor, at_most=row.over_floor),
                _aim("≤", row.over_floor),
                str(ours.count),
                *_compared(row.name, seconds, ours, others),
            ]
        )
    return markdown_table(header, rows)


def _compared(name: str, seconds: Seconds, ours: Summary, others: Sequence[str]) -> list[str]:
    """Times of other servers of ours, and how often ours goes into them."""
    cells = []
    for who in others:
        other = summarise(seconds[name].get(who, ()))
        cells += [_milliseconds(other), number(other.middle / ours.middle, 2)]
    return cells


def bundled_table(seconds: Seconds) -> str:
    """The bundled weights: times of OpenVINO and torch in ms, and slices per second."""
    rows = []
    for row in MEASUREMENTS:
        by = seconds.get(row.name, {})
        if OURS in by:
            ours, torch = summarise(by[OURS]), summarise(by[TORCH])
            rows.append([row.name, _milliseconds(ours), _milliseconds(torch), number(1 / ours.middle, 1)])
    return markdown_table(["biosam2_mini", "OpenVINO, ms", "torch, ms", "OpenVINO, per second"], rows)


def scrolling_table(seconds: Seconds) -> str:
    """Clicks while slices are scrolled through in ms, as ratios to one on an encoded slice."""
    rows = []
    usual = seconds.get(CLICK_AGAIN, {})
    for name, limit in ((CLICK_AGAIN, None), (NEXT_SLICE, 1.3), (INTERRUPTING, 1.1)):
        for who, values in seconds.get(name, {}).items():
            found, again = summarise(values), summarise(usual[who])
            ratio = _verdict(found.middle / again.middle, at_most=limit if who == OURS else None)
            rows.append([name, who, _milliseconds(found), ratio, _aim("≤", limit), str(found.count)])
    return markdown_table(["scrolling", "", "ms", "ratio", "aim", "n"], rows)


def memory_table(memory_mb: Mapping[str, Mapping[str, float]]) -> str:
    """Peak resident memory of each server process in MB, by kind of task."""
    rows = []
    for kind, by_server in memory_mb.items():
        ours, peer = by_server[OURS], by_server[PEER]
        others = number(by_server.get(TORCH, math.nan), 0)
        rows.append([kind, _verdict(ours, at_most=peer, digits=0), others, number(peer, 0), "< peer"])
    return markdown_table(["peak memory, MB", "ours", "torch", "peer", "aim"], rows)


def bytes_table(seconds: Seconds, wire_bytes: Mapping[str, int], shape: str) -> str:
    """Bytes and ms of a warm click on a large volume, and our share of the peer's bytes."""
    rows = []
    for who, count in wire_bytes.items():
        share = 100 * count / wire_bytes[PEER]
        verdict, aim = (
            (_verdict(share, at_most=MOST_BYTES), _aim("≤", MOST_BYTES)) if who == OURS else ("", "")
        )
        rows.append([who, f"{count:,}", verdict, aim, _milliseconds(summarise(seconds[LARGE_CLICK][who]))])
    return markdown_table([f"{LARGE_CLICK}, {shape}", "bytes", "% of the peer's", "aim", "ms"], rows)


def parts_table(seconds: Seconds) -> str:
    """The floor's parts: minimum and median in ms."""
    rows = [[name, _milliseconds(summarise(by[FLOOR]))] for name, by in seconds.items() if FLOOR in by]
    return markdown_table(["floor", "ms"], rows)


def _milliseconds(summary: Summary) -> str:
    return (
        f"{number(1000 * summary.least, 0)} / {number(1000 * summary.middle, 0)}"
        if summary.count
        else NOTHING
    )


def _aim(sign: str, value: float | None) -> str:
    return "" if value is None else f"{sign} {value:g}"


def _verdict(
    value: float, *, at_least: float | None = None, at_most: float | None = None, digits: int = 2
) -> str:
    """The value: bold if it meets its aim, followed by "(missed)" if not."""
    text = number(value, digits)
    if (at_least is None and at_most is None) or math.isnan(value):
        return text
    met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    return f"**{text}**" if met else f"{text} (missed)"
