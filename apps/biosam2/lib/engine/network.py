"""SAM 2's network with the memory handed in from outside: it keeps nothing between two calls.

Meta's video predictor holds a growing state per video and drops the IoU that the decoder predicts. Here the
steps it is made of are functions: encode a frame, segment it from prompts, track an object on it from a
memory bank, and turn the result into a memory.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from cachetools import LRUCache
from numpy.typing import NDArray
from PIL import Image
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from lib.engine.runtime import raise_if_cancelled
from lib.engine.tinyvit import FrozenAttention, WindowAttention
from lib.prompts.rendering import LOGIT_LIMIT, make_guide, render_neighbour, render_prompts
from lib.prompts.types import FramePrompts

if TYPE_CHECKING:
    from lib.engine.embeddings import EmbeddingFolder
    from lib.engine.memory import JointBank, MemoryBank

# Labels of the points that SAM 2's prompt encoder takes for the two corners of a box.
BOX_CORNERS = (2, 3)
NO_POINT = -1

PATCH = 4  # pixels along a side of a cell of the trunk's first map

# ImageNet's mean and standard deviation, of levels from 0 to 1: what SAM 2 was trained with.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Features:
    """What the image encoder makes of frames: one in service, several in training.

    Attributes:
        maps: three tensors (B, C, h, w), from stride 4 to stride 16, in the compute dtype.
        guide: (B, 1, S/4, S/4) the frames as rendered prompts see them; None for weights that want none.
    """

    maps: tuple[torch.Tensor, ...]
    guide: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return sum(level.nbytes for level in self.maps) + (self.guide.nbytes if self.guide is not None else 0)

    def to(self, device: torch.device, dtype: torch.dtype) -> Features:
        """The features on a device, their maps in another number format."""
        guide = self.guide.to(device) if self.guide is not None else None
        return Features(tuple(level.to(device, dtype) for level in self.maps), guide)

    def rows(self, index: torch.Tensor) -> Features:
        """The features of the frames ``index`` (N,), a row for each object that is looked for on them."""
        guide = self.guide[index] if self.guide is not None else None
        return Features(tuple(level[index] for level in self.maps), guide)


@dataclass(frozen=True)
class NetworkPrompts:
    """Prompts for one object on each of B frames, in pixels of the network's square input.

    Attributes:
        coordinates: (B, N, 2) float32, x and y.
        labels: (B, N) int32, 1 foreground, 0 background, 2 and 3 the corners of a box. Either every row has a
            box or none has.
    """

    coordinates: torch.Tensor
    labels: torch.Tensor

    @property
    def are_several_clicks(self) -> bool:
        """Whether these are two clicks or more, and no box."""
        return self.labels.shape[1] > 1 and not bool((self.labels >= BOX_CORNERS[0]).any())


@dataclass(frozen=True)
class Decoded:
    """One object on each of B frames.

    Attributes:
        logits: (B, 1, S/4, S/4) float32 mask logits; -1024 everywhere where the object is absent.
        logits_full: (B, 1, S, S) the same at the input's size, for the memory.
        masks: (B, M, S/4, S/4) logits of the M masks that were decoded, of which ``logits`` is one.
        ious: (B, M) predicted IoU of each of them with the truth, 0 to 1.
        object_logits: (B, 1) above 0 where the network sees the object.
        pointer: (B, C) what the memory attention gets beside the memory.
    """

    logits: torch.Tensor
    logits_full: torch.Tensor
    masks: torch.Tensor
    ious: torch.Tensor
    object_logits: torch.Tensor
    pointer: torch.Tensor

    def rows(self, index: torch.Tensor) -> Decoded:
        """The frames ``index`` (N,) of the B."""
        return Decoded(*(getattr(self, item.name)[index] for item in fields(self)))


class FrozenHiera(Hiera):
    """A trunk for images of one size, with its table of positions in the buffer ``positions``."""

    def _get_pos_embed(self, hw: tuple[int, int]) -> torch.Tensor:
        return self.positions


class FrozenPromptEncoder(PromptEncoder):
    """A prompt encoder for images of one size, with the codes of their cells in the buffer ``codes``."""

    def get_dense_pe(self) -> torch.Tensor:
        """The codes of the cells, (1, C, S / 16, S / 16)."""
        return self.codes


class Network(SAM2Base):
    """SAM 2 as a set of functions. The configuration's fields are those of ``SAM2Base``.

    Attributes:
        rendered_prompts: True where the weights need prompts drawn as a mask too (``lib.prompts.rendering``).
    """

    rendered_prompts = False

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        for module in self.image_encoder.modules():
            if next(module.children(), None) is None:
                module.register_forward_pre_hook(_stop_where_cancelled)

    def freeze(self, dtype: torch.dtype) -> None:
        """Computes once what each step would compute from the weights again; the results stay the same.

        Autocast converts the weights of linear layers and convolutions at each use. For each image the trunk
        interpolates its table of positions (Hiera) or looks up its biases (TinyViT), and for each prompt the
        prompt encoder computes the codes of all cells. The network cannot be trained afterwards.

        Args:
            dtype: Number format that the network will run in.
        """
        trunk = self.image_encoder.trunk
        side = self.image_size // PATCH
        if isinstance(trunk, Hiera):
            trunk.register_buffer("positions", trunk._get_pos_embed((side, side)), persistent=False)
            trunk.__class__ = FrozenHiera
        prompts = self.sam_prompt_encoder
        with torch.no_grad(), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            prompts.register_buffer("codes", prompts.get_dense_pe(), persistent=False)
        prompts.__class__ = FrozenPromptEncoder
        for module in self.modules():
            if isinstance(module, WindowAttention):
                module.register_buffer("biases", module.bias().detach().to(dtype), persistent=False)
                module.__class__ = FrozenAttention
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.to(dtype)

    def encode(self, levels: torch.Tensor) -> Features:
        """Encodes frames.

        Args:
            levels: (B, 3, S, S) float32 in [0, 1].
        """
        mean = torch.tensor(IMAGE_MEAN, device=levels.device).view(1, 3, 1, 1)
        std = torch.tensor(IMAGE_STD, device=levels.device).view(1, 3, 1, 1)
        image = ((levels - mean) / std).contiguous(memory_format=torch.channels_last)
        encoded = self.forward_image(image)
        maps = tuple(encoded["backbone_fpn"][-self.num_feature_levels :])
        return Features(maps, make_guide(levels) if self.rendered_prompts else None)

    def segment(
        self, features: Features, prompts: NetworkPrompts, start: torch.Tensor | None = None
    ) -> Decoded:
        """Segments an object from prompts on its own frame, without memory.

        Args:
            features: Embedding of the frame.
            prompts: Points and boxes.
            start: Logits (B, 1, S/4, S/4) of a mask that the prompts correct; None where there is none.
        """
        points = {"point_coords": prompts.coordinates, "point_labels": prompts.labels}
        guide = features.guide
        if guide is None:
            return self._step(features, points, start, frame=0, count=1)
        drawn = render_prompts(prompts.coordinates, prompts.labels, guide, start)
        decoded = self._step(features, points, drawn, frame=0, count=1)
        if prompts.are_several_clicks and start is None:
            # Beside the first result, clicks correct it: 3 clicks went from a Dice of 0.80 to 0.84 and 5 from
            # 0.82 to 0.85, on 26 objects of phantoms, CT and MR. One click and boxes gained nothing.
            drawn = render_prompts(prompts.coordinates, prompts.labels, guide, decoded.logits)
            decoded = self._step(features, points, drawn, frame=0, count=1)
        return decoded

    def track(
        self,
        features: Features,
        bank: MemoryBank | JointBank,
        frame: int,
        count: int,
        reverse: bool,
        guess: torch.Tensor | None = None,
    ) -> Decoded:
        """Segments an object on a frame without prompts, from what the bank remembers of it.

        Args:
            features: Embedding of the frame.
            bank: Memories of the object.
            frame: Index of the frame.
            count: Number of frames.
            reverse: True where the frames are visited from last to first.
            guess: Logits (B, 1, S/4, S/4) that are added to the rendered neighbour; unused by weights without
                rendered prompts.
        """
        points, rendered = None, None
        neighbour = bank.neighbour(frame, reverse, features.maps[-1])
        if features.guide is not None and neighbour is not None:
            rendered = render_neighbour(neighbour["logits"], neighbour["guide"], features.guide)
            if guess is not None:
                rendered = (rendered + guess).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            points = _no_points(rendered)
        memories = bank.recall(frame, reverse, features.maps[-1])
        return self._step(features, points, rendered, frame, count, memories, reverse)

    def segment_mask(self, features: Features, mask: torch.Tensor) -> Decoded:
        """Takes masks (B, 1, S, S) of zeros and ones as the result, as SAM 2 does for a mask prompt."""
        *high_res, embedding = features.maps
        return _decoded(self._use_mask_as_output(embedding, high_res, mask))

    def remember(self, features: Features, decoded: Decoded, prompted: bool) -> dict[str, Any]:
        """Turns the result on a frame into a memory of it, in the compute dtype."""
        feats, sizes = self._flat(features)
        memory, position = self._encode_new_memory(
            feats, sizes, decoded.logits_full, decoded.object_logits, is_mask_from_pts=prompted
        )
        return {"maskmem_features": memory, "maskmem_pos_enc": position, **seen(features, decoded)}

    def _step(
        self,
        features: Features,
        points: dict[str, torch.Tensor] | None,
        mask: torch.Tensor | None,
        frame: int,
        count: int,
        memories: dict[str, dict[int, Any]] | None = None,
        reverse: bool = False,
    ) -> Decoded:
        feats, sizes = self._flat(features)
        # Only the memory attention looks at positions.
        positions = [] if memories is None else [self._position(features)]
        _, outputs, _, _ = self._track_step(
            frame_idx=frame,
            is_init_cond_frame=memories is None,
            current_vision_feats=feats,
            current_vision_pos_embeds=positions,
            feat_sizes=sizes,
            point_inputs=points,
            mask_inputs=None,
            output_dict=memories,
            num_frames=count,
            track_in_reverse=reverse,
            prev_sam_mask_logits=mask,
        )
        return _decoded(outputs)

    def _flat(self, features: Features) -> tuple[list[torch.Tensor], list[tuple[int, int]]]:
        """The maps as SAM 2's steps take them, (h*w, B, C), and their sizes."""
        maps = [level.flatten(2).permute(2, 0, 1) for level in features.maps]
        return maps, [(level.shape[-2], level.shape[-1]) for level in features.maps]

    def _position(self, features: Features) -> torch.Tensor:
        """The position encoding of the last map, (h*w, B, C)."""
        last = features.maps[-1]
        encoding: torch.Tensor = self.image_encoder.neck.position_encoding(last)
        return encoding.to(last.dtype).flatten(2).permute(2, 0, 1)


