from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.scoring.store import ImageScore, ScoreStore

SCORE = ImageScore(
    score=0.25,
    parts={"jitter": 0.5, "entropy": 0.125},
    slice_index=7,
    embedding=np.array([0.6, 0.8], np.float32),
    labels=("liver", "spleen"),
    weights="v0001",
    digest="abc",
    seconds=1.5,
    settings="s",
    stamp="12:34",
    slices={3: 0.1, 7: 0.4},
)


def test_what_was_put_is_there_for_another_process(tmp_path: Path) -> None:
    ScoreStore(tmp_path).put("a/b .. ü", SCORE)
    found = ScoreStore(tmp_path).get("a/b .. ü")
    assert found is not None
    assert (found.score, found.parts, found.slice_index) == (0.25, SCORE.parts, 7)
    assert (found.labels, found.weights, found.slices) == (("liver", "spleen"), "v0001", {3: 0.1, 7: 0.4})
    np.testing.assert_array_equal(found.embedding, SCORE.embedding)
    assert (found.digest, found.settings) == ("abc", "s")
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*") if path.is_file())


def test_no_score_is_none_and_makes_no_folder(tmp_path: Path) -> None:
    assert ScoreStore(tmp_path).get("x") is None
    assert not list(tmp_path.iterdir())


def test_ids_that_read_alike_are_kept_apart(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    store.put("a.b", SCORE)
    store.put("a_b", replace(SCORE, score=0.75))
    assert [store.get(name).score for name in ("a.b", "a_b")] == [0.25, 0.75]


def test_an_id_that_no_encoding_knows_is_one_as_well(tmp_path: Path) -> None:
    for image_id in ["caf\udce9", "half \ud800"]:
        ScoreStore(tmp_path).put(image_id, SCORE)
        assert ScoreStore(tmp_path).get(image_id) is not None


def test_a_new_score_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    reader, writer = ScoreStore(tmp_path), ScoreStore(tmp_path)
    writer.put("x", SCORE)
    assert reader.get("x").score == 0.25
    writer.put("x", replace(SCORE, score=0.5, embedding=np.array([1.0, 0.0], np.float32)))
    assert reader.get("x").score == 0.5
    np.testing.assert_array_equal(reader.get("x").embedding, [1, 0])


def test_former_embeddings_are_deleted_in_time(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    store.put("x", SCORE)
    store.put("xy", SCORE)
    for path in tmp_path.glob("*.npy"):
        os.utime(path, (1, 1))
    store.put("x", replace(SCORE, embedding=np.array([1.0, 0.0], np.float32)))
    assert len(list(tmp_path.glob("x-*.npy"))) == 1
    assert store.get("x") is not None
    assert store.get("xy") is not None


def test_a_damaged_score_is_none(tmp_path: Path) -> None:
    for damage in ["{", "[]", '{"format": 99}', "{}", "null"]:
        store = ScoreStore(tmp_path)
        store.put("x", SCORE)
        (path,) = tmp_path.glob("*.json")
        path.write_text(damage)
        assert store.get("x") is None


def test_a_score_without_its_embedding_is_none(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    store.put("x", SCORE)
    next(tmp_path.glob("*.npy")).unlink()
    assert ScoreStore(tmp_path).get("x") is None


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    store.put("x", replace(SCORE, score=np.float32(0.25), slice_index=np.int64(7)))
    (path,) = tmp_path.glob("*.json")
    facts = json.loads(path.read_text())
    assert (facts["id"], facts["score"], facts["slice_index"]) == ("x", 0.25, 7)


def test_what_is_no_score_is_refused() -> None:
    for wrong in [
        {"score": float("nan")},
        {"score": 1.01},
        {"parts": {"jitter": float("inf")}},
        {"slices": {1: -0.1}},
        {"embedding": np.array([np.nan], np.float32)},
        {"embedding": np.zeros((2, 2), np.float32)},
        {"seconds": float("nan")},
    ]:
        with pytest.raises(ValueError, match=r"numbers|finite"):
            replace(SCORE, **wrong)


def _write_often(folder: Path, first: float) -> None:
    store = ScoreStore(folder)
    for step in range(60):
        value = first + step / 1000
        store.put("x", replace(SCORE, score=value, embedding=np.full(3, value, np.float32)))


def test_a_reader_sees_whole_scores_while_two_processes_write(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(tmp_path, first)) for first in (0.1, 0.5)]
    for writer in writers:
        writer.start()
    store, seen = ScoreStore(tmp_path), 0
    while any(writer.is_alive() for writer in writers):
        found = store.get("x")
        if found is not None:
            seen += 1
            np.testing.assert_allclose(found.embedding, found.score, rtol=1e-6)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen
    assert store.get("x") is not None
