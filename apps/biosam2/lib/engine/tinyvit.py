"""TinyViT (Wu et al. 2022) as the trunk of SAM 2's image encoder, as MobileSAM (Zhang et al. 2023) has it.

Three differences from MobileSAM's: batch normalisations are folded into the convolutions; windows are 8 and
16 cells wide in place of 7 and 14, so that they divide the grids of a 256-pixel image; the finer levels are
given out too, for SAM 2's decoder reads them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import nn

EMBEDDING = 256  # channels of SAM's image embeddings
_HEAD = 32  # channels of an attention head


class InvertedBottleneck(nn.Module):
    """MobileNetV2's: expand to more channels, filter each of them, project."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide)
        self.project = nn.Conv2d(wide, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        out: torch.Tensor = self.project(F.gelu(self.depthwise(F.gelu(self.expand(x)))))
        return out


class MobileBlock(InvertedBottleneck):
    """An inverted bottleneck, plus its input."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        return F.gelu(x + super().forward(x))


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each distance along the two axes."""

    apart: torch.Tensor

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = channels // _HEAD, window
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.distance_bias = nn.Parameter(torch.zeros(self.heads, window**2))
        row, column = torch.arange(window**2) // window, torch.arange(window**2) % window
        apart = (row[:, None] - row).abs() * window + (column[:, None] - column).abs()
        self.register_buffer("apart", apart, persistent=False)

    def bias(self) -> torch.Tensor:
        """(heads, w^2, w^2) what is added between each two of the w x w cells of a window."""
        return self.distance_bias[:, self.apart]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) to the same shape. A small grid is one window; others are padded with zeros."""
        height, width = x.shape[1], x.shape[2]
        side = min(self.window, height, width)
        padded = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        return self._attend(padded, side)[:, :height, :width]

    def _attend(self, x: torch.Tensor, side: int) -> torch.Tensor:
        batch, height, width, channels = x.shape
        cells = x.view(batch, height // side, side, width // side, side, channels).transpose(2, 3)
        qkv = self.qkv(self.norm(cells.reshape(-1, side**2, channels)))
        q, k, v = qkv.view(-1, side**2, self.heads, 3, _HEAD).permute(3, 0, 2, 1, 4)
        bias = self.bias()
        if side < self.window:
            corner = (torch.arange(side)[:, None] * self.window + torch.arange(side)).flatten()
            bias = bias[:, corner][:, :, corner]
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None])
        cells = self.proj(found.transpose(1, 2).reshape(-1, side**2, channels))
        cells = cells.view(batch, height // side, width // side, side, side, channels).transpose(2, 3)
        return cells.reshape(batch, height, width, channels)


class FrozenAttention(WindowAttention):
    """Attention whose biases are not looked up for each image, in the buffer ``biases``."""

    biases: torch.Tensor

    def bias(self) -> torch.Tensor:
        """(heads, w^2, w^2) what is added between each two of the w x w cells of a window."""
        return self.biases


class TinyViTBlock(nn.Module):
    """Attention within windows, a depthwise convolution across their borders, and a perceptron."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.attention = WindowAttention(channels, window)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        x = x.permute(0, 2, 3, 1)
        x = x + self.attention(x)
        x = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.narrow(F.gelu(self.widen(self.norm(x))))
        return x.permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """The four stages of TinyViT and the neck that makes SAM's image embeddings.

    Each level is normalised over its channels: the features of a stage are tens of units large, and the
    prompts would drown in them.

    Args:
        embed_dim: Channels of the first stage.
        stages: Numbers of blocks.
        channels: Channels of the stages. The last two have the same stride, 16.
        windows: Sides of the windows of the second to the last stage, in cells.
    """

    def __init__(
        self,
        embed_dim: int = 64,
        stages: tuple[int, ...] = (2, 2, 6, 2),
        channels: tuple[int, ...] = (64, 128, 160, 320),
        windows: tuple[int, ...] = (8, 16, 8),
    ) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict(
            {
                "stem": nn.Conv2d(3, embed_dim // 2, 3, 2, padding=1),
                "proj": nn.Conv2d(embed_dim // 2, embed_dim, 3, 2, padding=1),
            }
        )
        self.blocks = nn.ModuleList(MobileBlock(channels[0]) for _ in range(stages[0]))
        for count, width, window in zip(stages[1:], channels[1:], windows, strict=True):
            self.blocks.extend(TinyViTBlock(width, window) for _ in range(count))
        steps = zip(channels[:-1], channels[1:], (2, 2, 1), strict=True)
        self.merges = nn.ModuleList(InvertedBottleneck(a, b, b, stride) for a, b, stride in steps)
        self.neck = nn.Sequential(
            nn.Conv2d(channels[-1], EMBEDDING, 1, bias=False),
            LayerNorm2d(EMBEDDING),
            nn.Conv2d(EMBEDDING, EMBEDDING, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING),
        )
        self.channel_list = [EMBEDDING, channels[1], channels[0]]
        self.norms = nn.ModuleList(LayerNorm2d(width) for width in channels[:2])
        self._ends = [sum(stages[: number + 1]) - 1 for number in range(3)]  # last blocks before a merging

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Levels of (B, 3, S, S) at the strides 4, 8 and 16."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.patch_embed["proj"](F.gelu(self.patch_embed["stem"](x)))
        levels: list[torch.Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number not in self._ends:
                continue
            stage = self._ends.index(number)
            if stage < len(self.norms):
                levels.append(self.norms[stage](x))
            x = self.merges[stage](x)
        return [*levels, self.neck(x)]

    def places(self) -> list[tuple[int, int]]:
        """Stage of each block, and its number within the stage."""
        starts = [0, *(end + 1 for end in self._ends), len(self.blocks)]
        return [(s, n) for s, (a, b) in enumerate(pairwise(starts)) for n in range(b - a)]

    def get_layer_id(self, name: str) -> int:
        """Depth of a parameter, as Hiera counts: 0 before the blocks, the number of blocks + 1 after them."""
        part, number = name.split(".")[:2]
        if part == "patch_embed":
            return 0
        if part == "merges":
            return self._ends[int(number)] + 1
        return int(number) + 1 if part == "blocks" else self.get_num_layers() + 1

    def get_num_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)