def seen(features: Features, decoded: Decoded) -> dict[str, Any]:
    """What a memory holds beside the encoded one: what was decoded, and the frame as prompts see it."""
    return {"obj_ptr": decoded.pointer, "logits": decoded.logits, "guide": features.guide}


def _no_points(masks: torch.Tensor) -> dict[str, torch.Tensor]:
    """A point that counts for nothing beside each mask: SAM 2 takes a mask prompt beside points alone."""
    return {
        "point_coords": torch.zeros(len(masks), 1, 2, device=masks.device),
        "point_labels": torch.full((len(masks), 1), NO_POINT, dtype=torch.int32, device=masks.device),
    }


def _decoded(outputs: tuple[Any, ...]) -> Decoded:
    masks, _, ious, logits, logits_full, pointer, object_logits = outputs
    return Decoded(
        logits=logits,
        logits_full=logits_full,
        masks=masks,
        ious=ious,
        object_logits=object_logits,
        pointer=pointer,
    )


def _stop_where_cancelled(*_: Any) -> None:
    """Ends an encoding between two layers of the encoder where its result is not needed any more."""
    if not torch.compiler.is_compiling():
        raise_if_cancelled()


def network_image(frame: NDArray[np.uint8], image_size: int) -> torch.Tensor:
    """(H, W, 3) levels to (1, 3, S, S) float32 in [0, 1]; bicubic, as SAM 2 reads its frames."""
    size = (image_size, image_size)
    resized = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
    return torch.from_numpy(resized.copy()).permute(2, 0, 1)[None].float() / 255


