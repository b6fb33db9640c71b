"""The memories of several objects as one, with a row for each, to follow them in one step of the network."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from lib.engine.memory import Memory, MemoryBank
from lib.engine.network import Features


def joint_key(bank: MemoryBank) -> Hashable:
    """Equal for banks that can be joined: they remember the same frames. None: this one cannot be."""
    if bank.policy != "fifo" or not bank.keeps_absent:
        return None  # memories are chosen for each object
    return bool(bank.likeness), *((kind, *memories) for kind, memories in bank.as_output_dict().items())


class JointBank:
    """Stands in for a :class:`MemoryBank` where several objects are looked for on one frame.

    Args:
        banks: Banks with equal ``joint_key``, one for each row.
    """

    needs_embeddings = False

    def __init__(self, banks: Sequence[MemoryBank]) -> None:
        self._banks = banks

    def neighbour(self, frame: int, reverse: bool, query: torch.Tensor | None = None) -> Memory | None:
        """The memories of the frame that was visited before a frame; None where it was not remembered."""
        found = [memory for bank in self._banks if (memory := bank.neighbour(frame, reverse)) is not None]
        return _joined(found) if found else None

    def recall(self, frame: int, reverse: bool, query: torch.Tensor) -> dict[str, dict[int, Memory]]:
        """All memories in the form that SAM 2's memory attention reads."""
        each = [bank.as_output_dict() for bank in self._banks]
        return {
            kind: {index: _joined([one[kind][index] for one in each]) for index in memories}
            for kind, memories in each[0].items()
        }

    def guess(self, features: Features) -> torch.Tensor | None:
        """Logits (B, 1, S/4, S/4) of each object by its likeness alone; None where that was not learned."""
        found = [guess for bank in self._banks if (guess := bank.guess(features)) is not None]
        return torch.cat(found) if found else None

    def add_tracked(self, frame: int, memory: Memory) -> None:
        """Remembers a frame: each object its row."""
        for row, bank in enumerate(self._banks):
            bank.add_tracked(frame, {name: _row(value, row) for name, value in memory.items()})


def _joined(memories: Sequence[Memory]) -> Memory:
    return {name: _concatenated([memory[name] for memory in memories]) for name in memories[0]}


def _concatenated(values: Sequence[Any]) -> Any:
    """Of tensors (1, ...), (B, ...); of lists of them, a list; of nothing, None."""
    first = values[0]
    if isinstance(first, list):
        return [torch.cat(each) for each in zip(*values, strict=True)]
    return None if first is None else torch.cat(list(values))


def _row(value: Any, row: int) -> Any:
    if isinstance(value, list):
        return [_row(each, row) for each in value]
    return None if value is None else value[row : row + 1]
