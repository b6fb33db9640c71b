"""A store for the tests: the stand-in always, and the real Orthanc where it is installed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from sample_study.orthanc import INSTALL, REQUEST_LIMIT_S, Orthanc, find_orthanc
from tests.support.dicomweb_standin import DicomWebStandIn

KINDS = [
    "stand-in",
    pytest.param("orthanc", marks=pytest.mark.skipif(find_orthanc() is None, reason=INSTALL)),
]


def open_pacs(kind: str, folder: Path) -> DicomWebStandIn | Orthanc:
    """Starts a store of that kind, whose files lie in ``folder``; the caller stops it."""
    store = DicomWebStandIn() if kind == "stand-in" else Orthanc(folder)
    return store.start()


def stored_segmentations(store: DicomWebStandIn | Orthanc, study_uid: str) -> list[pydicom.Dataset]:
    """What the store itself says, past the server."""
    if isinstance(store, DicomWebStandIn):
        headers = store.select(Modality="SEG", StudyInstanceUID=study_uid)
        return [pydicom.dcmread(io.BytesIO(store.content(header))) for header in headers]
    query = {"Level": "Instance", "Query": {"Modality": "SEG", "StudyInstanceUID": study_uid}}
    ids = requests.post(f"{store.url}/tools/find", json=query, timeout=REQUEST_LIMIT_S).json()
    files = [requests.get(f"{store.url}/instances/{name}/file", timeout=REQUEST_LIMIT_S) for name in ids]
    return [pydicom.dcmread(io.BytesIO(answer.content)) for answer in files]


def in_world(dataset: pydicom.Dataset, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Voxels of a segmentation by pydicom's pixels and each frame's position, on a grid of that affine."""
    labels = np.zeros(shape, np.uint8)
    to_voxel = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, item in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = [*item.PlanePositionSequence[0].ImagePositionPatient, 1.0]
        i, j, k = np.rint(to_voxel @ position).astype(int)[:3]
        assert (i, j) == (0, 0)
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        labels[:, :, k][frame.T > 0] = number
    return labels
