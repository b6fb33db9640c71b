"""A datastore of small images, as MONAI Label opens it, and the bundled weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore

from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.images.medical_image import LPS_IDENTITY, MedicalImage, Voxels, make_image
from lib.labels.labelled_slices import image_frames
from lib.settings import Settings
from lib.transforms.frames import FrameStack
from tests.support.phantoms import Phantom, rimmed
from tests.support.server import copy_model_folder
from tests.support.studies import write_nifti

IMAGES = 3
# Half the side that the weights are for, for speed.
SETTINGS = Settings(device="cpu", precision="fp32", embedding_cache_mb=64, image_size=128)
LABEL_INFO = [{"name": "bright", "idx": 1}, {"name": "dark", "idx": 2}]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder of volumes ``case0`` to ``case2``."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for seed in range(IMAGES):
        write_nifti(folder / f"case{seed}.nii.gz", rimmed(seed).image, rimmed(seed).affine)
    return folder


@pytest.fixture
def open_datastore(studies: Path) -> Callable[[], LocalDatastore]:
    """Opens the folder, as each process does for itself."""
    return lambda: LocalDatastore(str(studies), extensions=("*.nii.gz", "*.png"), auto_reload=False)


@pytest.fixture
def datastore(open_datastore: Callable[[], LocalDatastore]) -> LocalDatastore:
    """The folder, opened."""
    return open_datastore()


@pytest.fixture
def engines(tmp_path: Path) -> PredictorPool:
    """The bundled weights in a model folder of their own."""
    return PredictorPool(SETTINGS, copy_model_folder(tmp_path / "model"))


def write_label(folder: Path, image_id: str, seed: int, shift: int = 0) -> Path:
    """A file with the truth of a phantom, 1 bright and 2 dark, moved along i by some voxels."""
    objects = rimmed(seed).objects
    array = sum(value * mask.astype(np.uint8) for value, mask in enumerate(objects.values(), 1))
    folder.mkdir(parents=True, exist_ok=True)
    return write_nifti(folder / f"{image_id}.nii.gz", np.roll(array, shift, axis=0), rimmed(seed).affine)


def save_label(
    datastore: LocalDatastore, folder: Path, seed: int, tag: str = "final", shift: int = 0, **info: object
) -> None:
    """Saves the truth of ``case<seed>`` as a client does."""
    path = write_label(folder / tag, f"case{seed}", seed, shift)
    datastore.save_label(f"case{seed}", str(path), tag, {"label_info": LABEL_INFO, **info})


def save_empty_label(datastore: LocalDatastore, folder: Path, seed: int) -> None:
    """Saves a label of ``case<seed>`` in which nothing is drawn."""
    phantom = rimmed(seed)
    path = folder / f"case{seed}.nii.gz"
    write_nifti(path, np.zeros(phantom.image.shape, np.uint8), phantom.affine)
    datastore.save_label(f"case{seed}", str(path), "final", {"label_info": LABEL_INFO})


@pytest.fixture(scope="session")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The bundled weights on the CPU."""
    model_dir = copy_model_folder(tmp_path_factory.mktemp("signals") / "model")
    return PredictorPool(SETTINGS, model_dir).get()


def open_phantom(phantom: Phantom, tmp_name: str = "phantom.nii.gz") -> MedicalImage:
    """A phantom as the image that a reader would make of its file."""
    return make_image(Voxels(phantom.image, LPS_IDENTITY), Path(tmp_name), "nifti")


@pytest.fixture(scope="session")
def body() -> tuple[MedicalImage, FrameStack, dict[str, np.ndarray]]:
    """A volume of two bodies: image, frames, objects."""
    phantom = rimmed(0)
    image = open_phantom(phantom)
    return image, image_frames(image), phantom.objects
