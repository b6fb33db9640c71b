from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.hard_and_easy import write_store
from lib.engine.network import Network
from lib.errors import EvaluationError
from lib.evaluation import simulation as active_learning
from lib.evaluation.__main__ import main
from lib.evaluation.learning_curves import CurvePoint
from lib.evaluation.options import SimulationOptions
from lib.evaluation.simulation import (
    POINTS_FILE,
    SimulatedLearner,
    Simulation,
    SimulationData,
    choose_test,
    measure,
    open_data,
    score,
)
from lib.trainers.validation import ValidationTarget, choose_targets
from tests.support.server import APP
from tests.unit.evaluation.conftest import changed

NAMES = [f"case{number}" for number in range(10)]
SIZE = 64


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "store", {"easy": 3, "rim": 1}, {"easy": 2})


def volume(store: Path) -> None:
    """A volume of 40 x 30 x 9 whose object is on the slices 3 to 5, at another place on each."""
    image, label = np.zeros((40, 30, 9), np.int16), np.zeros((40, 30, 9), np.uint8)
    for k in (3, 4, 5):
        label[5 * k : 5 * k + 8, 4:14, k] = 1
        image[..., k] = 10 * k
    image += 400 * label.astype(np.int16)
    nib.save(nib.Nifti1Image(image, np.diag([1, 2, 3, 1])), store / "volume.nii.gz")
    nib.save(nib.Nifti1Image(label, np.diag([1, 2, 3, 1])), store / "labels" / "final" / "volume.nii.gz")


def test_a_share_is_drawn_once_and_for_all() -> None:
    chosen = choose_test(NAMES, "0.3")
    assert len(chosen) == 3
    assert chosen < set(NAMES)
    assert choose_test(NAMES[::-1], "0.3") == chosen
    assert len(choose_test(NAMES, "0.01")) == 1


def test_a_pattern_names_the_test_part() -> None:
    assert choose_test(["test1", "a", "test2"], "test*") == {"test1", "test2"}
    assert choose_test(["test1", "a", "test2"], "a") == {"a"}


def test_a_share_is_less_than_all_and_more_than_nothing() -> None:
    for share in ("0", "1", "-0.5", "3"):
        with pytest.raises(EvaluationError, match=f"--test {share} must be a share"):
            choose_test(NAMES, share)


def test_images_are_divided_and_nothing_is_in_both_parts(store: Path, tmp_path: Path) -> None:
    parts = open_data(store, tmp_path / "frames", "image", "test*", SIZE)
    assert [unit.id for unit in parts.pool] == [
        "pool_easy_000", "pool_easy_001", "pool_easy_002", "pool_rim_000",
    ]  # fmt: skip
    assert [unit.id for unit in parts.test] == ["test_easy_000", "test_easy_001"]
    assert parts.left_out == {}


def test_a_volume_is_labelled_slice_by_slice_where_that_is_asked_for(store: Path, tmp_path: Path) -> None:
    volume(store)
    parts = open_data(store, tmp_path / "frames", "slice", "test*", SIZE)
    slices = [unit for unit in parts.pool if unit.id.startswith("volume")]
    # Of the slices that are kept (1 to 7), those with an object.
    assert [unit.id for unit in slices] == ["volume#002", "volume#003", "volume#004"]
    assert len({unit.digest for unit in slices}) == 3
    for k, unit in zip((3, 4, 5), slices, strict=True):
        assert len(unit) == 1
        truth = np.zeros((30, 40), dtype=bool)
        truth[4:14, 5 * k : 5 * k + 8] = True
        np.testing.assert_array_equal(unit.mask(0, 1), truth)
        levels = unit[0][..., 0]
        assert levels[truth].min() > levels[~truth].max()
        assert unit.objects == ({1: 80},)


def test_a_whole_volume_is_one_image_and_measures_as_one(store: Path, tmp_path: Path) -> None:
    volume(store)
    parts = open_data(store, tmp_path / "frames", "image", "volume", SIZE)
    [image] = parts.test
    assert len(image) == 7
    assert len(parts.pool) == 6


def test_what_cannot_be_used_is_left_out_with_its_reason(store: Path, tmp_path: Path) -> None:
    (store / "pool_easy_001.png").write_bytes(b"no picture")
    (store / "labels" / "final" / "lonely.png").write_bytes(b"no image of its name")
    parts = open_data(store, tmp_path / "frames", "image", "test*", SIZE)
    assert len(parts.pool) == 3
    assert list(parts.left_out) == ["pool_easy_001"]


def test_too_few_to_divide_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"0 image\(s\) to test, .* another --test than 'none\*'"):
        open_data(store, tmp_path / "frames", "image", "none*", SIZE)
    with pytest.raises(EvaluationError, match=r"has 1 image\(s\) to label"):
        open_data(store, tmp_path / "frames", "image", "*easy*", SIZE)


MODEL = APP / "model"


