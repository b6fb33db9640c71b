"""Scores of images on disk: written by one process, read by any, and never the only copy of a person's work.

    <model_dir>/scores/<datastore>/<image>.json         one image's score, its parts and what it was made from
    <model_dir>/scores/<datastore>/<image>.<hash>.npy   its embedding; the JSON file names it

Each file is whole or not there. The JSON file is written last, so a reader and a crash at any moment find the
old score or the new one. Everything here can be deleted: the next scoring makes it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.files import write_atomically

logger = logging.getLogger(__name__)

SCORES_FOLDER = "scores"
_FORMAT = 1  # of the files: another number makes them anew
# Of an image's id that can be read in a file's name; the hash behind it tells two such names apart. The same
# of a datastore's name.
_READABLE = 60
_HASH = 16
# Seconds after which nobody is between writing an embedding and naming it.
_GRACE_S = 60.0


@dataclass(frozen=True, eq=False)
class ImageScore:
    """How sure the model is of one image, and what that was found from.

    Attributes:
        score: 0 (sure) to 1 (unsure).
        parts: each signal by name, 0 to 1; those that the image gave no answer for are left out.
        slice_index: where the model is least sure: the slice to open.
        embedding: (C,) float32, mean-pooled and L2-normalised.
        labels: classes that the model found, sorted.
        weights: name of the weights, such as ``v0001`` or ``biosam2_mini``.
        digest: of the image's content.
        seconds: that it took.
        settings: everything else that the signals depend on: weights' checksum, input size, prompts, counts.
        stamp: of the image's file when it was scored; while it is the same, the file need not be opened.
        calibration: name of the calibration that the score was made with; empty for none.
        slices: score by slice, of those that were looked at and had an object.

    Raises:
        ValueError: a number is not finite, or not from 0 to 1.
    """

    score: float
    parts: dict[str, float]
    slice_index: int
    embedding: NDArray[np.float32]
    labels: tuple[str, ...]
    weights: str
    digest: str
    seconds: float
    settings: str = ""
    stamp: str = ""
    calibration: str = ""
    slices: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = {"score": self.score, **self.parts, **{f"slice {k}": v for k, v in self.slices.items()}}
        wrong = {name: value for name, value in named.items() if not 0.0 <= value <= 1.0}
        if wrong:
            raise ValueError(f"scores are numbers from 0 to 1; these are not: {wrong}")
        vector = np.asarray(self.embedding, dtype=np.float32)
        if vector.ndim != 1 or not np.isfinite(vector).all() or not math.isfinite(self.seconds):
            raise ValueError("an embedding is one row of finite numbers, and seconds are finite too")
        object.__setattr__(self, "embedding", vector)

    def is_of(self, digest: str, settings: str) -> bool:
        """Whether it was made from this content by the same weights and settings."""
        return (self.digest, self.settings) == (digest, settings)


def scores_folder(model_dir: Path, studies: Path) -> Path:
    """Where the scores of a datastore lie: another one may have other images by the same names.

    Args:
        model_dir: the folder of ``registry.yaml``.
        studies: the folder of the datastore; of a DICOM store, the one that it keeps on this machine.
    """
    path = studies.resolve()
    return model_dir / SCORES_FOLDER / _file_name(path.name, str(path))


class ScoreStore:
    """The scores of a datastore's images. Safe to use from several threads and processes.

    Args:
        folder: of the scores, see ``scores_folder``. It is made with the first score.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._kept: dict[str, tuple[tuple[int, int], ImageScore]] = {}

    def get(self, image_id: str) -> ImageScore | None:
        """The score of an image; None where it has none, or one that cannot be read."""
        path = self._path(image_id)
        try:
            stat = path.stat()
            state = (stat.st_mtime_ns, stat.st_ino)
            kept = self._kept.get(image_id)
            if kept is None or kept[0] != state:
                kept = (state, self._read(path))
                self._kept[image_id] = kept
            return kept[1]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("The score of %s cannot be read and is made again: %s", image_id, error)
            return None

    def put(self, image_id: str, score: ImageScore) -> None:
        """Keeps the score of an image, in place of the one before.

        Raises:
            OSError: where the disk is full.
        """
        path = self._path(image_id)
        content = _npy(score.embedding)
        vector = path.with_name(f"{path.stem}.{hashlib.sha256(content).hexdigest()[:_HASH]}.npy")
        if not vector.is_file():
            write_atomically(vector, content)
        facts = {"format": _FORMAT, "id": image_id, "vector": vector.name, **_facts(score)}
        write_atomically(path, json.dumps(facts, allow_nan=False, indent=1).encode())
        self._sweep(path.stem, vector)

    def _sweep(self, stem: str, current: Path) -> None:
        """Deletes an image's former embeddings, but those that another process may be about to name."""
        for old in self.folder.glob(f"{stem}.*.npy"):
            with contextlib.suppress(FileNotFoundError):
                if old != current and old.stat().st_mtime < time.time() - _GRACE_S:
                    old.unlink()

    def _path(self, image_id: str) -> Path:
        return self.folder / f"{_file_name(image_id, image_id)}.json"

    def _read(self, path: Path) -> ImageScore:
        try:
            return self._read_once(path)
        except FileNotFoundError:
            # Its embedding was deleted after the JSON file was read: a new score has come in between.
            return self._read_once(path)

    def _read_once(self, path: Path) -> ImageScore:
        facts: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(facts, dict) or facts.pop("format") != _FORMAT:
            raise ValueError("it was written by another version of the app")
        vector = np.load(path.with_name(Path(facts.pop("vector")).name), allow_pickle=False)
        del facts["id"]
        facts["labels"] = tuple(facts["labels"])
        facts["slices"] = {int(index): value for index, value in facts["slices"].items()}
        return ImageScore(**facts, embedding=vector)


def _file_name(readable: str, whole: str) -> str:
    """What can be read of a name, and a hash of the whole."""
    # A record may name an image by half a surrogate pair, out of a file's name that is no UTF-8.
    content = whole.encode(errors="surrogatepass")
    start = re.sub(r"[^\w-]", "_", readable)[:_READABLE]
    return f"{start}-{hashlib.sha256(content).hexdigest()[:_HASH]}"


def _facts(score: ImageScore) -> dict[str, Any]:
    """The fields but the embedding, in types that JSON has."""
    return {
        "score": float(score.score),
        "parts": {name: float(value) for name, value in score.parts.items()},
        "slice_index": int(score.slice_index),
        "labels": list(score.labels),
        "weights": score.weights,
        "digest": score.digest,
        "seconds": float(score.seconds),
        "settings": score.settings,
        "stamp": score.stamp,
        "calibration": score.calibration,
        "slices": {str(index): float(value) for index, value in score.slices.items()},
    }


def _npy(vector: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, vector, allow_pickle=False)
    return buffer.getvalue()
