"""A real CT and its published segmentation of the liver."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

from sample_study.orthanc import Orthanc
from tests.support.client import read_nrrd
from tests.support.phantoms import dice
from tests.viewers.clicks import correction, deepest
from tests.viewers.ohif import Ohif
from tests.viewers.segmentations import Stored

DATA = Path(os.environ.get("BIOSAM2_DATA", "")) / "dicom"
GOOD = 0.85


@pytest.mark.skipif(
    not DATA.is_dir(),
    reason="BIOSAM2_DATA names no folder with dicom/; test_points.py does the same on phantoms",
)
def test_a_click_and_a_correction_on_a_real_liver(ohif: Ohif, pacs: Orthanc) -> None:
    pacs.store(DATA / "dcmqi_ct")
    slices = [pydicom.dcmread(path) for path in sorted((DATA / "dcmqi_ct").glob("*.dcm"))]
    slices.sort(key=lambda item: item.ImagePositionPatient[2])
    liver = Stored(pydicom.dcmread(DATA / "dcmqi_liver_seg.dcm"))
    truth = liver.mask(next(iter(liver.names)), affine(slices), (*slices[0].pixel_array.T.shape, len(slices)))
    assert truth.any()

    ohif.open(slices[0].StudyInstanceUID)
    ohif.connect()
    ohif.choose("biosam2_point")
    k = int(np.argmax(truth.sum((0, 1))))
    ohif.label("organ")
    ohif.click([*deepest(truth[:, :, k]), k])
    first = ohif.run()
    assert first.status == 200, first.body
    mask = read_nrrd(first.body)[0] > 0
    row, place = correction(mask[:, :, k], truth[:, :, k], "organ")
    ohif.label(row)
    ohif.click([*place, k])
    ohif.label("organ")
    sent, _ = read_nrrd(ohif.run().body)
    overlay = ohif.overlay() == ohif.segments()["organ"]
    assert np.array_equal(overlay, sent > 0)
    assert dice(overlay[:, :, k], truth[:, :, k]) >= GOOD


def affine(slices: list[pydicom.Dataset]) -> np.ndarray:
    """Voxel index to RAS millimetres of slices in the order of their normal, ``(4, 4)``."""
    first, second = (np.array(item.ImagePositionPatient, float) for item in slices[:2])
    along = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    down, right = np.array(slices[0].PixelSpacing, float)
    found = np.eye(4)
    found[:3] = np.column_stack([along[0] * right, along[1] * down, second - first, first])
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ found
