"""Folders of downloaded series: whole, or not there."""

import nibabel as nib
import numpy as np
import pydicom
import pytest

from lib.datastores.catalog import StoreContents
from lib.datastores.dicomweb_images import convert_series, download_series, is_complete
from lib.errors import BusyError
from tests.unit.datastores.conftest import AFFINE, MANY, SHAPE


@pytest.fixture
def series(client, pacs, tmp_path):
    return StoreContents(client, {}, tmp_path / "known.json").find(pacs.ct.series_uid)


def test_a_series_is_downloaded_whole(client, series, pacs, tmp_path):
    download_series(client, series, tmp_path)
    folder = tmp_path / series.uid
    assert is_complete(folder, series)
    found = {pydicom.dcmread(file).SOPInstanceUID for file in folder.iterdir()}
    assert found == {pydicom.dcmread(file).SOPInstanceUID for file in pacs.ct.files}
    assert not list(tmp_path.glob(".*"))


def test_what_was_cut_short_leaves_nothing(client, series, pacs, tmp_path):
    pacs.store.cut_short = 2
    with pytest.raises(BusyError, match=f"sent 4 of the 6 files of series {series.uid}: try again"):
        download_series(client, series, tmp_path)
    assert not (tmp_path / series.uid).exists()
    assert not list(tmp_path.glob(".*"))


def test_an_incomplete_folder_is_replaced(client, series, tmp_path):
    folder = tmp_path / series.uid
    folder.mkdir()
    (folder / "half.dcm").write_bytes(b"half")
    assert not is_complete(folder, series)
    download_series(client, series, tmp_path)
    assert is_complete(folder, series)
    assert not (folder / "half.dcm").exists()


def test_a_series_becomes_a_volume(pacs, tmp_path):
    path = tmp_path / "volume.nii.gz"
    assert convert_series(pacs.ct.files[0].parent, path, MANY)
    volume = nib.load(path)
    assert volume.shape == SHAPE
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(volume.dataobj)[:, :, 2], pydicom.dcmread(pacs.ct.files[2]).pixel_array.T
    )


def test_what_is_no_volume_stays_a_folder(pacs, tmp_path, caplog):
    pacs.ct.files[2].unlink()
    assert not convert_series(pacs.ct.files[0].parent, tmp_path / "volume.nii.gz", MANY)
    assert "1 of its slices are missing" in caplog.text
    assert not list(tmp_path.glob("*volume*"))
    assert not convert_series(pacs.mr.files[0].parent, tmp_path / "volume.nii.gz", 10)
