"""SAM 2's attention with rotary position encoding, with less to compute and to copy than in Meta's code.

Meta's multiplies complex numbers, repeats the rotations for every memory and writes the keys in place. Here
channels are ordered even, then odd: queries and keys in the same order have the same products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.sam.transformer import RoPEAttention

# Products of queries and keys that are held at once: at 1024 px, seven memories have 117 million.
_MOST_PRODUCTS = 1 << 23
# Queries of a block that is traced, where the number of keys is not known yet.
_TRACED_QUERIES = 512


class RotaryAttention(RoPEAttention):
    """Meta's ``RoPEAttention`` with the same parameters and results, for square grids of queries."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.set_grid(options["feat_sizes"][0])

    def set_grid(self, side: int) -> None:
        """Computes the rotations for a grid of ``side`` x ``side`` queries."""
        rotations = self.compute_cis(end_x=side, end_y=side)
        self.freqs_cis = None
        self.register_buffer("cos", rotations.real.contiguous(), persistent=False)
        self.register_buffer("sin", rotations.imag.contiguous(), persistent=False)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, num_k_exclude_rope: int = 0
    ) -> torch.Tensor:
        """Attends.

        Args:
            q: Queries (B, side * side, C).
            k: Keys (B, n * side * side + num_k_exclude_rope, D).
            v: Values, of the same shape as the keys.
            num_k_exclude_rope: Number of the last keys, which have no place in the grid.
        """
        queries = self._rotated(self._separate_heads(self.q_proj(q), self.num_heads))
        keys = self._separate_heads(self.k_proj(k), self.num_heads)
        count = keys.shape[-2] - num_k_exclude_rope
        keys = torch.cat([self._rotated(keys[:, :, :count]), _even_odd(keys[:, :, count:])], dim=-2)
        if self.num_heads == 1 and v.shape[-1] < self.internal_dim and _in_blocks(keys):
            # Weights that sum to 1 average the values before the projection as well as after it: a memory has
            # 64 channels before it and 256 after it.
            out = self.v_proj(_attend(queries, keys, v[:, None])[:, 0])
        else:
            values = self._separate_heads(self.v_proj(v), self.num_heads)
            out = self._recombine_heads(_attend(queries, keys, values))
        projected: torch.Tensor = self.out_proj(out)
        return projected

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        """(B, heads, n * side * side, channels) turned by their places in the grid, even channels first."""
        grids = x.unflatten(-2, (-1, len(self.cos)))
        even, odd = grids[..., 0::2], grids[..., 1::2]
        turned = (even * self.cos - odd * self.sin, even * self.sin + odd * self.cos)
        return torch.cat([half.to(x.dtype) for half in turned], dim=-1).flatten(-3, -2)


def _even_odd(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1)


def _in_blocks(keys: torch.Tensor) -> bool:
    """Whether products in blocks are faster than torch's own attention, which keeps less for gradients.

    On a CPU without matrix units, bf16 took 3 times as long in torch's own; fp32 takes half as long.
    OpenVINO, for which a network is traced, took 1.3 times as long for 7 memories at 1024 px.
    """
    if torch.jit.is_tracing():
        return True
    return keys.dtype == torch.bfloat16 and not keys.is_cuda and not torch.is_grad_enabled()


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention of (B, heads, tokens, channels).

    Torch's own fast attention needs values as wide as keys; products in blocks do not.
    """
    if not _in_blocks(keys):
        return F.scaled_dot_product_attention(queries, keys, values.to(keys.dtype))
    columns = keys.transpose(-1, -2)
    rows = _TRACED_QUERIES if torch.jit.is_tracing() else max(1, _MOST_PRODUCTS // columns.shape[-1])
    scaled = queries * queries.shape[-1] ** -0.5
    blocks = [torch.softmax(block @ columns, dim=-1) @ values for block in scaled.split(rows, dim=-2)]
    return torch.cat(blocks, dim=-2)
