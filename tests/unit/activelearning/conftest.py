"""Datastore, scores, candidates and a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore

from lib.activelearning.selectors import Candidate
from lib.scoring.store import ImageScore, ScoreStore


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_datastore(folder: Path, images: list[str]) -> LocalDatastore:
    """MONAI Label's own datastore; what is in the files does not matter."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in images:
        (folder / f"{name}.png").write_bytes(b"picture")
    return LocalDatastore(str(folder), extensions=("*.png",))


def save_label(datastore: LocalDatastore, image: str, folder: Path, tag: str = "final", *names: str) -> None:
    """Saves a label as a client does."""
    path = folder / f"{image}.png"
    path.write_bytes(b"label")
    info = {"label_info": [{"name": name, "idx": value} for value, name in enumerate(names, 1)]}
    datastore.save_label(image, str(path), tag, info)


def image_score(score: float, at: tuple[float, ...] = (1.0, 0.0), **others: object) -> ImageScore:
    """A score with an embedding at a place."""
    facts = {"parts": {}, "slice_index": 3, "labels": (), "weights": "v1", "digest": "d", "seconds": 0.1}
    return ImageScore(score=score, embedding=np.array(at, np.float32), **{**facts, **others})  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scores(tmp_path: Path) -> ScoreStore:
    return ScoreStore(tmp_path / "model")


@pytest.fixture
def datastore(tmp_path: Path) -> LocalDatastore:
    return make_datastore(tmp_path / "studies", ["a", "b", "c"])


@pytest.fixture
def label(datastore: LocalDatastore, tmp_path: Path) -> Callable[..., None]:
    """Saves a label of one of the datastore's images."""

    def save(image: str, tag: str = "final", *names: str) -> None:
        save_label(datastore, image, tmp_path, tag, *names)

    return save


def one(
    name: str, score: float | None = None, at: tuple[float, ...] | None = None, labels: tuple[str, ...] = ()
) -> Candidate:
    """A candidate at a place; places need not be of length 1 here, so that distances are plain."""
    embedding = None if at is None else np.array(at, dtype=np.float32)
    return Candidate(name, score, embedding, labels)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
