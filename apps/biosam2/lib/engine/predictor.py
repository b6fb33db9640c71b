"""One frame and one object at a time: prompts in pixels of the native frame in, its mask out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.special import expit

from lib.engine.frames import FramesAhead, FrameSequence
from lib.engine.memory import JointBank, Memory, MemoryBank, confidence, memory_rows
from lib.engine.network import (
    Decoded,
    EmbeddingCache,
    Features,
    Network,
    NetworkPrompts,
    mask_logits,
    network_image,
    network_mask,
    seen,
    stack_prompts,
)
from lib.engine.openvino_parts import install_parts
from lib.engine.runtime import Runtime, release_free_memory
from lib.prompts.types import FramePrompts
from lib.settings import MemoryPolicy
from lib.transforms.frames import Crop

# Objects that are decoded in one step: at 1024 px each takes 16 MB, and a click waits for the step.
MOST_AT_ONCE = 8
# Frames that a GPU encodes in one step before they are asked for, where so many embeddings can be kept. A CPU
# is busy with one, and a click would wait for the others.
ENCODED_AT_ONCE = 4
LEAST_BUDGET = 64 << 20
# Logits of kept answers are cut off here: where it sees no object the network says -1024 everywhere.
MOST_LOGIT = 10.0
# Outside the window of an answer is background, as sure as a sigmoid of 0.95.
UNKNOWN_LOGIT = 3.0


# Of the masks that a network decodes for one click: the one with the highest predicted IoU, or by area.
MaskChoice = Literal["best", "smallest", "largest"]


@dataclass(frozen=True, eq=False)
class MaskLogits:
    """Logits of a mask on the network's grid.

    Attributes:
        values: float16 (h, w), above 0 inside the mask.
        crop: Part of the frame that the grid covers; None for the whole frame.
    """

    values: NDArray[np.float16]
    crop: Crop | None = None

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """The mask, bool (H, W), of a frame of this size."""
        return self.frame(height, width) > 0

    def frame(self, height: int, width: int) -> NDArray[np.float32]:
        """The logits (H, W) of a frame of this size, the least there are outside the crop."""
        crop = self.crop or Crop(0, 0, width, height)
        grid = torch.from_numpy(self.values.astype(np.float32))[None, None]
        native = F.interpolate(grid, (crop.bottom - crop.top, crop.right - crop.left), mode="bilinear")
        whole = np.full((height, width), -MOST_LOGIT, np.float32)
        whole[crop.top : crop.bottom, crop.left : crop.right] = native[0, 0].numpy()
        return whole

    def on_grid_of(self, other: MaskLogits, height: int, width: int) -> NDArray[np.float32]:
        """Values (h, w) on the grid of other logits of the same frame (H, W); background where unknown."""
        if self.crop == other.crop:
            return self.values.astype(np.float32)
        own, wanted = (logits.crop or Crop(0, 0, width, height) for logits in (self, other))
        rows, columns = other.values.shape
        y = wanted.top + (torch.arange(rows) + 0.5) * (wanted.bottom - wanted.top) / rows
        x = wanted.left + (torch.arange(columns) + 0.5) * (wanted.right - wanted.left) / columns
        y = 2 * (y - own.top) / (own.bottom - own.top) - 1
        x = 2 * (x - own.left) / (own.right - own.left) - 1
        places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
        grid = torch.from_numpy(self.values.astype(np.float32))[None, None]
        found = F.grid_sample(grid, places, padding_mode="border", align_corners=False)[0, 0]
        outside = (places[0].abs() > 1).any(dim=-1)
        return torch.where(outside, found.clamp(max=-UNKNOWN_LOGIT), found).numpy()


@dataclass(frozen=True)
class FrameMask:
    """One object on one frame.

    Attributes:
        mask: bool (H, W), of the native frame.
        score: predicted IoU of the mask with the truth, 0 to 1.
        presence: predicted probability that the object is on the frame, 0 to 1.
        logits: Logits that the mask comes from; None for a mask that was drawn.
    """

    mask: NDArray[np.bool_]
    score: float
    presence: float
    logits: MaskLogits | None = None

    @classmethod
    def expected(cls, logits: NDArray[np.float32]) -> FrameMask:
        """The mask of logits (H, W); its score is the IoU that the probabilities lead one to expect."""
        probability, mask = expit(logits), logits > 0
        union = float(mask.sum() + probability[~mask].sum())
        score = float(probability[mask].sum()) / union if union else 0.0
        return cls(mask, score, float(probability.max()))

    def pasted(self, crop: Crop, width: int, height: int) -> FrameMask:
        """The result on a crop of a frame as one of the whole frame."""
        if crop.is_whole(width, height):
            return self
        logits = MaskLogits(self.logits.values, crop) if self.logits and not self.logits.crop else None
        return FrameMask(crop.paste(self.mask, width, height), self.score, self.presence, logits)


@dataclass(frozen=True, eq=False)
class Outputs:
    """Raw outputs of the network for B objects on one frame.

    Attributes:
        logits: float32 (B, h, w), of the network's own mask grid; -1024 everywhere where it sees no object.
        ious: float32 (B, M), predicted IoU with the truth of each mask that was decoded.
        object_logits: float32 (B,), above 0 where it sees the object.
    """

    logits: NDArray[np.float32]
    ious: NDArray[np.float32]
    object_logits: NDArray[np.float32]

    @property
    def predicted_ious(self) -> NDArray[np.float32]:
        """(B,) predicted IoU of the chosen masks, 0 to 1."""
        return np.clip(self.ious.max(axis=1), 0.0, 1.0)


class Predictor:
    """A network on a device, with its embeddings.

    Args:
        network: Network on the CPU; it is moved to the runtime's device.
        runtime: Device.
        embeddings: Cache, which predictors may share: the keys tell them apart.
        name: Name of the weights, for people.
        version: Version of the weights; embeddings of another version are never used.

    Attributes:
        key: equal where embeddings and memories of one predictor can be another's.
    """

    def __init__(
        self, network: Network, runtime: Runtime, embeddings: EmbeddingCache, name: str, version: str
    ):
        self.name = name
        self.runtime = runtime
        # Channels last is the layout that a CPU's bf16 convolutions compute in.
        self._network = network.to(runtime.device, memory_format=torch.channels_last)
        self._embeddings = embeddings
        self._version = version
        self.key: Hashable = (version, network.image_size, str(runtime.device), runtime.dtype)

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels."""
        return int(self._network.image_size)

    def use_compiler(self) -> None:
        """Compiles the image encoder at its next run, which takes a minute; on a GPU as a CUDA graph."""
        is_graph = self.runtime.type == "cuda"
        compiled = torch.compile(self._network.forward_image, mode="reduce-overhead" if is_graph else None)

        def encode(image: torch.Tensor) -> dict[str, list[torch.Tensor]]:
            # The next run of a graph writes over what this one returned, and embeddings are kept.
            return {"backbone_fpn": [level.clone() for level in compiled(image)["backbone_fpn"]]}

        self._network.forward_image = encode

    def use_openvino(self, folder: Path, threads: int = 0) -> None:
        """Runs the network's converted parts from now on; requests go on with torch until they are ready.

        Raises:
            OSError, RuntimeError: see ``lib.engine.openvino_parts``.
        """
        put_in_place = install_parts(self._network, folder, self.runtime.dtype, threads)
        with self.runtime.step():
            put_in_place()
        release_free_memory()
        self.warm_up()

    def new_bank(self, policy: MemoryPolicy = "fifo") -> MemoryBank:
        """An empty memory for one object, as deep as this network looks back."""
        reach = max(self._network.num_maskmem, self._network.max_obj_ptrs_in_encoder)
        return MemoryBank(reach, policy, self._network.num_maskmem)

    def warm_up(self) -> None:
        """Runs the network once on a blank frame: its first run is slow."""
        blank = np.zeros((self.image_size, self.image_size, 3), dtype=np.uint8)
        centre = np.full((1, 2), self.image_size / 2, dtype=np.float32)
        points = torch.from_numpy(centre).to(self.runtime.device)[None]
        labels = torch.ones((1, 1), dtype=torch.int32, device=self.runtime.device)
        image = network_image(blank, self.image_size).to(self.runtime.device)
        with self.runtime.step():
            self._network.segment(self._network.encode(image), NetworkPrompts(points, labels))

    def features(self, frames: FrameSequence, index: int) -> Features:
        """The embedding of a frame: kept, or encoded now.

        Args:
            frames: Frames of the image.
            index: Index of the frame.
        """
        if (features := self.kept(frames, index)) is not None:
            return features
        key = self._key(frames, index)
        if isinstance(frames, FramesAhead):
            return self._encode_onward(frames, index)
        image = network_image(frames[index], self.image_size).to(self.runtime.device)
        with self.runtime.step():
            if key is None:
                return self._encode(image)
            if (features := self._embeddings.get(key)) is None:
                features = self._encode(image)
                self._embeddings.put(key, features)
        return features

    def _encode(self, images: torch.Tensor) -> Features:
        features = self._network.encode(images)
        self._embeddings.encoded += len(images)
        return features

    def kept(self, frames: FrameSequence, index: int) -> Features | None:
        """The embedding of a frame where it is in the cache, or was prepared on disk."""
        key = self._key(frames, index)
        if key is None:
            return None
        features = self._embeddings.get(key)
        if features is None and self._embeddings.disk is not None:
            features = self._embeddings.disk.load(self._disk_key(frames, index))
            if features is not None:
                features = features.to(self.runtime.device, self.runtime.dtype)
                self._embeddings.put(key, features)
        return features

    def prepare(self, frames: FrameSequence, index: int, since: float) -> bool:
        """Encodes a frame for the disk, unless it is there; whether it was not.

        Raises:
            StorageFullError: There is no room on disk; files that were used after ``since`` stay.
        """
        disk, key = self._embeddings.disk, self._disk_key(frames, index)
        if disk is None or not frames.digest or disk.load(key) is not None:
            return False
        features = self._embeddings.get(self._key(frames, index))
        if features is None:
            image = network_image(frames[index], self.image_size).to(self.runtime.device)
            with self.runtime.step():
                features = self._encode(image)
        disk.save(key, features, since)
        return True

    def _disk_key(self, frames: FrameSequence, index: int) -> Hashable:
        # The number format counts and the device does not.
        network = self._version, self.image_size, self._network.rendered_prompts, str(self.runtime.dtype)
        return (*network, frames.digest, frames.key(index))

    def _key(self, frames: FrameSequence, index: int) -> Hashable | None:
        return (self.key, frames.digest, frames.key(index)) if frames.digest else None

    @property
    def at_once(self) -> int:
        """Frames that are worth encoding in one step before they are asked for."""
        keeps = self._embeddings.budget >= LEAST_BUDGET
        return ENCODED_AT_ONCE if keeps and self.runtime.type == "cuda" else 1

    def encode_ahead(self, slices: Sequence[tuple[FrameSequence, int]]) -> None:
        """Encodes frames, each an index of a sequence with a digest, in one step, and keeps the embeddings.

        Raises:
            Cancelled: Nobody needs them any more.
        """
        images = [network_image(frames[index], self.image_size) for frames, index in slices]
        self._encode_together(images, [self._key(frames, index) for frames, index in slices])

    def _encode_onward(self, frames: FramesAhead, index: int) -> Features:
        """The embedding of a frame on a way; a GPU encodes those after it in the same step."""
        some = frames.onward(index, self.at_once if frames.digest else 1)
        images = [frames.image(each, self.image_size) for each in some]
        return self._encode_together(images, [self._key(frames, each) for each in some])[0]

    def _encode_together(
        self, images: Sequence[torch.Tensor], keys: Sequence[Hashable | None]
    ) -> list[Features]:
        """Embeddings of images (1, 3, S, S) in their order; those with a key are looked up and kept."""
        with self.runtime.step():
            found = [None if key is None else self._embeddings.get(key) for key in keys]
            missing = [place for place, features in enumerate(found) if features is None]
            if missing:
                encoded = self._encode(
                    torch.cat([images[place] for place in missing]).to(self.runtime.device)
                )
                rows = torch.arange(len(missing), device=self.runtime.device).split(1)
                for place, row in zip(missing, rows, strict=True):
                    found[place] = features = encoded.rows(row) if len(missing) > 1 else encoded
                    if keys[place] is not None:
                        self._embeddings.put(keys[place], features)
        return [features for features in found if features is not None]

    def segment(
        self,
        frames: FrameSequence,
        index: int,
        prompts: FramePrompts,
        bank: MemoryBank | None = None,
    ) -> FrameMask:
        """Segments an object on a frame from its prompts there, and remembers it where a bank is given.

        Args:
            frames: Frames of the image.
            index: Index of the frame.
            prompts: Prompts in pixels of the native frame. A mask alone is the answer as it is; beside
                points or a box it is where they start.
            bank: Memory of the object.
        """
        features = self.features(frames, index)
        with self.runtime.step():
            decoded = self._decode(features, prompts, frames)
            if bank is not None:
                bank.add_prompted(index, self._memory(features, decoded, bank, prompted=True))
            if prompts.is_mask_alone and prompts.mask is not None:
                found = FrameMask(prompts.mask, 1.0, 1.0)
            else:
                found = self._frame_mask(decoded, frames)
        if bank is not None and bank.likeness is not None and features.guide is not None:
            bank.likeness.add(index, features, found.mask)
        return found

    def outputs(
        self,
        frames: FrameSequence,
        index: int,
        prompts: Sequence[FramePrompts],
        choice: MaskChoice = "best",
    ) -> Outputs:
        """Raw outputs of the network for several objects on a frame, in steps of a few of them.

        Args:
            frames: Frames of the image.
            index: Index of the frame.
            prompts: Prompts of each object, at least one; as many points and boxes as the others have.
            choice: Mask that is taken where the network decodes several for one click.
        """
        features = self.features(frames, index)
        steps = []
        for start in range(0, len(prompts), MOST_AT_ONCE):
            some = prompts[start : start + MOST_AT_ONCE]
            with self.runtime.step():
                rows = features.rows(torch.zeros(len(some), dtype=torch.long, device=self.runtime.device))
                stacked = stack_prompts(
                    some, [(frames.width, frames.height)] * len(some), self.image_size, self.runtime.device
                )
                decoded = self._network.segment(rows, stacked)
                logits, ious = _chosen(decoded, choice)
                parts = (logits, ious, decoded.object_logits[:, 0])
                steps.append([part.float().cpu().numpy() for part in parts])
        return Outputs(*(np.concatenate(part) for part in zip(*steps, strict=True)))

    def track(
        self,
        frames: FrameSequence,
        index: int,
        bank: MemoryBank,
        reverse: bool,
        prompts: FramePrompts | None = None,
    ) -> FrameMask:
        """Segments an object on a frame from its memory, and remembers it there.

        Args:
            frames: Frames of the image.
            index: Index of the frame.
            bank: Memory of the object; it holds a prompted frame at least.
            reverse: True where the frames are visited from last to first.
            prompts: Negative points, which correct the mask where they lie in it.
        """
        features = self.features(frames, index)
        guess = bank.guess(features)
        with self.runtime.step():
            decoded = self._network.track(features, bank, index, len(frames), reverse, guess)
            if prompts is not None:
                clicks = _against(self._frame_mask(decoded, frames).mask, prompts)
                if clicks is not None:
                    decoded = self._network.segment(features, self._network_prompts(clicks, frames))
            self._remember(features, decoded, [bank], index)
            return self._frame_mask(decoded, frames)

    def track_together(
        self, frames: FrameSequence, index: int, banks: Sequence[MemoryBank], reverse: bool
    ) -> list[FrameMask]:
        """Segments several objects on a frame in one step: :meth:`track` for banks of one ``joint_key``."""
        features = self.features(frames, index)
        bank = JointBank(banks)
        guess = bank.guess(features)
        with self.runtime.step():
            rows = features.rows(torch.zeros(len(banks), dtype=torch.long, device=self.runtime.device))
            decoded = self._network.track(rows, bank, index, len(frames), reverse, guess)
            self._remember(rows, decoded, banks, index)
            each = torch.arange(len(banks), device=self.runtime.device).split(1)
            return [self._frame_mask(decoded.rows(row), frames) for row in each]

    def _remember(
        self, features: Features, decoded: Decoded, banks: Sequence[MemoryBank], index: int
    ) -> None:
        """Remembers the objects on a tracked frame, a row of features and of decoded for each bank."""
        needed, each = [], torch.arange(len(banks), device=self.runtime.device).split(1)
        for row, bank in zip(each, banks, strict=True):
            if bank.spares(features.maps[-1][row][0], decoded.logits[row][0]):
                bank.add_spared(index, seen(features.rows(row), decoded.rows(row)))
            else:
                needed.append((row, bank))
        if not needed:
            return
        if len(needed) < len(banks):
            rows = torch.cat([row for row, _ in needed])
            features, decoded = features.rows(rows), decoded.rows(rows)
        memory = self._memory(features, decoded, needed[0][1], prompted=False)
        for (_, bank), own in zip(needed, memory_rows(memory, len(needed)), strict=True):
            bank.add_tracked(index, own)

    def _memory(self, features: Features, decoded: Decoded, bank: MemoryBank, prompted: bool) -> Memory:
        memory = self._network.remember(features, decoded, prompted)
        if bank.needs_embeddings:
            presence = float(torch.sigmoid(decoded.object_logits.float().max()))
            iou = min(max(float(decoded.ious.max()), 0.0), 1.0)
            memory |= {"embedding": features.maps[-1], "confidence": confidence(iou, presence)}
        return memory

    def _decode(self, features: Features, prompts: FramePrompts, frames: FrameSequence) -> Decoded:
        device = self.runtime.device
        if prompts.mask is None:
            return self._network.segment(features, self._network_prompts(prompts, frames))
        if prompts.is_mask_alone:
            mask = network_mask(prompts.mask, self.image_size).to(device)
            return self._network.segment_mask(features, mask.float())
        start = mask_logits(prompts.mask, self.image_size).to(device)
        return self._network.segment(features, self._network_prompts(prompts, frames), start)

    def _network_prompts(self, prompts: FramePrompts, frames: FrameSequence) -> NetworkPrompts:
        size = (frames.width, frames.height)
        return stack_prompts([prompts], [size], self.image_size, self.runtime.device)

    def _frame_mask(self, decoded: Decoded, frames: FrameSequence) -> FrameMask:
        logits = F.interpolate(decoded.logits, (frames.height, frames.width), mode="bilinear")
        values = decoded.logits[0, 0].clamp(-MOST_LOGIT, MOST_LOGIT).cpu().half().numpy()
        return FrameMask(
            mask=(logits[0, 0] > 0).cpu().numpy(),
            score=min(max(float(decoded.ious.max()), 0.0), 1.0),
            presence=float(torch.sigmoid(decoded.object_logits.float().max())),
            logits=MaskLogits(values),
        )


