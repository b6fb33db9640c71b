"""3D Slicer's extension: its client class, and how it places what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelUtils

# What the extension adds to a click; the config of the model comes along too.
EXTRA = {"result_extension": ".nrrd", "result_dtype": "uint8", "reset_state": False}


def slicer_client(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> MONAILabelClient:
    """The client class of the extension, for one test."""
    receive = MONAILabelUtils.send_response

    def receive_and_close(connection: HTTPConnection, *others: Any) -> Any:
        # The class leaves its connections open, which Python warns of.
        with closing(connection):
            return receive(connection, *others)

    monkeypatch.setattr(MONAILabelUtils, "send_response", staticmethod(receive_and_close))
    return MONAILabelClient(url, tmpdir=str(folder), client_id="user-xyz")


def config_of(slicer: MONAILabelClient, model: str) -> dict[str, Any]:
    """Every option with its value, or the first of its values, as the extension's table has it."""
    config = slicer.info()["models"][model]["config"]
    return {key: value[0] if isinstance(value, list) else value for key, value in config.items()}


def roi_of(box: sitk.Image, indices: Sequence[int]) -> list[int]:
    """A region of interest as the extension sends it: pairs per axis, from the RAS-lowest corner's index.

    Args:
        box: the image, for its directions.
        indices: i0, i1, j0, j1, k0, k1, ascending.
    """
    direction = np.array(box.GetDirection()).reshape(3, 3)
    roi = []
    for axis in range(3):
        low, high = indices[2 * axis], indices[2 * axis + 1]
        # x and y of LPS fall where those of RAS rise.
        main = int(np.argmax(np.abs(direction[:, axis])))
        rises = direction[main, axis] * (1 if main == 2 else -1) > 0
        roi += [low, high] if rises else [high, low]
    return roi


def points_of(image: sitk.Image, limit: int = 0) -> np.ndarray:
    """Physical points (n, 3) of the voxels that are not 0, in millimetres of LPS."""
    array = sitk.GetArrayViewFromImage(image)
    indices = np.argwhere(array > limit)[:, ::-1]
    matrix = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    return indices @ matrix.T + np.array(image.GetOrigin())
