"""Small labelled images on disk, and the bundled weights: what is tested here is training, so the network is real."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lib.engine.builder import described
from lib.engine.checkpoints import named_weights
from lib.engine.registry import BUNDLED, Registry
from lib.settings import Settings
from lib.trainers.cases import Case
from lib.trainers.frames import LabelledFrames, prepare_frames
from lib.trainers.options import TrainOptions
from lib.trainers.plan import TrainingPlan
from tests.support.phantoms import ellipsoid
from tests.support.server import APP

SIZE = 64  # the network's input: the smallest that leaves its fine maps something to see
MAX_VOXELS = 1_000_000
SHAPE = (60, 48, 9)


def write_case(folder: Path, name: str, seed: int) -> Case:
    """A volume of two bodies, off the diagonal, on other places for each seed.

    A bright one (1) and a dark one (2), each in a rim of a middle grey that belongs to it: who does not know
    that takes the core alone, and can learn it.
    """
    rng = np.random.default_rng(seed)
    shift = rng.integers(-4, 5, 2)
    places = [(40 + shift[0], 16 + shift[1], 4), (18 - shift[0], 32 - shift[1], 5)]
    depths = (4.5, 3.5)
    bright, dark = (
        ellipsoid(SHAPE, place, (13, 10, depth)) for place, depth in zip(places, depths, strict=True)
    )
    cores = [ellipsoid(SHAPE, place, (6, 5, depth)) for place, depth in zip(places, depths, strict=True)]
    image = 100 + rng.normal(0, 6, SHAPE) + 25 * bright - 25 * dark + 70 * cores[0] - 70 * cores[1]
    labels = bright.astype(np.uint8) + 2 * dark.astype(np.uint8)
    affine = np.diag([1.0, 1.5, 3.0, 1.0])
    (folder / "labels" / "final").mkdir(parents=True, exist_ok=True)
    case = Case(name, folder / f"{name}.nii.gz", folder / "labels" / "final" / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), case.image)
    nib.save(nib.Nifti1Image(labels, affine), case.label)
    return case


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Three labelled volumes."""
    return [write_case(tmp_path / "studies", f"case{seed}", seed) for seed in range(3)]


@pytest.fixture
def images(cases: list[Case], tmp_path: Path) -> list[LabelledFrames]:
    """Their frames."""
    return [prepare_frames(case, tmp_path / "frames", MAX_VOXELS) for case in cases]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model folder of its own, with the bundled weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("registry.yaml", "biosam2_mini.yaml", "biosam2_mini.pt"):
        shutil.copy(APP / "model" / name, folder / name)
    return folder


@pytest.fixture
def make_plan(cases: list[Case], model_dir: Path):
    """Makes a plan of the three volumes, small enough to be trained in seconds."""

    def make(**options: object) -> TrainingPlan:
        registry = Registry(model_dir)
        named = named_weights(BUNDLED, Settings(), registry, "cpu", "bundled")
        weights = described(named, registry, "cpu")
        small = {"preset": "decoder", "image_size": SIZE, "max_epochs": 1, "steps_per_epoch": 2}
        small |= {"batch_size": 2, "val_objects": 4, "warmup_steps": 0, "device": "cpu"}
        return TrainingPlan(
            options=TrainOptions(**{**small, **options}),
            cases=tuple(cases),
            weights=weights,
            service=weights,
            model_dir=model_dir,
            device="cpu",
            precision="fp32",
            max_voxels=MAX_VOXELS,
            embedding_cache_mb=256,
        )

    return make
