"""EfficientNet-Lite (Tan and Le 2019; the Lite variants are Google's) as the trunk of SAM 2's image encoder.

It has no squeeze-and-excitation and clips at 6, so that it is fast on a CPU. Weights that were trained on
ImageNet are public under Apache-2.0; ``pretraining`` starts from them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import nn

# Of each stage: kernel, stride of its first block, expansion, output channels.
_STAGES = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (5, 2, 6, 40),
    (3, 2, 6, 80),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (3, 1, 6, 320),
)
_LEVEL_ENDS = (1, 2, 4, 6)  # the stages after which the stride doubles, or nothing follows


class FixedNormConv(nn.Module):
    """Convolution with a batch normalisation whose statistics are constant: a gain and a shift per channel.

    Pads as TensorFlow does: of an odd sum, the smaller half lies above and to the left.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.gain = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.stride, self.groups, self.total = stride, groups, kernel - stride
        self.convolve = F.conv2d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride), for sides that the stride divides."""
        before, after = self.total // 2, self.total - self.total // 2
        if before != after:
            x = F.pad(x, (before, after, before, after))
        padding = before if before == after else 0
        weight = self.weight * self.gain[:, None, None, None]
        return self.convolve(x, weight, self.bias, self.stride, padding, groups=self.groups)


class InvertedResidual(nn.Module):
    """A MobileNetV2 block: expand, filter each channel, project; plus its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = FixedNormConv(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = FixedNormConv(wide, wide, kernel, stride, groups=wide)
        self.project = FixedNormConv(wide, outputs, 1)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out: torch.Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.is_residual else out


class EfficientNetLite(nn.Module):
    """The stages of EfficientNet-Lite without its head; each level is normalised over its channels.

    Without that normalisation the levels are tens of units large, and the prompts drown in them.

    Args:
        stages: Numbers of blocks of the seven stages: (1, 2, 2, 3, 3, 4, 1) for Lite0.
        embed_dim: Channels of the first convolution.
    """

    def __init__(self, stages: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1), embed_dim: int = 32) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": FixedNormConv(3, embed_dim, 3, stride=2)})
        self.blocks = nn.ModuleList()
        channels, self._level_ends = embed_dim, []
        for stage, ((kernel, stride, expansion, outputs), count) in enumerate(
            zip(_STAGES, stages, strict=True)
        ):
            for number in range(count):
                first = stride if number == 0 else 1
                self.blocks.append(InvertedResidual(channels, outputs, kernel, first, expansion))
                channels = outputs
            if stage in _LEVEL_ENDS:
                self._level_ends.append(len(self.blocks) - 1)
        self.channel_list = [_STAGES[stage][3] for stage in reversed(_LEVEL_ENDS)]
        self.norms = nn.ModuleList(LayerNorm2d(channels) for channels in reversed(self.channel_list))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Levels of (B, 3, S, S), from stride 4 to stride 32."""
        # Channels last: 31 ms in place of 54 on a CPU in bf16, for 256 x 256 pixels.
        x = F.relu6(self.patch_embed["proj"](x.contiguous(memory_format=torch.channels_last)))
        levels: list[torch.Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._level_ends:
                levels.append(self.norms[len(levels)](x))
        return levels

    def get_layer_id(self, name: str) -> int:
        """Depth of a parameter, as Hiera counts: 0 before the blocks, the number of blocks + 1 after them."""
        if name.startswith("patch_embed"):
            return 0
        return int(name.split(".")[1]) + 1 if name.startswith("blocks") else self.get_num_layers() + 1

    def get_num_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)