def _chosen(decoded: Decoded, choice: MaskChoice) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, h, w) and predicted IoU (B, M or 1) of the best mask, or of the smallest or largest one."""
    if choice == "best" or decoded.masks.shape[1] == 1:
        return decoded.logits[:, 0], decoded.ious
    areas = (decoded.masks > 0).sum(dim=(2, 3))
    # An empty mask is no choice.
    areas = areas if choice == "largest" else -areas.where(areas > 0, torch.iinfo(areas.dtype).max)
    place = areas.argmax(dim=1)
    rows = torch.arange(len(place), device=place.device)
    return decoded.masks[rows, place], decoded.ious[rows, place, None]


def _against(mask: NDArray[np.bool_], refused: FramePrompts) -> FramePrompts | None:
    """Negative points, and a positive one where the mask is deepest; None where none lies in the mask.

    With the mask as a prompt the network ignored most of them: of 16 inside objects, 11 stayed in the mask.
    """
    height, width = mask.shape
    x, y = np.rint(refused.points).astype(int).T
    rows, columns = y.clip(0, height - 1), x.clip(0, width - 1)
    rest = mask.copy()
    rest[rows, columns] = False
    if not mask[rows, columns].any() or not rest.any():
        return None
    depth = distance_transform_edt(np.pad(rest, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
    points = np.concatenate([[[column, row]], refused.points])
    return FramePrompts(points, np.concatenate([[1], refused.labels]))
