import numpy as np
import pytest

from lib.prompts.parsing import parse_prompts

SHAPE = (64, 48, 10)
LABELS = ("liver", "spleen", "kidney")


@pytest.fixture
def parse():
    """``parse_prompts`` on a volume of 64 x 48 x 10 voxels with three configured labels."""

    def _parse(request, mode="volume", shape=SHAPE, affine=None, is_2d=False, labels=LABELS, label_map=None):
        affine = np.eye(4) if affine is None else affine
        options = {"shape": shape, "affine": affine, "is_2d": is_2d, "labels": labels, "label_map": label_map}
        return parse_prompts(request, mode=mode, **options)

    return _parse


@pytest.fixture
def parse_2d(parse):
    """``parse_prompts`` on an image 30 pixels wide and 20 high, for a task on one slice."""

    def _parse(request, mode="slice", **options):
        return parse(request, mode=mode, shape=(30, 20, 1), is_2d=True, **options)

    return _parse
