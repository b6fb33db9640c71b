"""Rotary attention over memories, without a copy of the rotation for each of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from sam2.modeling.sam.transformer import RoPEAttention


class MemoryRoPEAttention(RoPEAttention):
    """SAM 2's rotary attention with the same weights and the same result.

    SAM 2 repeats the table of rotations once for each memory that the keys hold. Here the keys are seen as
    (memories, places) and the table is broadcast: memory attention over seven memories at 1024 pixels took
    0.56 s instead of 0.64 s on two CPU cores.
    """

    freqs_cis: torch.Tensor

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, num_k_exclude_rope: int = 0
    ) -> torch.Tensor:
        """Attends.

        Args:
            q: (B, places, C) of the frame.
            k: (B, memories * places + num_k_exclude_rope, C) of the memories, then of the object pointers.
            v: as ``k``.
            num_k_exclude_rope: how many of the last keys have no place.
        """
        q = self._separate_heads(self.q_proj(q), self.num_heads)
        k = self._separate_heads(self.k_proj(k), self.num_heads)
        v = self._separate_heads(self.v_proj(v), self.num_heads)
        placed = k.shape[-2] - num_k_exclude_rope
        table = self._table(q)
        k[:, :, :placed] = _rotated(k[:, :, :placed], table)
        dropout = self.dropout_p if self.training else 0.0
        out = F.scaled_dot_product_attention(_rotated(q, table), k, v, dropout_p=dropout)
        result: torch.Tensor = self.out_proj(self._recombine_heads(out))
        return result

    def _table(self, q: torch.Tensor) -> torch.Tensor:
        """Complex (places, C / heads / 2) rotations for the size of this frame."""
        if self.freqs_cis.shape[0] != q.shape[-2]:
            side = math.isqrt(q.shape[-2])
            # A table that was made in inference mode could not be learned with afterwards.
            with torch.inference_mode(False):
                self.freqs_cis = self.compute_cis(end_x=side, end_y=side)
        self.freqs_cis = self.freqs_cis.to(q.device)
        return self.freqs_cis


def _rotated(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """(B, heads, memories * places, C) rotated by the place, in the dtype of x."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    turned = pairs.unflatten(-2, (-1, len(table))) * table
    return torch.view_as_real(turned).flatten(-2).flatten(-3, -2).type_as(x)