def network_mask(mask: NDArray[np.bool_], image_size: int) -> torch.Tensor:
    """(H, W) to (1, 1, S, S) bool: the pixels of which the object covers more than half.

    Of an object that is too thin for that, those that it covers most: nothing vanishes.
    """
    native = torch.from_numpy(mask)[None, None].float()
    covered = F.interpolate(native, (image_size, image_size), mode="bilinear", antialias=True)
    return covered > min(0.5, float(covered.max()) / 2)


def mask_logits(mask: NDArray[np.bool_], image_size: int) -> torch.Tensor:
    """(H, W) to (1, 1, S/4, S/4) float32, the logits of a mask that prompts correct."""
    covered = network_mask(mask, image_size // 4)
    return torch.where(covered, LOGIT_LIMIT, -LOGIT_LIMIT)


def stack_prompts(
    prompts: Sequence[FramePrompts],
    sizes: Sequence[tuple[int, int]],
    image_size: int,
    device: torch.device,
) -> NetworkPrompts:
    """Prompts in native pixels to prompts in pixels of the network's input.

    The prompt encoder adds half a pixel to all coordinates. A point stands at the centre of its native pixel
    and a box at the edges of its own, so half a pixel is added to points before the scaling, and half is
    taken from all after it.

    Args:
        prompts: Prompts of B frames, all with the same number of points, and with a box or all without.
        sizes: Width and height of each native frame.
        image_size: Side of the network's input.
        device: Device of the result.
    """
    coordinates, labels = [], []
    for item, (width, height) in zip(prompts, sizes, strict=True):
        scale = np.array([image_size / width, image_size / height], dtype=np.float32)
        places, kinds = (item.points + 0.5) * scale, item.labels
        if item.box is not None:
            places = np.concatenate([item.box.reshape(2, 2) * scale, places])
            kinds = np.concatenate([np.array(BOX_CORNERS, dtype=np.int32), kinds])
        coordinates.append((places - 0.5).astype(np.float32))
        labels.append(kinds.astype(np.int32))
    return NetworkPrompts(
        torch.from_numpy(np.stack(coordinates)).to(device), torch.from_numpy(np.stack(labels)).to(device)
    )


class EmbeddingCache:
    """The embeddings used last, within a budget of bytes. Safe to use from several threads.

    Args:
        budget: Most bytes that are kept; a larger embedding is not kept at all.

        disk: Embeddings that were prepared; None where there are none.

    Attributes:
        encoded: Number of frames that networks have encoded.
    """

    def __init__(self, budget: int, disk: EmbeddingFolder | None = None):
        self.encoded = 0
        self.disk = disk
        self._entries: LRUCache[Hashable, Features] = LRUCache(budget, getsizeof=lambda item: item.nbytes)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Features | None:
        """The embedding of a key, which becomes the one used last; None when it is not kept."""
        with self._lock:
            found: Features | None = self._entries.get(key)
            return found

    def put(self, key: Hashable, features: Features) -> None:
        """Keeps an embedding, and drops those used least recently until all fit in the budget."""
        with self._lock:
            self._entries.pop(key, None)
            if features.nbytes <= self._entries.maxsize:
                self._entries[key] = features

    @property
    def budget(self) -> int:
        """Most bytes that are kept."""
        return int(self._entries.maxsize)

    @property
    def used(self) -> int:
        """Bytes that are kept now."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)
