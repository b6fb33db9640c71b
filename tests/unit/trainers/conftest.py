"""Small labelled images on disk and the bundled weights: training runs on a real network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore

from lib.engine.builder import described
from lib.engine.checkpoints import named_weights
from lib.engine.predictor_pool import PredictorPool
from lib.engine.registry import BUNDLED, Registry
from lib.settings import Settings
from lib.trainers.config import TrainingPlan, TrainOptions
from lib.trainers.frames import LabelledFrames, LabelledImage, prepare_frames
from tests.support.phantoms import rimmed
from tests.support.server import copy_model_folder
from tests.support.studies import write_nifti

SETTINGS = Settings(device="cpu", precision="fp32", embedding_cache_mb=64)


@pytest.fixture
def engines(tmp_path: Path) -> PredictorPool:
    """Of a model folder of their own."""
    return PredictorPool(SETTINGS, copy_model_folder(tmp_path / "model"))


@pytest.fixture
def datastore(tmp_path: Path) -> LocalDatastore:
    """Five images, ``a`` to ``e``, without labels."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in "abcde":
        write_nifti(folder / f"{name}.nii.gz", np.ones((4, 4, 4), np.int16), np.eye(4))
    return LocalDatastore(str(folder), extensions=("*.nii.gz",), auto_reload=False)


SIZE = 64  # the network's input: the smallest that leaves its fine maps something to see
MAX_VOXELS = 1_000_000
SHAPE = (60, 48, 9)
STARTED = 1_000_000_000.0  # 2001-09-09 01:46:40 UTC


def write_labelled_image(folder: Path, name: str, seed: int) -> LabelledImage:
    """A volume of two bodies with their labels, 1 and 2."""
    phantom = rimmed(seed)
    labels = sum(value * mask.astype(np.uint8) for value, mask in enumerate(phantom.objects.values(), 1))
    (folder / "labels" / "final").mkdir(parents=True, exist_ok=True)
    item = LabelledImage(name, folder / f"{name}.nii.gz", folder / "labels" / "final" / f"{name}.nii.gz")
    write_nifti(item.image, phantom.image, phantom.affine)
    write_nifti(item.label, labels, phantom.affine)
    return item


def write_labelled_images(folder: Path) -> list[LabelledImage]:
    """Three volumes with their labels."""
    return [write_labelled_image(folder, f"case{seed}", seed) for seed in range(3)]


@pytest.fixture
def labelled(tmp_path: Path) -> list[LabelledImage]:
    """Three labelled volumes."""
    return write_labelled_images(tmp_path / "studies")


@pytest.fixture
def images(labelled: list[LabelledImage], tmp_path: Path) -> list[LabelledFrames]:
    """Their frames."""
    return [prepare_frames(item, tmp_path / "frames", MAX_VOXELS) for item in labelled]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model folder of its own, with the bundled weights."""
    return copy_model_folder(tmp_path / "model")


def plan_of(labelled: list[LabelledImage], model_dir: Path, **options: object) -> TrainingPlan:
    """A plan of labelled volumes, small enough to be trained in seconds."""
    registry = Registry(model_dir)
    named = named_weights(BUNDLED, Settings(), registry, "cpu", "bundled")
    weights = described(named, registry, "cpu")
    small = {"preset": "decoder", "image_size": SIZE, "max_epochs": 1, "steps_per_epoch": 2}
    small |= {"batch_size": 2, "val_objects": 2, "warmup_steps": 0, "device": "cpu"}
    return TrainingPlan(
        options=TrainOptions(**{**small, **options}),
        images=tuple(labelled),
        weights=weights,
        service=weights,
        published=None,
        model_dir=model_dir,
        device="cpu",
        precision="fp32",
        max_voxels=MAX_VOXELS,
        embedding_cache_mb=256,
        started=STARTED,
    )


@pytest.fixture
def make_plan(labelled: list[LabelledImage], model_dir: Path) -> Callable[..., TrainingPlan]:
    """Makes a plan of the three volumes."""
    return partial(plan_of, labelled, model_dir)