@pytest.fixture
def options(tmp_path: Path) -> SimulationOptions:
    return few_steps(tmp_path)


def few_steps(folder: Path) -> SimulationOptions:
    """Six pictures to label, two to measure, trainings of two steps."""
    store = write_store(folder / "store", {"easy": 4, "rim": 2}, {"easy": 1, "rim": 1})
    return SimulationOptions(
        data=store,
        output=folder / "out",
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


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulationOptions, list[CurvePoint]]:
    options = few_steps(tmp_path_factory.mktemp("simulated"))
    return options, Simulation(options).run()


def test_strategies_begin_with_one_image_and_label_no_image_twice(
    simulated: tuple[SimulationOptions, list[CurvePoint]],
) -> None:
    _, points = simulated
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
    # Hybrid begins with what is unlike the first.
    for point in points:
        if point.strategy == "hybrid" and point.labels == 2:
            assert {name.split("_")[1] for name in point.labelled} == {"easy", "rim"}


def test_what_was_simulated_is_not_simulated_again(
    simulated: tuple[SimulationOptions, list[CurvePoint]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, points = simulated
    whole = without_times(points)
    options = changed(before, output=Path(shutil.copytree(before.output, tmp_path / "out")))
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


SIZE = 64


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> SimulationData:
    folder = tmp_path_factory.mktemp("learner")
    write_store(folder / "store", {"easy": 1, "striped": 3}, {"striped": 3})
    return open_data(folder / "store", folder / "frames", "image", "test*", SIZE)


@pytest.fixture(scope="module")
def learner() -> SimulatedLearner:
    # The server's own weights: nobody trains these away.
    return SimulatedLearner(
        SimulationOptions(data=Path(), model_dir=APP / "model", device="cpu", image_size=SIZE, steps=12)
    )


@pytest.fixture
def targets(parts: SimulationData) -> list[ValidationTarget]:
    return choose_targets(parts.test, SIZE, 9)


def test_it_learns_and_begins_anew_each_time(
    learner: SimulatedLearner, parts: SimulationData, targets: list[ValidationTarget]
) -> None:
    before = measure(learner.untrained(), targets)
    striped = measure(learner.learn(parts.pool[1:], 0), targets)
    assert striped.dice > before.dice + 0.1
    assert set(striped.by_prompt) == {"1 click", "3 clicks", "box"}
    assert striped.dice == pytest.approx(np.mean(list(striped.by_prompt.values())))
    other = measure(learner.learn(parts.pool[:1], 1), targets)
    assert other != striped
    # Whatever it has learned in between.
    assert measure(learner.learn(parts.pool[1:], 0), targets) == striped
    assert measure(learner.untrained(), targets) == before


def test_a_frame_is_encoded_once_for_all_rounds_and_seeds(
    learner: SimulatedLearner,
    parts: SimulationData,
    targets: list[ValidationTarget],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def round_of(seed: int) -> None:
        predictor = learner.learn(parts.pool[1:], seed)
        measure(predictor, targets)
        for unit in parts.pool:
            score(predictor, unit, learner.vector(unit))

    # Seeds see the mirror images in another order; a few of them between them see all.
    for seed in range(1, 4):
        learner.learn(parts.pool[1:], seed)
    round_of(0)
    encoded: list[object] = []
    encode = Network.encode
    monkeypatch.setattr(Network, "encode", lambda self, levels: encoded.append(1) or encode(self, levels))
    round_of(0)
    assert encoded == []


def test_a_vector_is_of_length_one_and_the_same_whatever_was_learned(
    learner: SimulatedLearner, parts: SimulationData
) -> None:
    vectors = [learner.vector(unit) for unit in parts.pool]
    learner.learn(parts.pool, 0)
    for unit, vector in zip(parts.pool, vectors, strict=True):
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_array_equal(learner.vector(unit), vector)
    # The three striped ones are more alike than the easy one is to any of them.
    alike = np.array(vectors) @ np.array(vectors).T
    assert alike[0, 1:].max() < alike[1:, 1:].min()


def test_a_score_is_what_the_network_of_the_round_says(
    learner: SimulatedLearner, parts: SimulationData
) -> None:
    unit = parts.pool[-1]
    untrained = score(learner.untrained(), unit, learner.vector(unit))
    assert untrained.id == unit.id
    assert untrained.score is not None
    assert 0 <= untrained.score <= 1
    assert untrained.slice_index == 0
    np.testing.assert_array_equal(untrained.embedding, learner.vector(unit))
    assert score(learner.learn(parts.pool[1:], 0), unit, None).score != untrained.score


def test_it_says_what_its_results_depend_on(learner: SimulatedLearner) -> None:
    described = learner.describe()
    assert described["image_size"] == SIZE
    assert described["device"] == "cpu"
    assert len(str(described["sha256"])) == 64
    assert learner.weights == "biosam2_mini"
