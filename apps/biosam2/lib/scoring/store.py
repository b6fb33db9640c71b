"""Scores of images on disk, written by one process and read by any.

    <model_dir>/scores/<datastore>/<image>.json         score of one image, its signals and inputs
    <model_dir>/scores/<datastore>/<image>.<hash>.npy   embedding of the image; the JSON file names it

Files are written atomically, the JSON file last: a reader, or a crash at any moment, finds the old or the new
score. Everything here can be deleted; the next scoring computes it again.
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
_FORMAT = 1  # another number invalidates all files
# Readable characters of an id in a file name; the hash behind them makes it unique.
_READABLE = 60
_HASH = 16
# Time in seconds between writing an embedding and the JSON file that names it, at most.
_GRACE_S = 60.0


@dataclass(frozen=True, eq=False)
class ImageScore:
    """Uncertainty score of one image with its inputs.

    Attributes:
        score: Uncertainty, 0 (sure) to 1 (unsure).
        parts: Signals by name, 0 to 1; signals without a value are left out.
        slice_index: Slice with the highest uncertainty, suggested for opening.
        embedding: (C,) float32, mean-pooled and L2-normalised.
        labels: Classes found by the model, sorted.
        weights: Name of the weights, such as ``v0001`` or ``biosam2_mini``.
        digest: Digest of the image's content.
        seconds: Computation time.
        settings: All other inputs of the signals: weights' checksum, input size, prompts, counts.
        stamp: Change stamp of the image file; while it is unchanged, the file need not be opened.
        calibration: Name of the calibration; empty for none.
        slices: Score by slice, for visited slices with an object.

    Raises:
        ValueError: A number is not finite, or outside 0 to 1.
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
            raise ValueError(f"Scores must be numbers from 0 to 1, not {wrong}")
        vector = np.asarray(self.embedding, dtype=np.float32)
        if vector.ndim != 1 or not np.isfinite(vector).all() or not math.isfinite(self.seconds):
            raise ValueError("Embedding and seconds must be finite numbers, the embedding one-dimensional")
        object.__setattr__(self, "embedding", vector)


def scores_folder(model_dir: Path, studies: Path) -> Path:
    """Folder of a datastore's scores; image ids are unique within one datastore only.

    Args:
        model_dir: Folder of ``registry.yaml``.
        studies: Folder of the datastore; for a DICOM store its local cache.
    """
    path = studies.resolve()
    return model_dir / SCORES_FOLDER / _file_name(path.name, str(path))


class ScoreStore:
    """Scores of a datastore's images. Safe for several threads and processes.

    Args:
        folder: Folder of the scores (``scores_folder``), created with the first score.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._kept: dict[str, tuple[tuple[int, int], ImageScore]] = {}

    def get(self, image_id: str) -> ImageScore | None:
        """Score of an image; None if it has none, or an unreadable one."""
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
            logger.warning("Score of %s ignored, since it cannot be read: %s", image_id, error)
            return None

    def put(self, image_id: str, score: ImageScore) -> None:
        """Stores the score of an image."""
        path = self._path(image_id)
        buffer = io.BytesIO()
        np.save(buffer, score.embedding, allow_pickle=False)
        content = buffer.getvalue()
        vector = path.with_name(f"{path.stem}.{hashlib.sha256(content).hexdigest()[:_HASH]}.npy")
        if not vector.is_file():
            write_atomically(vector, content)
        facts = {"format": _FORMAT, "id": image_id, "vector": vector.name, **vars(score)}
        del facts["embedding"]
        write_atomically(path, json.dumps(facts, allow_nan=False, indent=1, default=float).encode())
        # Former embeddings go, except recent ones that another process may be about to name.
        for old in self.folder.glob(f"{path.stem}.*.npy"):
            with contextlib.suppress(FileNotFoundError):
                if old != vector and old.stat().st_mtime < time.time() - _GRACE_S:
                    old.unlink()

    def _path(self, image_id: str) -> Path:
        return self.folder / f"{_file_name(image_id, image_id)}.json"

    def _read(self, path: Path) -> ImageScore:
        try:
            return self._read_once(path)
        except FileNotFoundError:
            # The embedding was deleted after the JSON file was read: a new score was stored meanwhile.
            return self._read_once(path)

    def _read_once(self, path: Path) -> ImageScore:
        facts: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(facts, dict) or facts.pop("format") != _FORMAT:
            raise ValueError("written by another version of the app")
        vector = np.load(path.with_name(Path(facts.pop("vector")).name), allow_pickle=False)
        del facts["id"]
        facts["labels"] = tuple(facts["labels"])
        facts["slices"] = {int(index): value for index, value in facts["slices"].items()}
        return ImageScore(**facts, embedding=vector)


def _file_name(readable: str, whole: str) -> str:
    """Readable part of a name, and a hash of the whole name."""
    # An id may contain lone surrogates, from a file name that is not UTF-8.
    content = whole.encode(errors="surrogatepass")
    start = re.sub(r"[^\w-]", "_", readable)[:_READABLE]
    return f"{start}-{hashlib.sha256(content).hexdigest()[:_HASH]}"
