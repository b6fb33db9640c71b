"""Images of a DICOMweb store: what is there, downloads, and what happens when the store does not answer."""

import shutil
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from lib.datastores.catalog import StoreContents
from lib.datastores.dicomweb_images import convert_series, download_series, is_complete
from lib.datastores.label_entries import labelled
from lib.errors import BusyError, ImageError
from lib.images.reading import read_image
from lib.scoring.uncertainty import ImageQueue, UncertaintyOptions
from sample_study.dicom import write_multiframe_ultrasound, write_series
from tests.unit.datastores.conftest import AFFINE, LABEL, MANY, SHAPE


def downloads(pacs):
    """Whole series that the store has sent."""
    return [one for one in pacs.store.requests if "/series/" in one and "metadata" not in one]


def test_nothing_is_asked_before_somebody_wants_to_know(open_datastore, pacs):
    pacs.store.stop()
    open_datastore()
    assert pacs.store.requests == []


def test_who_has_a_label_and_who_has_none(datastore, pacs):
    ct, mr = pacs.ct.series_uid, pacs.mr.series_uid
    assert set(datastore.list_images()) == set(datastore.get_unlabeled_images()) == {ct, mr}
    pacs.draw(LABEL, {1: "a", 2: "b"})
    datastore.forget()
    assert (datastore.get_labeled_images(), datastore.get_unlabeled_images()) == ([ct], [mr])
    assert datastore.status() == {"total": 2, "completed": 1, "label_tags": {"final": 1}}


def test_a_volume_with_its_series_beside_it(datastore, pacs):
    path = Path(datastore.get_image_uri(pacs.ct.series_uid))
    assert path.name == f"{pacs.ct.series_uid}.nii.gz"
    assert nib.load(path).shape == SHAPE
    assert read_image(path, MANY).modality == "CT"
    assert len(list((path.parent / pacs.ct.series_uid).glob("*.dcm"))) == SHAPE[2]
    datastore.get_image_uri(pacs.ct.series_uid)
    assert len(downloads(pacs)) == 1


def test_the_next_process_finds_what_this_one_downloaded(datastore, open_datastore, pacs):
    path = datastore.get_image_uri(pacs.ct.series_uid)
    assert open_datastore().get_image_uri(pacs.ct.series_uid) == path
    assert len(downloads(pacs)) == 1


def test_what_another_process_wrote_is_seen(datastore, open_datastore, pacs):
    datastore.get_image_uri(pacs.ct.series_uid)
    other = open_datastore()
    other.update_image_info(pacs.ct.series_uid, {"score": 0.5})
    assert datastore.get_image_info(pacs.ct.series_uid)["score"] == 0.5
    other.get_image_uri(pacs.mr.series_uid)
    assert "name" in datastore.json()["objects"][pacs.mr.series_uid]["image"]["info"]


