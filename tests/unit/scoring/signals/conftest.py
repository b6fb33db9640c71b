"""The bundled weights, and phantoms as frames: what a signal says is said of real answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.images.medical_image import LPS_IDENTITY, MedicalImage, Voxels, make_image
from lib.labels.labelled_slices import image_frames
from lib.settings import Settings
from lib.transforms.frames import FrameStack
from tests.support.phantoms import Phantom, rimmed
from tests.support.server import copy_model_folder


@pytest.fixture(scope="session")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The bundled weights on the CPU."""
    model_dir = copy_model_folder(tmp_path_factory.mktemp("signals") / "model")
    return PredictorPool(Settings(device="cpu", precision="fp32"), model_dir).get()


def open_phantom(phantom: Phantom, tmp_name: str = "phantom.nii.gz") -> MedicalImage:
    """A phantom as the image that a reader would make of its file."""
    return make_image(Voxels(phantom.image, LPS_IDENTITY), Path(tmp_name), "nifti")


@pytest.fixture(scope="session")
def body() -> tuple[MedicalImage, FrameStack, dict[str, np.ndarray]]:
    """A volume of two bodies: image, frames, objects."""
    phantom = rimmed(0)
    image = open_phantom(phantom)
    return image, image_frames(image), phantom.objects
