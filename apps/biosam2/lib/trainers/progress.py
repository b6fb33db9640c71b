"""Progress of a training: statistics for viewers, log lines, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from torch.utils.tensorboard import SummaryWriter

from lib.files import has_ended, this_process, write_atomically

logger = logging.getLogger(__name__)

STATS_FILE = "stats.json"
EVENTS_FOLDER = "tensorboard"
_TIME = "%Y-%m-%d %H:%M:%S"  # UTC

Status = Literal["running", "published", "kept", "failed"]
# Status of trainings that learn or have learned from the labels at their start.
_LEARNS = ("running", "published", "kept")


class TrainingProgress:
    """Reports the progress of one training, from its first process only."""

    def __init__(self, folder: Path, total_epochs: int, started: float):
        self._path = folder / STATS_FILE
        self._started = time.monotonic()
        self._stats: dict[str, Any] = {
            "status": "running",
            "message": "reading the labelled images",
            "start_time": datetime.fromtimestamp(started, timezone.utc).strftime(_TIME),
            # Restored as start_time if this training ends without a result.
            "learned_before": _last_that_learns(folder),
            "process": this_process(),
            "epoch": 0,
            "total_epochs": total_epochs,
            "best_metric": 0.0,
        }
        self.events = folder / EVENTS_FOLDER
        shutil.rmtree(self.events, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._board: SummaryWriter | None = None
        self._write()

    def note(self, message: str, **facts: Any) -> None:
        """Sets the message, and adds facts to the statistics."""
        self._stats.update(facts, message=message)
        logger.info("Training: %s", message)
        self._write()

    def epoch(
        self,
        epoch: int,
        losses: Mapping[str, float],
        means: Mapping[str, float],
        score: float,
        seconds: float,
    ) -> None:
        """Reports an epoch."""
        best = max(score, self._stats["best_metric"])
        self._stats.update(
            epoch=epoch, best_metric=best, train=_numbers(losses), eval={"dice": score, **_numbers(means)}
        )
        left = self._stats["total_epochs"] - epoch
        before = self._stats.get("before", {}).get("dice", 0.0)
        self.note(
            f"epoch {epoch} of {self._stats['total_epochs']}: loss {losses.get('total', math.nan):.3f}, "
            f"Dice {score:.3f}, best {best:.3f}, before {before:.3f}; "
            f"{seconds:.0f} s per epoch, at most {left * seconds / 60:.0f} min to go"
        )
        board = self._open_board()
        for group, values in (("loss", losses), ("validation", {**means, "score": score})):
            for name, value in values.items():
                board.add_scalar(f"{group}/{name}", value, epoch)
        board.flush()

    def end(self, status: Status, message: str, **facts: Any) -> None:
        """Reports the end; nothing is reported afterwards."""
        self._stats.update(facts, status=status, total_time=_clock(time.monotonic() - self._started))
        self.note(message)
        if self._board is not None:
            self._board.close()

    def _open_board(self) -> SummaryWriter:
        if self._board is None:
            self._board = SummaryWriter(str(self.events))
        return self._board

    def _write(self) -> None:
        try:
            write_atomically(self._path, json.dumps(self._stats, allow_nan=False).encode())
        except OSError as error:
            # The training can still succeed: its weights are written elsewhere.
            logger.warning("Training statistics cannot be written: %s", error)


def stats_since(folder: Path, moment: float) -> dict[str, Any]:
    """``read_stats`` of a training that started at a moment (seconds since 1970) or later, or nothing."""
    stats = read_stats(folder)
    return stats if _seconds(stats.get("start_time")) >= moment else {}


def read_stats(folder: Path) -> dict[str, Any]:
    """Statistics of the running or last training; its status is "stopped" if its process was killed.

    Returns:
        Status, message, epoch, total_epochs, Dice ``before`` and ``after``, and, at the end, ``published``
        and ``reason``; empty without any training.
    """
    try:
        stats: dict[str, Any] = json.loads((folder / STATS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    if stats["status"] == "running" and has_ended(str(stats.get("process", stats.get("pid")))):
        stats.update(status="stopped", message="stopped; the next training resumes after its last epoch")
    return stats


def started_at(folder: Path) -> float:
    """Start of the last training that did not fail or stop, in seconds since 1970; 0 without any."""
    return _seconds(_last_that_learns(folder))


def _last_that_learns(folder: Path) -> str | None:
    stats = read_stats(folder)
    began: str | None = stats.get("start_time" if stats.get("status") in _LEARNS else "learned_before")
    return began


def _seconds(time_text: str | None) -> float:
    """Seconds since 1970 of a time in the statistics; 0 for None."""
    if time_text is None:
        return 0.0
    return datetime.strptime(time_text, _TIME).replace(tzinfo=timezone.utc).timestamp()


def _numbers(values: Mapping[str, float]) -> dict[str, float]:
    """Rounded values, without NaN and infinity, which JSON cannot hold."""
    return {name: round(value, 5) for name, value in values.items() if math.isfinite(value)}


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
