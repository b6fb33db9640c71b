"""What is remembered of one object while it is followed from frame to frame, and what is looked back at.

Three policies choose the memories that memory attention reads:

* ``fifo``: SAM 2's own: every prompted frame and the last tracked ones.
* ``pruned``: SurgSAM-2's efficient frame pruning (Liu et al. 2024): of tracked frames on which the object
  looks the same one memory is encoded and read (``lib.engine.frame_pruning``).
* ``confidence``: MedSAM-2's bank (Zhu et al. 2024): tracked frames are kept for their confidence and their
  difference from each other, and picked up by their likeness to the frame that is looked at.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from lib.engine.frame_pruning import FramePruning
from lib.settings import MemoryPolicy

if TYPE_CHECKING:
    from lib.engine.likeness import Likeness
    from lib.engine.network import Features

Memory = dict[str, Any]

BANK_SIZE = 16  # N: memories that MedSAM-2 keeps
MOST_PICKED = 15  # SAM 2 normalises distances between frames by this number
LEAST_CONFIDENCE = 0.5  # tau_c: a mask that is more likely wrong than right is no memory
MARGIN = 0.1  # MedSAM-2 lets a memory in that is less confident by this much
TEMPERATURE = 0.1  # tau: at MedSAM-2's 1 the likeness hardly matters, exp(0.6) = 1.8 over a range of 0.6


def confidence(iou: float, presence: float) -> float:
    """c: predicted IoU of a mask times the probability that the object is on the frame."""
    return iou * presence


def replaced(
    s: Sequence[float], cosines: Sequence[Sequence[float]], c: float, kept: Sequence[float]
) -> int | None:
    """j*: the memory of a full bank that a new one replaces; None where the new one is not admitted.

    i* = argmin s_i is least like the new memory, and j* = argmax_{j != i*} cos(m_i*, m_j) most like i*. The
    new one is admitted where s_i* < cos(m_i*, m_j*), so that it is different, and c > c_j* - 0.1.

    Args:
        s: Cosine of the new memory with each of the bank.
        cosines: Cosine of each memory of the bank with each.
        c: Confidence of the new memory.
        kept: Confidence of each memory of the bank.
    """
    least = min(range(len(s)), key=lambda index: s[index])
    others = [index for index in range(len(s)) if index != least]
    if not others:
        return None
    most = max(others, key=lambda index: cosines[least][index])
    return most if s[least] < cosines[least][most] and c > kept[most] - MARGIN else None


def multiplicities(sim: Sequence[float], picked: int, temperature: float = TEMPERATURE) -> list[int]:
    """How often each memory is attended to: ``picked`` in all, in proportion to softmax(sim / tau).

    Largest remainders in place of MedSAM-2's random draw, so that an answer can be repeated. A memory that is
    attended to n times has log n added to its attention logits.
    """
    weights = torch.softmax(torch.tensor(sim, dtype=torch.float64) / temperature, dim=0) * picked
    counts = weights.floor().int().tolist()
    remainders = (weights - weights.floor()).tolist()
    order = sorted(range(len(counts)), key=lambda index: (-remainders[index], index))
    for index in order[: picked - sum(counts)]:
        counts[index] += 1
    return counts


class MemoryBank:
    """Memory of one object.

    Prompted frames are never dropped, so a correction keeps its weight. Tracked frames are kept as long as
    the network can look back (``reach`` frames), and forgotten when the direction turns.

    Args:
        reach: Frames that the network looks back: the larger of its memories and its object pointers.
        policy: Choice of the memories that are looked back at.
        spatial: Memories that memory attention reads at most, the prompted frame among them.

    Attributes:
        spatial: Memories that memory attention reads at most, the prompted frame among them.
        needs_embeddings: Whether memories have the embedding of their frame, by which they are picked up and
            compared (``similarity``).
        keeps_absent: Whether frames without the object are remembered, as SAM 2 does. Else the frames that
            it was seen on last stand in for those just visited, so that it is found when it comes back.
        likeness: Discriminant of the object on the prompted frames, which never changes on the way; None
            where memory attention and the neighbour say all.
    """

    def __init__(self, reach: int, policy: MemoryPolicy = "fifo", spatial: int = 7):
        self.policy = policy
        self.needs_embeddings = policy == "confidence"
        self.keeps_absent = True
        self.likeness: Likeness | None = None
        self._reach = reach
        self.spatial = spatial
        self._prompted: dict[int, Memory] = {}
        self._tracked: dict[int, Memory] = {}
        self._pruning = FramePruning() if policy == "pruned" else None
        self._left_out: frozenset[int] = frozenset()
        self._confident: list[Memory] = []

    def add_prompted(self, frame: int, memory: Memory) -> None:
        """Remembers a prompted frame."""
        self._prompted[frame] = memory

    def spares(self, features: torch.Tensor, logits: torch.Tensor) -> bool:
        """Whether a tracked frame needs no memory of its own; what is asked last is added next.

        It needs none where it is not remembered, and where the newest memory says the same of the object.

        Args:
            features: (C, h, w) the last map of the image encoder.
            logits: (1, S/4, S/4) mask that was found there.
        """
        if not self.keeps_absent and float(logits.max()) <= 0:
            return True
        return bool(self._pruning and self._pruning.spares(features, logits) and self._tracked)

    def add_spared(self, frame: int, seen: Memory) -> None:
        """Remembers a frame that needs no memory of its own: the newest memory stands in for it.

        Args:
            frame: Index of the frame.
            seen: What was found there, without ``maskmem_features``.
        """
        if not self.keeps_absent and float(seen["logits"].max()) <= 0:
            return
        newest = next(reversed(self._tracked))
        self._left_out |= {newest}
        self._put(frame, self._tracked[newest] | seen)

    def add_tracked(self, frame: int, memory: Memory) -> None:
        """Remembers a frame that the network segmented, and forgets the oldest beyond its reach."""
        if not self.keeps_absent and float(memory["logits"].max()) <= 0:
            return
        self._put(frame, memory)
        if self.policy == "confidence":
            self._admit(memory)

    def _put(self, frame: int, memory: Memory) -> None:
        self._tracked[frame] = memory
        while len(self._tracked) > self._reach:
            del self._tracked[next(iter(self._tracked))]
        self._left_out = self._left_out.intersection(self._tracked)

    def copy(self) -> MemoryBank:
        """A bank of the same memories, independent of this one from now on."""
        other = MemoryBank(self._reach, self.policy, self.spatial)
        other.needs_embeddings = self.needs_embeddings
        other.keeps_absent = self.keeps_absent
        other.likeness = self.likeness.copy() if self.likeness is not None else None
        other._prompted = dict(self._prompted)
        other._tracked = dict(self._tracked)
        other._left_out = self._left_out
        other._pruning = replace(self._pruning) if self._pruning else None
        other._confident = list(self._confident)
        return other

    def neighbour(self, frame: int, reverse: bool, query: torch.Tensor | None = None) -> Memory | None:
        """The memory of the frame that was visited before a frame; None where it was not remembered.

        With the ``confidence`` policy and the frame's embedding ``query`` (1, C, h, w), the most similar
        memory stands in for it: the frames of one-prompt segmentation are images of their own.
        """
        before = frame + 1 if reverse else frame - 1
        found = self._prompted.get(before, self._tracked.get(before))
        if found is None and not self.keeps_absent and self._tracked:
            return next(reversed(self._tracked.values()))
        memories = [*self._prompted.values(), *self._confident]
        if found is None and query is not None and self.policy == "confidence" and memories:
            sim = _similarities(query, memories)
            return memories[sim.index(max(sim))]
        return found

    def guess(self, features: Features) -> torch.Tensor | None:
        """Logits (1, 1, S/4, S/4) of the object by its likeness alone; None where that was not learned."""
        return self.likeness(features) if self.likeness else None

    def similarity(self, query: torch.Tensor) -> float:
        """Largest cosine of an embedding (1, C, h, w) with those of the prompted frames, -1 to 1."""
        return max(_similarities(query, list(self._prompted.values())))

    @property
    def joint_key(self) -> Hashable:
        """Equal for banks whose memories lie at the same distances, so that they can be read in one step.

        Where frames without the object are forgotten, the frames themselves may differ. None: this bank can
        never be joined, since its memories are picked for each object.
        """
        if self.needs_embeddings:
            return None
        places = [*self._tracked] if self.keeps_absent else range(len(self._tracked))
        left_out = [
            place for place, frame in zip(places, self._tracked, strict=True) if frame in self._left_out
        ]
        return bool(self.likeness), self.keeps_absent, *self._prompted, "tracked", *places, "out", *left_out

    def forget_tracked(self) -> None:
        """Forgets all but the prompted frames, before the other direction is followed."""
        self._tracked.clear()
        self._left_out = frozenset()
        if self._pruning:
            self._pruning = FramePruning()
        self._confident.clear()

    def recall(self, frame: int, reverse: bool, query: torch.Tensor) -> dict[str, dict[int, Memory]]:
        """The memories that the policy chooses for a frame, in the form that SAM 2's memory attention reads.

        Args:
            frame: Index of the frame that is looked at.
            reverse: Whether the frames are visited from last to first.
            query: Embedding of the frame (1, C, h, w).
        """
        prompted, tracked = self._prompted, self._tracked
        if self._left_out:
            tracked = {
                index: _pointer_alone(memory) if index in self._left_out else memory
                for index, memory in tracked.items()
            }
        if not self.keeps_absent:
            tracked = {
                frame + (1 if reverse else -1) * back: memory
                for back, memory in enumerate(reversed(tracked.values()), start=1)
            }
        if self.policy == "confidence":
            prompted, tracked = self._picked_up(frame, reverse, query), {}
        return {"cond_frame_outputs": prompted, "non_cond_frame_outputs": tracked}

    def _admit(self, memory: Memory) -> None:
        c = memory["confidence"]
        if len(self._confident) < BANK_SIZE:
            if c >= LEAST_CONFIDENCE:
                self._confident.append(memory)
            return
        flat = [_unit(kept["maskmem_features"]) for kept in self._confident]
        new = _unit(memory["maskmem_features"])
        cosines = [[float(one @ other) for other in flat] for one in flat]
        s = [float(new @ one) for one in flat]
        place = replaced(s, cosines, c, [kept["confidence"] for kept in self._confident])
        if place is not None:
            del self._confident[place]
            self._confident.append(memory)

    def _picked_up(self, frame: int, reverse: bool, query: torch.Tensor) -> dict[int, Memory]:
        """As many picks as there is room for, each under an index just visited.

        Prompted frames are always among them where they all have room: more are templates of one-prompt
        segmentation, of which the similar ones are picked.
        """
        memories = [*self._prompted.values(), *self._confident]
        room = self.spatial - 1
        if len(memories) == 1:
            return self._prompted
        counts = multiplicities(_similarities(query, memories), room)
        if len(self._prompted) <= room:
            for place in range(len(self._prompted)):
                counts[place] = max(counts[place], 1)
        step = 1 if reverse else -1
        picks = [memory for memory, count in zip(memories, counts, strict=True) for _ in range(count)][
            :MOST_PICKED
        ]
        return {frame + step * (place + 1): memory for place, memory in enumerate(picks)}


def _similarities(query: torch.Tensor, memories: Sequence[Memory]) -> list[float]:
    """sim_i: cosine of an embedding with that of each memory's frame."""
    wanted = _unit(query)
    return [float(wanted @ _unit(memory["embedding"])) for memory in memories]


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Features as one vector of length 1."""
    return F.normalize(features.float().flatten(), dim=0)


def _pointer_alone(memory: Memory) -> Memory:
    """A memory of no place, whose object pointer is still read."""
    encodings = [encoding[..., :0, :] for encoding in memory["maskmem_pos_enc"]]
    return {
        **memory,
        "maskmem_features": memory["maskmem_features"][..., :0, :],
        "maskmem_pos_enc": encodings,
    }


class JointBank:
    """Stands in for a :class:`MemoryBank` where several objects are looked for on one frame.

    Args:
        banks: Banks with equal ``joint_key``, one for each row.
    """

    def __init__(self, banks: Sequence[MemoryBank]) -> None:
        self._banks = banks

    def neighbour(self, frame: int, reverse: bool, query: torch.Tensor | None = None) -> Memory | None:
        """The memories of the frame that was visited before a frame; None where it was not remembered."""
        found = [memory for bank in self._banks if (memory := bank.neighbour(frame, reverse)) is not None]
        return _joined(found) if found else None

    def recall(self, frame: int, reverse: bool, query: torch.Tensor) -> dict[str, dict[int, Memory]]:
        """The memories of :meth:`MemoryBank.recall`, of all objects together."""
        each = [bank.recall(frame, reverse, query[row, None]) for row, bank in enumerate(self._banks)]
        return {
            kind: {index: _joined([one[kind][index] for one in each]) for index in memories}
            for kind, memories in each[0].items()
        }

    def guess(self, features: Features) -> torch.Tensor | None:
        """Logits (B, 1, S/4, S/4) of each object by its likeness alone; None where that was not learned."""
        found = [guess for bank in self._banks if (guess := bank.guess(features)) is not None]
        return torch.cat(found) if found else None


def _joined(memories: Sequence[Memory]) -> Memory:
    return {name: _concatenated([memory[name] for memory in memories]) for name in memories[0]}


def _concatenated(values: Sequence[Any]) -> Any:
    """Of tensors (1, ...), (B, ...); of lists of them, a list; of nothing, None."""
    first = values[0]
    if isinstance(first, list):
        return [torch.cat(each) for each in zip(*values, strict=True)]
    return None if first is None else torch.cat(list(values))


def memory_rows(memory: Memory, count: int) -> list[Memory]:
    """The memories of ``count`` objects that were encoded together."""
    if count == 1:
        return [memory]
    return [{name: _row(value, row) for name, value in memory.items()} for row in range(count)]


def _row(value: Any, row: int) -> Any:
    if isinstance(value, list):
        return [_row(each, row) for each in value]
    return None if value is None else value[row : row + 1]
