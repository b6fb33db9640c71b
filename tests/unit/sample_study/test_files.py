import hashlib

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from sample_study.files import make_cases, read_cases, truth_folder, write_study


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "sample"
    write_study(folder)
    return folder


def test_the_served_folder_holds_the_images_and_nothing_else(study):
    assert sorted(path.name for path in study.iterdir()) == [
        "abdomen_ct.nii.gz",
        "cells.png",
        "head_mr.nii.gz",
    ]
    assert study not in truth_folder(study).parents


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(study, tmp_path):
    write_study(tmp_path / "sample")
    assert hashes(tmp_path / "sample") == hashes(study)
    assert hashes(truth_folder(tmp_path / "sample")) == hashes(truth_folder(study))
    write_study(tmp_path / "sample", seed=1)
    assert not set(hashes(tmp_path / "sample").values()) & set(hashes(study).values())


def test_what_is_read_is_what_was_drawn(study):
    drawn = {case.name: case for case in make_cases()}
    for case in read_cases(study):
        expected = drawn.pop(case.name)
        assert np.array_equal(case.image, expected.image)
        assert np.array_equal(case.truth, expected.truth)
        assert case.labels == expected.labels
        assert case.is_volume == expected.is_volume
        if case.is_volume:
            assert np.allclose(case.affine, expected.affine)
    assert not drawn


def test_the_files_keep_their_geometry(study):
    case = next(case for case in make_cases() if case.name == "abdomen_ct")
    volume = nib.load(study / "abdomen_ct.nii.gz")
    assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")
    assert volume.header.get_zooms() == pytest.approx((2.75, 2.75, 5.0))
    assert volume.header.get_xyzt_units()[0] == "mm"
    assert volume.get_data_dtype() == case.image.dtype
    x, y = 200, 30
    cells = next(case for case in make_cases() if case.name == "cells")
    with Image.open(study / "cells.png") as picture:
        assert picture.getpixel((x, y)) == tuple(cells.image[x, y])


def test_writing_again_keeps_the_labels_that_a_person_saved(study):
    saved = study / "labels" / "final" / "abdomen_ct.nii.gz"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(b"a person's work")
    write_study(study)
    assert saved.read_bytes() == b"a person's work"


def test_a_study_that_was_not_written_says_how_to(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m sample_study --output"):
        list(read_cases(tmp_path / "nothing"))
