import json
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore

from lib.trainers.datalist import image_id, labelled_cases
from tests.support.studies import write_nifti


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "a"),
        ("a.seg.nrrd", "a"),
        ("A.NII.GZ", "A"),
        ("a.nrrd", "a"),
        ("1.2.840.10008.nrrd", "1.2.840.10008"),
        ("slide.one.xml", "slide.one"),
    ],
)
def test_the_id_is_the_name_without_its_ending(name, expected):
    assert image_id(Path("labels/final") / name) == expected


def test_final_labels_of_a_local_datastore_with_the_names_that_the_client_sent(tmp_path):
    for name in ("one", "two", "three"):
        write_nifti(tmp_path / f"{name}.nii.gz", np.ones((4, 4, 4), np.int16), np.eye(4))
    datastore = LocalDatastore(str(tmp_path), extensions=["*.nii.gz"], auto_reload=False)
    label = write_nifti(tmp_path.parent / "label.nii.gz", np.ones((4, 4, 4), np.uint8), np.eye(4))
    info = {"label_info": [{"name": "spleen", "idx": 1}], "client_id": "me"}
    datastore.save_label("one", str(label), "final", info)
    datastore.save_label("two", str(label), "original", {})
    (case,) = labelled_cases(datastore)
    assert (case.id, case.image.name, case.label.name) == ("one", "one.nii.gz", "one.nii.gz")
    assert [item["name"] for item in case.label_info] == ["spleen"]
    json.dumps(case.label_info)
