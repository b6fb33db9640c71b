from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.client import Answer
from benchmarks.items import Item
from benchmarks.targets import Target
from benchmarks.trials import Trial
from pretraining.split import TRAINED


class FakeAnswer(Answer):
    """An answer whose mask is given instead of decoded."""

    def __init__(self, mask, seconds=0.5):
        super().__init__(seconds, b"", "mask.nrrd", {"window": [0.0, 100.0]})
        object.__setattr__(self, "_mask", mask)

    def mask(self):
        return self._mask


class FakeViewer:
    """Answers with what ``answer(model, params)`` gives, and remembers what it was asked."""

    def __init__(self, answer, seconds=0.5):
        self.asked = []
        self._answer = answer
        self._seconds = seconds

    def infer(self, model, image, params):
        self.asked.append((model, image, params))
        return FakeAnswer(self._answer(model, params), self._seconds)


@pytest.fixture
def viewer_of():
    return FakeViewer


def _item(name="ct", *, picture=False, rule="labels", names=None, split=TRAINED):
    image = Path(f"{name}.png" if picture else f"{name}.nii.gz")
    return Item(name, "CT", image, Path("label") / image, names or {1: "organ"}, rule, split)


@pytest.fixture
def item_of():
    return _item


@pytest.fixture
def target():
    """A block of 6 x 10 x 5 voxels, off the diagonal, in a volume of 40 x 30 x 12."""
    voxels = np.zeros((40, 30, 12), bool)
    voxels[20:26, 5:15, 4:9] = True
    return Target(_item(), "organ", voxels)


@pytest.fixture
def trials_of():
    """Trials with these Dice coefficients by (prompt, method), each on an image of its own."""

    def make(*scores, splits: Sequence[str] = ()):
        trials = []
        for number, coefficients in enumerate(scores):
            item = _item(f"image{number}", split=splits[number] if splits else TRAINED)
            trial = Trial(Target(item, f"organ{number}", np.ones((4, 4, 1), bool)))
            for (prompt, method), value in coefficients.items():
                trial.add(prompt, method, value)
            trials.append(trial)
        return trials

    return make
