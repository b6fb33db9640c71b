"""A small SAM 2.1 with random weights, made once: what is tested here is the engine and not the masks."""

from pathlib import Path

import numpy as np
import pytest
import sam2
import torch

from lib.engine.builder import build_network
from lib.engine.network import EmbeddingCache, Network
from lib.engine.predictor import Predictor
from lib.engine.runtime import Runtime

SIZE = 128
TINY = Path(sam2.__file__).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"


class ArrayFrames:
    """Frames (T, H, W, 3) that lie in memory, and a count of how often each was read."""

    def __init__(self, array: np.ndarray, digest: str = "frames"):
        self.digest = digest
        self._array = array
        self.height, self.width = array.shape[1:3]
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> np.ndarray:
        self.reads.append(index)
        return self._array[index]

    def key(self, index: int) -> int:
        return index


def make_tiny(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = build_network(TINY, SIZE)
    # Random weights would call half of the objects absent, and absent objects have no mask to compare.
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(100.0)
    return network


@pytest.fixture(scope="session")
def tiny() -> Network:
    return make_tiny()


@pytest.fixture
def frames() -> ArrayFrames:
    noise = np.random.default_rng(1).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
    return ArrayFrames(noise)


@pytest.fixture
def predictor(tiny: Network) -> Predictor:
    runtime = Runtime(torch.device("cpu"), "fp32")
    return Predictor(tiny, runtime, EmbeddingCache(1 << 30), "tiny", "1")
