"""The bundled weights in a model folder of their own, and a datastore of small labelled images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore

from lib.engine.engines import Engines
from lib.settings import Settings
from tests.support.server import copy_model_folder
from tests.support.studies import write_nifti

SETTINGS = Settings(device="cpu", precision="fp32", embedding_cache_mb=64)


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    """Of a model folder of their own."""
    return Engines(SETTINGS, copy_model_folder(tmp_path / "model"))


@pytest.fixture
def datastore(tmp_path: Path) -> LocalDatastore:
    """Five images, ``a`` to ``e``, without labels."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in "abcde":
        write_nifti(folder / f"{name}.nii.gz", np.ones((4, 4, 4), np.int16), np.eye(4))
    return LocalDatastore(str(folder), extensions=("*.nii.gz",), auto_reload=False)
