"""What is remembered of one object while it is followed from frame to frame, and what is looked back at.

Three policies choose the memories that memory attention reads:

* ``fifo``: SAM 2's own: every prompted frame and the last tracked ones.
* ``pruned``: SurgSAM-2's efficient frame pruning (Liu et al. 2024): of these, the tracked frames that are
  most like the newest are left out. The paper compares whole frames and always leaves out two; here the
  object is compared, and at most two are left out on which it is nearly the same (``object_places``).
* ``confidence``: MedSAM-2's bank (Zhu et al. 2024): tracked frames are kept for their confidence and their
  difference from each other, and picked up by their likeness to the frame that is looked at.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

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
PRUNED = 2  # memories that SurgSAM-2 leaves out
# Mean cosine from which on a memory says what the newest one says. On an echocardiogram 96% of the memories
# of the frame before are above it, of cells that move by 3 of their 44 pixels a frame hardly one. With four
# memories in all, an object that crossed another one was lost where one was always left out.
REDUNDANT = 0.95


def confidence(iou: float, presence: float) -> float:
    """c: predicted IoU of a mask times the probability that the object is on the frame."""
    return iou * presence


def unit_channels(memory: torch.Tensor) -> torch.Tensor:
    """A memory (..., C, h, w) in float32, its channels of length 1 at each place; 0 where they are 0."""
    values = memory.float()
    return values * values.square().sum(-3, keepdim=True).clamp(min=1e-12).rsqrt()


def redundancy(
    memory: torch.Tensor, newest: torch.Tensor, places: torch.Tensor | None = None
) -> torch.Tensor:
    """r_i: sum over places of the cosine between the channels of a memory and of the newest one.

    In the paper all places count alike, as with ``places`` None. The bank weights them (``object_places``).

    Args:
        memory: (C, h, w) of ``unit_channels``.
        newest: The same of the newest memory.
        places: Weights (h, w) of the places.

    Returns:
        A number, as a tensor without axes.
    """
    cosines = (memory * newest).sum(0)
    return (cosines if places is None else cosines * places).sum()


def object_places(held: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
    """Weights of the places where a memory or the newest one holds the object; of sum 1.

    Not in SurgSAM-2. A frame is mostly background, which hardly changes in a clip: over all places a memory
    in which the object lies elsewhere is as redundant as one in which it has not moved. Of sum 1, so that r
    is a mean, which can be compared with a limit whatever the object's size.

    Args:
        held: (h, w) share of each place that the mask of the memory holds.
        newest: The same of the newest memory.

    Returns:
        (h, w); the same everywhere where neither holds the object.
    """
    either = torch.maximum(held, newest) + 1e-6
    return either / either.sum()


def most_redundant(r: Sequence[float], count: int) -> list[int]:
    """Indices of the ``count`` largest r_i, ascending; of equal ones the oldest."""
    return sorted(sorted(range(len(r)), key=lambda index: (-r[index], index))[:count])


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
        self._compared: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._left_out: frozenset[int] = frozenset()
        self._confident: list[Memory] = []

    def add_prompted(self, frame: int, memory: Memory) -> None:
        """Remembers a prompted frame."""
        self._prompted[frame] = memory

    def add_tracked(self, frame: int, memory: Memory) -> None:
        """Remembers a frame that the network segmented, and forgets the oldest beyond its reach."""
        if not self.keeps_absent and float(memory["logits"].max()) <= 0:
            return
        self._tracked[frame] = memory
        while len(self._tracked) > self._reach:
            del self._tracked[next(iter(self._tracked))]
        if self.policy == "confidence":
            self._admit(memory)
        if self.policy == "pruned":
            self._prune(frame, memory)

    def copy(self) -> MemoryBank:
        """A bank of the same memories, independent of this one from now on."""
        other = MemoryBank(self._reach, self.policy, self.spatial)
        other.needs_embeddings = self.needs_embeddings
        other.keeps_absent = self.keeps_absent
        other.likeness = self.likeness.copy() if self.likeness is not None else None
        other._prompted = dict(self._prompted)
        other._tracked = dict(self._tracked)
        other._compared, other._left_out = dict(self._compared), self._left_out
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
        self._compared.clear()
        self._left_out = frozenset()
        self._confident.clear()

    def as_output_dict(self) -> dict[str, dict[int, Memory]]:
        """All memories in the form that SAM 2's memory attention reads."""
        return {"cond_frame_outputs": self._prompted, "non_cond_frame_outputs": self._tracked}

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

    def _prune(self, frame: int, memory: Memory) -> None:
        """Chooses the tracked frames that keep their object pointer alone: once for each new frame.

        Prompted frames and the newest one are always read.
        """
        newest = unit_channels(memory["maskmem_features"][0])
        side = memory["logits"].shape[-1] // newest.shape[-1]
        held = F.avg_pool2d((memory["logits"][0] > 0).float(), side)[0]
        window = list(self._tracked)[1 - self.spatial :]
        older = {index: self._compared[index] for index in window if index in self._compared}
        self._compared = {**older, frame: (newest, held)}
        self._left_out = frozenset()
        if older and len(window) + len(self._prompted) >= self.spatial:
            # One by one: of all together, torch would make a task for every core and wait for all of them.
            r = [redundancy(unit, newest, object_places(seen, held)) for unit, seen in older.values()]
            values, indices = torch.stack(r).tolist(), list(older)
            self._left_out = frozenset(
                indices[place] for place in most_redundant(values, PRUNED) if values[place] >= REDUNDANT
            )

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
