from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.hard_and_easy import write_store
from lib.engine.network import Network
from lib.evaluation.active_learning.learner import SimulatedLearner, measure, score
from lib.evaluation.active_learning.simulation import SimulationData, open_data
from lib.evaluation.options import SimulationOptions
from lib.trainers.validation import ValidationTarget, choose_targets
from tests.support.server import APP

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
