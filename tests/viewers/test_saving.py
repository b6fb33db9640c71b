"""What was drawn goes to the store as a DICOM segmentation, and comes back."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import requests

from sample_study.orthanc import Orthanc
from tests.support.server import Server
from tests.viewers.cases import NAMES, Case
from tests.viewers.ohif import Ohif
from tests.viewers.segmentations import LIMIT_S, newest, stored


def drawn(ohif: Ohif, case: Case) -> np.ndarray:
    """The overlay of the case's label after a click was followed through the volume."""
    ohif.open(case.series.study_uid)
    ohif.connect()
    ohif.choose("biosam2_propagate")
    ohif.label(case.label)
    ohif.click(case.phantom.click(case.label))
    assert ohif.run().status == 200
    return ohif.overlay() == ohif.segments()[case.label]


@pytest.mark.parametrize("name", NAMES)
def test_a_label_is_a_segmentation_in_its_place(
    ohif: Ohif, cases: dict[str, Case], pacs: Orthanc, server: Server, name: str, tmp_path
) -> None:
    case = cases[name]
    overlay = drawn(ohif, case)
    before = stored(pacs, case.series.series_uid)
    status, text = ohif.submit(case.series.series_uid, ohif.segments())
    assert status == 200, text

    segmentation = newest(pacs, case, before)
    assert segmentation.dataset.SegmentationType == "BINARY"
    mask = segmentation.mask(case.label, case.phantom.affine, overlay.shape)
    assert np.array_equal(mask, overlay)

    # And as those get it who train on it.
    query = {"label": case.series.series_uid, "tag": "final"}
    answer = requests.get(f"{server.url}/datastore/label", params=query, timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text
    path = tmp_path / "label.nii.gz"
    path.write_bytes(answer.content)
    label = nib.Nifti1Image.from_filename(path)
    assert np.array_equal(np.asarray(label.dataobj) > 0, overlay)
    assert np.allclose(label.affine, case.phantom.affine, atol=1e-3)


@pytest.mark.parametrize("name", ["top_first", "bottom_first"])
def test_ohifs_own_export_is_right_where_the_first_slice_is_on_top(
    ohif: Ohif, cases: dict[str, Case], pacs: Orthanc, name: str
) -> None:
    """Where Instance Number 1 is the lowest slice, OHIF writes the slices in reverse; docs say what to do."""
    case = cases[name]
    overlay = drawn(ohif, case)
    before = stored(pacs, case.series.series_uid)
    assert ohif.export("by OHIF").status == 200
    segmentation = newest(pacs, case, before)
    mask = segmentation.mask(case.label, case.phantom.affine, overlay.shape)
    assert np.array_equal(mask, overlay if name == "top_first" else overlay[:, :, ::-1])
