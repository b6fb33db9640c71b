from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hard_and_easy import write_store
from lib.evaluation.__main__ import main
from lib.evaluation.active_learning import simulation as active_learning
from lib.evaluation.active_learning.curves import CurvePoint
from lib.evaluation.active_learning.options import SimulationOptions
from lib.evaluation.active_learning.simulation import POINTS_FILE, Simulation
from tests.support.server import APP
from tests.unit.evaluation.conftest import changed

MODEL = APP / "model"


@pytest.fixture
def options(tmp_path: Path) -> SimulationOptions:
    """Six pictures to label, two to measure, trainings of two steps."""
    store = write_store(tmp_path / "store", {"easy": 4, "rim": 2}, {"easy": 1, "rim": 1})
    return SimulationOptions(
        data=store,
        output=tmp_path / "out",
        strategies=("random", "hybrid"),
        seeds=2,
        start=2,
        step=2,
        rounds=1,
        test="test*",
        steps=2,
        batch=1,
        model_dir=MODEL,
        device="cpu",
        image_size=64,
    )


def without_times(points: list[CurvePoint]) -> list[CurvePoint]:
    return [replace(point, seconds=0.0) for point in points]


def test_strategies_begin_with_one_image_and_label_no_image_twice(options: SimulationOptions) -> None:
    points = Simulation(options).run()
    assert [(point.strategy, point.seed, point.labels) for point in points] == [
        ("random", 0, 2), ("random", 0, 4), ("random", 1, 2), ("random", 1, 4),
        ("hybrid", 0, 2), ("hybrid", 0, 4), ("hybrid", 1, 2), ("hybrid", 1, 4),
    ]  # fmt: skip
    first = {(point.strategy, point.seed): point.labelled[0] for point in points}
    assert first["random", 0] == first["hybrid", 0]
    assert first["random", 1] == first["hybrid", 1]
    for before, after in zip(points[::2], points[1::2], strict=True):
        assert after.labelled == (*before.labelled, *before.next)
        assert len(set(after.labelled)) == 4
        assert after.next == ()
        assert all(name.startswith("pool") for name in after.labelled)


def test_hybrid_begins_with_what_is_unlike_the_first(options: SimulationOptions) -> None:
    for point in Simulation(changed(options, rounds=1, strategies=("hybrid", "random"))).run():
        if point.strategy == "hybrid" and point.labels == 2:
            kinds = {name.split("_")[1] for name in point.labelled}
            assert kinds == {"easy", "rim"}


def test_what_was_simulated_is_not_simulated_again(
    options: SimulationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = without_times(Simulation(options).run())
    learned: list[int] = []
    learn = active_learning.SimulatedLearner.learn

    def counted(self: active_learning.SimulatedLearner, units, seed: int):  # type: ignore[no-untyped-def]
        learned.append(seed)
        return learn(self, units, seed)

    monkeypatch.setattr(active_learning.SimulatedLearner, "learn", counted)
    assert without_times(Simulation(options).run()) == whole
    assert learned == []
    # Cut off after the third training: the others come again as they were.
    path = options.output / POINTS_FILE
    path.write_text("\n".join(path.read_text().splitlines()[:4]) + "\n")
    again = without_times(Simulation(options).run())
    assert len(learned) == 5
    assert [replace(p, dice=0.0, by_prompt={}) for p in again] == [
        replace(p, dice=0.0, by_prompt={}) for p in whole
    ]
    # Sums on a CPU depend on where arrays lie in memory: a pixel at the threshold may differ.
    assert [p.dice for p in again] == pytest.approx([p.dice for p in whole], abs=0.002)
    # One round more: what the last training of each was to choose is chosen, and one training follows.
    longer = without_times(Simulation(changed(options, rounds=2)).run())
    assert [point for point in longer if point.labels == 2] == [p for p in again if p.labels == 2]
    assert {point.labels for point in longer} == {2, 4, 6}
    fours = [[p.dice for p in points if p.labels == 4] for points in (longer, whole)]
    assert fours[0] == pytest.approx(fours[1], abs=0.002)


def test_other_options_are_other_points_in_the_same_file(options: SimulationOptions) -> None:
    small = changed(options, seeds=1, strategies=("random",))
    Simulation(small).run()
    Simulation(changed(small, steps=3)).run()
    with (options.output / POINTS_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert len({row["run"] for row in rows}) == 2


def test_it_ends_where_the_pool_is_empty(options: SimulationOptions) -> None:
    points = Simulation(changed(options, seeds=1, strategies=("random",), rounds=9)).run()
    assert [point.labels for point in points] == [2, 4, 6]
    assert len(set(points[-1].labelled)) == 6


def test_the_command_writes_all_files_and_prints_the_tables(
    options: SimulationOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        f"active-learning --data {options.data} --output {options.output} --model-dir {MODEL} --device cpu"
    )
    words += " --strategies first --seeds 1 --start 1 --step 1 --rounds 1 --test test* --steps 1 --batch 1"
    assert main([*words.split(), "--image-size", "64"]) == 0
    printed = capsys.readouterr().out
    assert "| random |" in printed
    assert "| first |" in printed
    record = json.loads((options.output / "curve.json").read_text())
    assert [item["strategy"] for item in record["strategies"]] == ["random", "first"]
    assert record["facts"]["test"] == ["test_easy_000", "test_rim_000"]
    assert len(record["points"]) == 4
    assert (options.output / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "Dice by labels" in (options.output / "curve.md").read_text()


def test_the_command_says_in_one_line_what_is_wrong(
    options: SimulationOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["active-learning", "--data", str(options.data), "--strategies", "best"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_is_told_apart_and_keeps_what_was_done(
    options: SimulationOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[int] = []
    measure: Callable[..., object] = active_learning.measure

    def interrupted(*arguments: object) -> object:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return measure(*arguments)

    monkeypatch.setattr(active_learning, "measure", interrupted)
    words = (
        f"active-learning --data {options.data} --output {options.output} --model-dir {MODEL} --device cpu"
    )
    words += " --seeds 1 --test test* --steps 1 --batch 1 --image-size 64"
    assert main(words.split()) == 130
    assert len((options.output / POINTS_FILE).read_text().splitlines()) == 2
