"""Attention in blocks of queries is the attention of torch."""

import copy

import pytest
import torch
from sam2.modeling.sam.transformer import RoPEAttention

from lib.engine import rotary_attention
from lib.engine.rotary_attention import RotaryAttention

SIDE, WIDTH, POINTERS = 6, 32, 3


class CrossAttention(torch.nn.Module):
    """Of a grid to two memories and to tokens without a place, as when a network is converted."""

    def __init__(self, attention: RotaryAttention):
        super().__init__()
        self.attention = attention

    def forward(self, queries, memory):
        return self.attention(queries, memory, memory, num_k_exclude_rope=POINTERS)


@pytest.fixture
def options():
    return {"embedding_dim": WIDTH, "num_heads": 1, "downsample_rate": 1, "feat_sizes": (SIDE, SIDE)}


@pytest.fixture
def inputs(options):
    torch.manual_seed(0)
    options["kv_in_dim"] = 8
    return torch.randn(1, SIDE * SIDE, WIDTH), torch.randn(1, 2 * SIDE * SIDE + POINTERS, 8)


# 36 queries: blocks that they fill, blocks that they do not fill, and one block of all.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("block", [12, 16, 512])
@torch.no_grad()
def test_traced_blocks_give_what_meta_gives(block, options, inputs, monkeypatch):
    monkeypatch.setattr(rotary_attention, "_TRACED_QUERIES", block)
    meta = RoPEAttention(**options, rope_k_repeat=True).eval()
    ours = RotaryAttention(**options, rope_k_repeat=True).eval()
    ours.load_state_dict(meta.state_dict())
    traced = torch.jit.trace(CrossAttention(ours), inputs)
    assert str(traced.inlined_graph).count("aten::softmax") == -(-SIDE * SIDE // block)
    queries, memory = inputs
    exact = meta(queries, memory, memory, num_k_exclude_rope=POINTERS)
    assert torch.allclose(traced(*inputs), exact, atol=1e-6)
    assert torch.allclose(ours(queries, memory, memory, num_k_exclude_rope=POINTERS), exact, atol=1e-6)


@pytest.mark.parametrize("most", [1, 75 * 16, 1 << 23])
@torch.no_grad()
def test_blocks_in_bf16_differ_by_rounding(most, options, inputs, monkeypatch):
    monkeypatch.setattr(rotary_attention, "_MOST_PRODUCTS", most)
    attention = RotaryAttention(**options, rope_k_repeat=True).eval()
    queries, memory = inputs
    exact = attention(queries, memory, memory, num_k_exclude_rope=POINTERS)
    rounded = copy.deepcopy(attention).bfloat16()
    values = memory.bfloat16()
    found = rounded(queries.bfloat16(), values, values, num_k_exclude_rope=POINTERS)
    assert float((found.float() - exact).norm() / exact.norm()) < 0.02
