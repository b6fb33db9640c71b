import pytest
import torch


@pytest.fixture
def gen() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.fixture
def wide_masks() -> torch.Tensor:
    """Two masks far from the diagonal: x 40..99 with y 150..189, and x 200..239 with y 10..29."""
    masks = torch.zeros(2, 256, 256, dtype=torch.bool)
    masks[0, 150:190, 40:100] = True
    masks[1, 10:30, 200:240] = True
    return masks
