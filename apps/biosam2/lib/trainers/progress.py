"""What is seen of a training while it runs: the numbers that viewers show, a line in the log, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import psutil
from torch.utils.tensorboard import SummaryWriter

from lib.files import write_atomically

logger = logging.getLogger(__name__)

STATS_FILE = "stats.json"
EVENTS_FOLDER = "tensorboard"
_TIME = "%Y-%m-%d %H:%M:%S"  # UTC

Status = Literal["running", "published", "kept", "failed"]
# Of a training that learns from the labels there were at its start, or has learned from them.
_LEARNS = ("running", "published", "kept")


class Progress:
    """The progress of one training; made by its first process alone.

    Args:
        folder: of the training.
        total_epochs: at most.
        started: when it began, in seconds since 1970.
    """

    def __init__(self, folder: Path, total_epochs: int, started: float):
        self._path = folder / STATS_FILE
        self._started = time.monotonic()
        self._stats: dict[str, Any] = {
            "status": "running",
            "message": "opening the labelled images",
            "start_time": datetime.fromtimestamp(started, timezone.utc).strftime(_TIME),
            # What counts again where this one ends without having learned.
            "learned_before": _last_that_learns(folder),
            "pid": os.getpid(),
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
        """Says what is going on, and adds facts to the numbers."""
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
        """Reports an epoch.

        Args:
            epoch: its number, from 1.
            losses: means of its steps.
            means: what was measured after it, by kind of prompt.
            score: the mean Dice that counts.
            seconds: that it took.
        """
        best = max(score, self._stats["best_metric"])
        self._stats.update(
            epoch=epoch, best_metric=best, train=_numbers(losses), eval={"dice": score, **_numbers(means)}
        )
        left = self._stats["total_epochs"] - epoch
        before = self._stats.get("before", {}).get("dice", 0.0)
        self.note(
            f"epoch {epoch} of {self._stats['total_epochs']}: loss {losses.get('total', math.nan):.3f}, "
            f"Dice {score:.3f}, best {best:.3f}, before {before:.3f}; "
            f"{seconds:.0f} s an epoch, at most {left * seconds / 60:.0f} min to go"
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
            # The training itself may still end well: what it learned is written elsewhere.
            logger.warning("The progress cannot be written: %s", error)


def read_stats(folder: Path) -> dict[str, Any]:
    """The numbers of the last training; one whose process has gone without a word was stopped.

    Args:
        folder: of the training.

    Returns:
        An empty table where there never was one.
    """
    try:
        stats: dict[str, Any] = json.loads((folder / STATS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    if stats["status"] == "running" and not _is_running(stats["pid"]):
        stats.update(status="stopped", message="stopped; the next training goes on from its last epoch")
    return stats


def started_at(folder: Path) -> float:
    """When the last training began that learns from its labels, or has learned, in seconds since 1970.

    One that failed, or was cut off, has not. It is 0 where there never was one that has.

    Args:
        folder: of the training.
    """
    began = _last_that_learns(folder)
    return datetime.strptime(began, _TIME).replace(tzinfo=timezone.utc).timestamp() if began else 0.0


def _last_that_learns(folder: Path) -> str | None:
    stats = read_stats(folder)
    began: str | None = stats.get("start_time" if stats.get("status") in _LEARNS else "learned_before")
    return began


def _is_running(pid: int) -> bool:
    """Whether a process runs; one that was killed and not yet cleared away does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _numbers(values: Mapping[str, float]) -> dict[str, float]:
    """Rounded for people, and without what JSON cannot hold."""
    return {name: round(value, 5) for name, value in values.items() if math.isfinite(value)}


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
