"""Native frames and prompts brought to the network's square input: the same in service and in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from lib.engine.network import BOX_CORNERS, NetworkPrompts
from lib.prompts.rendering import LOGIT_LIMIT
from lib.prompts.types import FramePrompts


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
