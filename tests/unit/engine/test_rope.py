import pytest
import torch
from sam2.modeling.sam.transformer import RoPEAttention

from lib.engine.rope import MemoryRoPEAttention

PLACES, WIDTH = 16, 32


@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (1, 3), (4, 0), (4, 5)])
@pytest.mark.parametrize("heads", [1, 2])
def test_the_result_is_that_of_sam2(memories, pointers, heads):
    torch.manual_seed(0)
    options = {"embedding_dim": WIDTH, "num_heads": heads, "feat_sizes": (4, 4), "kv_in_dim": 8}
    theirs = RoPEAttention(**options, rope_k_repeat=True).eval()
    ours = MemoryRoPEAttention(**options, rope_k_repeat=True).eval()
    ours.load_state_dict(theirs.state_dict())
    q = torch.randn(2, PLACES, WIDTH)
    k, v = torch.randn(2, 2, memories * PLACES + pointers, 8)
    with torch.no_grad():
        expected = theirs(q, k, v, num_k_exclude_rope=pointers)
        assert torch.allclose(ours(q, k, v, num_k_exclude_rope=pointers), expected, atol=1e-6)


def test_another_size_of_frame_gets_its_own_rotations():
    torch.manual_seed(0)
    options = {"embedding_dim": WIDTH, "num_heads": 1, "feat_sizes": (8, 8)}
    theirs, ours = RoPEAttention(**options).eval(), MemoryRoPEAttention(**options).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, PLACES, WIDTH)
    with torch.no_grad():
        assert torch.allclose(ours(x, x, x), theirs(x, x, x), atol=1e-6)
