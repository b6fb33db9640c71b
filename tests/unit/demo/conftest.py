from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from demo.targets import Target
from sample_study.case import Case


@pytest.fixture
def volume():
    """A block of 6 x 10 x 5 voxels, off the diagonal, in a volume of 40 x 30 x 12."""
    truth = np.zeros((40, 30, 12), np.uint8)
    truth[20:26, 5:15, 4:9] = 2
    image = np.where(truth, 100, 0).astype(np.int16)
    return Target(Case("abdomen_ct", image, truth, {"liver": 2}, np.diag([-1.0, -1.0, 2.0, 1.0])), "liver")


@pytest.fixture
def picture():
    """A block of 6 x 10 pixels in a picture of 40 x 30."""
    truth = np.zeros((40, 30), np.uint8)
    truth[20:26, 5:15] = 1
    image = np.repeat(np.where(truth, 90, 200).astype(np.uint8)[..., None], 3, axis=2)
    return Target(Case("cells", image, truth, {"cell 1": 1}), "cell 1")


@dataclass
class FakeAnswer:
    array: np.ndarray
    seconds: float = 0.25
    params: dict[str, Any] = field(default_factory=lambda: {"model": "fake", "window": [0, 100]})

    def mask(self):
        return self.array


@dataclass
class FakeViewer:
    """Answers with the masks in turn, the last one for ever, and remembers what it was asked."""

    masks: list[np.ndarray]
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def infer(self, model, image, params):
        self.asked.append((model, image, params))
        return FakeAnswer(self.masks.pop(0) if len(self.masks) > 1 else self.masks[0])


@pytest.fixture
def viewer_of():
    return FakeViewer
