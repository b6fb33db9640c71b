"""A datastore of small images, as MONAI Label opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore

from tests.support.phantoms import rimmed
from tests.support.studies import write_nifti

IMAGES = 3


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


def write_label(folder: Path, image_id: str, seed: int) -> Path:
    """A file with the truth of a phantom: 1 bright, 2 dark."""
    phantom = rimmed(seed)
    array = sum(value * mask.astype(np.uint8) for value, mask in enumerate(phantom.objects.values(), 1))
    folder.mkdir(parents=True, exist_ok=True)
    return write_nifti(folder / f"{image_id}.nii.gz", array, phantom.affine)


LABEL_INFO = [{"name": "bright", "idx": 1}, {"name": "dark", "idx": 2}]