def test_two_who_want_the_same_download_it_once(datastore, pacs):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(datastore.get_image_uri(pacs.ct.series_uid)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(downloads(pacs)) == 1


def test_an_interrupted_download_is_done_again(datastore, pacs):
    pacs.store.cut_short = 1
    with pytest.raises(BusyError, match="sent 5 of the 6 files"):
        datastore.get_image_uri(pacs.ct.series_uid)
    pacs.store.cut_short = 0
    assert nib.load(datastore.get_image_uri(pacs.ct.series_uid)).shape == SHAPE


def test_slices_that_came_later_are_fetched(datastore, pacs):
    held_back = [
        pacs.store.content(header) for header in pacs.store.select(SeriesInstanceUID=pacs.ct.series_uid)
    ]
    pacs.store.remove(pacs.ct.series_uid)
    for content in held_back[:4]:
        pacs.store.add(content)
    assert nib.load(datastore.get_image_uri(pacs.ct.series_uid)).shape == (12, 10, 4)
    for content in held_back[4:]:
        pacs.store.add(content)
    datastore.forget()
    datastore.list_images()
    assert nib.load(datastore.get_image_uri(pacs.ct.series_uid)).shape == SHAPE


def test_colours_and_bad_series_are_handed_out_as_they_are(datastore, pacs, tmp_path):
    loop = write_multiframe_ultrasound(tmp_path / "us", np.zeros((4, 20, 30, 3), np.uint8))
    gap = write_series(tmp_path / "gap", np.zeros(SHAPE, np.int16), AFFINE)
    gap.files[2].unlink()
    pacs.store.store(tmp_path / "us", tmp_path / "gap")
    path = Path(datastore.get_image_uri(loop.series_uid))
    assert (path.suffix, path.parent.name) == (".dcm", loop.series_uid)
    assert read_image(path, MANY).is_rgb
    folder = Path(datastore.get_image_uri(gap.series_uid))
    assert folder.is_dir()
    with pytest.raises(ImageError, match="1 of its slices are missing"):
        read_image(folder, MANY)
    # Both are kept: the record is put in order when files come and go.
    datastore.refresh()
    assert datastore.get_image_uri(gap.series_uid) == str(folder)


def test_without_conversion_a_series_is_a_folder(open_datastore, pacs):
    path = Path(open_datastore(convert_to_nifti=False).get_image_uri(pacs.ct.series_uid))
    assert path.is_dir()
    assert read_image(path, MANY).shape == SHAPE


@pytest.mark.parametrize("uid", ["undefined", "", "1.2.3", "../ct"])
def test_what_is_not_there_has_no_file(datastore, uid):
    assert datastore.get_image_uri(uid) == ""


def test_what_is_known_of_an_image(datastore, pacs):
    info = datastore.get_image_info(pacs.mr.series_uid)
    assert (info["Modality"], info["StudyInstanceUID"]) == ("MR", pacs.mr.study_uid)
    assert "path" not in info
    path = datastore.get_image_uri(pacs.mr.series_uid)
    datastore.update_image_info(pacs.mr.series_uid, {"strategy": {"random": 1}})
    info = datastore.get_image_info(pacs.mr.series_uid)
    assert (info["path"], info["strategy"], info["PatientID"]) == (path, {"random": 1}, "phantom")
    assert set(datastore.json()["objects"]) == {pacs.ct.series_uid, pacs.mr.series_uid}


def test_a_store_that_is_down(datastore, pacs):
    path = datastore.get_image_uri(pacs.ct.series_uid)
    pacs.store.stop()
    datastore.forget()
    assert datastore.get_image_uri(pacs.ct.series_uid) == path
    with pytest.raises(BusyError, match="does not answer"):
        datastore.get_image_uri(pacs.mr.series_uid)
    with pytest.raises(BusyError, match="does not answer"):
        datastore.get_unlabeled_images()
    # Viewers ask for it with every click.
    assert datastore.status()["total"] == 2
    assert datastore.get_image_info(pacs.ct.series_uid)["Modality"] == "CT"


def test_the_cache_can_be_deleted(datastore, pacs):
    path = Path(datastore.get_image_uri(pacs.ct.series_uid))
    shutil.rmtree(path.parent / pacs.ct.series_uid)
    path.unlink()
    assert nib.load(datastore.get_image_uri(pacs.ct.series_uid)).shape == SHAPE


def test_images_come_and_go_in_the_store_alone(datastore, pacs):
    with pytest.raises(ImageError, match=r"send it there as DICOM"):
        datastore.add_image("a", "a.nii.gz", {})
    with pytest.raises(ImageError, match="remove it in http"):
        datastore.remove_image(pacs.ct.series_uid)


def test_a_scoring_downloads_few_images_and_no_labels_of_others(datastore, pacs):
    """A PACS may hold thousands; nobody asked for them."""
    pacs.draw(LABEL, {1: "a", 2: "b"}, pacs.mr)
    datastore.forget()
    assert (ImageQueue.of(datastore, UncertaintyOptions(downloads=0)).images, list(labelled(datastore))) == (
        [],
        [],
    )
    assert ImageQueue.of(datastore, UncertaintyOptions()).images == [pacs.ct.series_uid]
    assert not downloads(pacs)
    datastore.get_image_uri(pacs.mr.series_uid)
    assert [image for image, _ in labelled(datastore)] == [pacs.mr.series_uid]
    assert ImageQueue.of(datastore, UncertaintyOptions()).images == [pacs.ct.series_uid, pacs.mr.series_uid]


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
