"""The same requests to all servers in turns, so that disturbances of the machine affect each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.client import VIEWER_OPTIONS, Viewer
from benchmarks.floor import Floor, write_answer

OURS, TORCH, BEFORE, PEER, FLOOR = "ours", "torch", "before", "peer", "floor"
NEXT_SLICE = "next slice, looked for two seconds"
INTERRUPTING = "click while neighbours are encoded"
CLICK_AGAIN = "click when nothing is encoded"
LARGE_CLICK = "warm click on a large volume"
# Slices that are scrolled through on each volume, and pauses in seconds.
SCROLLED, LOOKING_S, INTERRUPTING_S = 3, 2.0, 0.15
_TASKS = {"2-D": ("biosam2_point", "sam_2d"), "3-D": ("biosam2_propagate", "sam_3d")}


@dataclass(frozen=True)
class Volume:
    """An image of the datastore.

    Attributes:
        name: Image id.
        shape: Voxels along [i, j, k].
    """

    name: str
    shape: tuple[int, int, int]


@dataclass
class Timings:
    """Seconds by measurement and server, in temporal order."""

    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, measurement: str, who: str, seconds: float) -> None:
        """Appends one timing."""
        self.seconds.setdefault(measurement, {}).setdefault(who, []).append(seconds)


def turn_order(turn: int, servers: Iterable[str]) -> list[str]:
    """Order of the servers: each is first in its turn."""
    order = list(servers)
    first = turn % len(order)
    return order[first:] + order[:first]


def _task(who: str, kind: str) -> str:
    return _TASKS[kind][who == PEER]


def click_steps(shape: tuple[int, int, int]) -> list[tuple[str, int, int]]:
    """(measurement, slice, number of clicks) of one round on a new volume."""
    first, other = shape[2] // 2, shape[2] // 2 + 1
    return [
        ("cold click, image not open", first, 1),
        ("second click, same slice", first, 2),
        ("second click, same slice", first, 3),
        ("click on another slice", other, 1),
        ("back to the first slice", first, 4),  # a request that was answered before would need no network
    ]


def clicks(shape: tuple[int, int, int], index: int, count: int) -> list[list[int]]:
    """``count`` foreground clicks around the middle of a slice, as [i, j, k]."""
    offsets = [(0, 0), (12, 8), (-10, 14), (6, -12)]
    i, j = shape[0] * 6 // 10, shape[1] // 2
    return [[i + x, j + y, index] for x, y in offsets[:count]]


def request(prompts: Sequence[Sequence[int]], **options: Any) -> dict[str, Any]:
    """Request parameters for all servers."""
    return {**VIEWER_OPTIONS, "foreground": list(prompts), "background": [], **options}


def measure_clicks(
    viewers: Mapping[str, Viewer],
    floor: Floor | None,
    volumes: Sequence[Volume],
    folder: Path,
    timings: Timings,
) -> None:
    """One round of :func:`click_steps` per volume; the first volume only warms up and is not counted."""
    for turn, volume in enumerate(volumes):
        for measurement, index, count in click_steps(volume.shape):
            params = request(clicks(volume.shape, index, count), slice=index)
            for who in turn_order(turn, viewers):
                answer = viewers[who].infer(_task(who, "2-D"), volume.name, params)
                if turn:
                    timings.add(measurement, who, answer.seconds)
        parts = {**floor.click(turn), "write": write_answer(volume.shape, folder)} if floor else {}
        if turn:
            for part, seconds in parts.items():
                timings.add(part, FLOOR, seconds)


def scrolling_steps(shape: tuple[int, int, int]) -> list[tuple[float, str, int, int]]:
    """(seconds of looking, measurement, slice, number of clicks) of a person who goes from slice to slice."""
    first = shape[2] // 4
    steps = [(0.0, "", first, 1)]
    for index in range(first + 1, min(first + 1 + SCROLLED, shape[2])):
        steps += [
            (LOOKING_S, NEXT_SLICE, index, 1),
            (INTERRUPTING_S, INTERRUPTING, index, 2),
            (LOOKING_S, CLICK_AGAIN, index, 3),
        ]
    return steps


def measure_scrolling(viewers: Mapping[str, Viewer], volumes: Sequence[Volume], timings: Timings) -> None:
    """:func:`scrolling_steps` on each volume; the first volume only warms up and is not counted."""
    for turn, volume in enumerate(volumes):
        for who in turn_order(turn, viewers):
            for looking, measurement, index, count in scrolling_steps(volume.shape):
                time.sleep(looking)
                params = request(clicks(volume.shape, index, count), slice=index)
                answer = viewers[who].infer(_task(who, "2-D"), volume.name, params)
                if turn and measurement:
                    timings.add(measurement, who, answer.seconds)


def measure_bytes(
    viewers: Mapping[str, Viewer], volume: Volume, rounds: int, timings: Timings
) -> dict[str, int]:
    """A second click on a slice of one volume, which the first opens and encodes; bytes of the answers."""
    index = volume.shape[2] // 2
    found: dict[str, int] = {}
    for turn in range(rounds + 1):
        moved = [[i + 2 * turn, j, k] for i, j, k in clicks(volume.shape, index, 1)]
        for who in turn_order(turn, viewers):
            answer = viewers[who].infer(_task(who, "2-D"), volume.name, request(moved, slice=index))
            if turn:
                timings.add(LARGE_CLICK, who, answer.seconds)
                found[who] = max(answer.wire_bytes, found.get(who, 0))
    return found


def measure_propagation(
    viewers: Mapping[str, Viewer], floor: Floor | None, volumes: Sequence[Volume], timings: Timings
) -> None:
    """A click on the first slice, propagated to the last: the only direction that the peer supports.

    Runs twice per volume: cold, and again after another click. Seconds are per slice. The first volume only
    warms up and is not counted.
    """
    for turn, volume in enumerate(volumes):
        for measurement, count in (("propagation, per slice", 1), ("propagation again, per slice", 2)):
            params = request(clicks(volume.shape, 0, count), reset_state=True)
            for who in turn_order(turn, viewers):
                answer = viewers[who].infer(_task(who, "3-D"), volume.name, params)
                _check_every_slice_was_answered(who, answer.mask().any(axis=(0, 1)).sum(), volume)
                if turn:
                    timings.add(measurement, who, answer.seconds / volume.shape[2])
        if turn and floor:
            for part, seconds in floor.propagation(volume.shape[2]).items():
                timings.add(f"propagation {part}", FLOOR, seconds)


def _check_every_slice_was_answered(who: str, slices: int, volume: Volume) -> None:
    """Raises if a server skipped slices: it would look fast."""
    if slices < volume.shape[2]:
        raise RuntimeError(f"{who} answered {slices} of {volume.shape[2]} slices of {volume.name}")
