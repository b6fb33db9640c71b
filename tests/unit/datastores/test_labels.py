"""Labels to the store and back."""

import io

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests

from lib.datastores.labels import (
    NOTHING,
    as_volume,
    fetch_label,
    label_facts,
    new_segmentation,
    open_label,
    send_label,
)
from lib.errors import BusyError, LabelError
from lib.images.reading import read_image
from lib.labels.values import LabelMap
from tests.unit.datastores.conftest import AFFINE, LABEL, MANY, SHAPE

INFO = [{"name": "liver", "idx": 1, "color": [1, 2, 3]}, {"name": "spleen", "idx": 2}]


@pytest.fixture
def image(pacs):
    return read_image(pacs.ct.files[0].parent, MANY)


def test_bytes_of_ohif_are_x_fastest(label_file, image):
    found = open_label(label_file, image, INFO)
    np.testing.assert_array_equal(found.array, LABEL)
    assert found.names == {1: "liver", 2: "spleen"}


def test_bytes_that_do_not_fit_are_refused(label_file, image):
    label_file.write_bytes(b"\1" * 7)
    with pytest.raises(LabelError, match="it has 7 bytes and its image 12 x 10 x 6 voxels"):
        open_label(label_file, image, None)


@pytest.mark.parametrize(("info", "segments"), [(INFO, ["liver", "spleen"]), (None, [NOTHING])])
def test_a_label_of_somebody_who_found_nothing(label_file, image, client, pacs, info, segments):
    label_file.write_bytes(bytes(720))
    labels = open_label(label_file, image, info)
    assert labels.names == {}
    sent = send_label(client, labels, image, pacs.ct.files, info)
    assert [item["name"] for item in label_facts(sent)["label_info"]] == segments
    found = fetch_label(client, sent, image)
    assert (found.names, found.array.any()) == ({}, False)


def test_more_objects_than_a_byte_counts_are_refused(tmp_path, image):
    many = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
    nib.save(nib.Nifti1Image(many, AFFINE), tmp_path / "many.nii.gz")
    with pytest.raises(LabelError, match="values up to 719 and 255 are the limit"):
        open_label(tmp_path / "many.nii.gz", image, None)


def test_there_and_back(client, pacs, image):
    sent = send_label(client, LabelMap(LABEL, {1: "liver", 2: "spleen"}), image, pacs.ct.files, INFO)
    assert (sent.image_uid, sent.study_uid) == (pacs.ct.series_uid, pacs.ct.study_uid)
    (header,) = pacs.store.select(Modality="SEG")
    assert header.SOPInstanceUID == sent.uid
    stored = pydicom.dcmread(io.BytesIO(pacs.store.content(header)))
    assert stored.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    found = fetch_label(client, sent, image)
    np.testing.assert_array_equal(found.array, LABEL)
    assert found.names == {1: "liver", 2: "spleen"}


@pytest.mark.parametrize(("status", "kind"), [(404, LabelError), (500, LabelError), (503, BusyError)])
def test_a_file_that_is_lost_is_told_from_a_store_that_is_down(
    client, pacs, image, monkeypatch, status, kind
):
    sent = send_label(client, LabelMap(LABEL, {1: "liver", 2: "spleen"}), image, pacs.ct.files, INFO)

    def refuse(*uids):
        answer = requests.Response()
        answer.status_code = status
        answer.raise_for_status()

    monkeypatch.setattr(client, "retrieve_instance", refuse)
    with pytest.raises(kind):
        fetch_label(client, sent, image)


def test_a_store_that_takes_nothing(client, pacs, image, monkeypatch):
    refusal = pydicom.Dataset()
    refusal.FailureReason = 0xA700
    answer = pydicom.Dataset()
    answer.FailedSOPSequence = [refusal]
    monkeypatch.setattr(client, "store_instances", lambda datasets: answer)
    with pytest.raises(LabelError, match=r"refuses it \(reason 42752\)"):
        send_label(client, LabelMap(LABEL, {1: "a", 2: "b"}), image, pacs.ct.files, None)


def test_a_temporary_segmentation_is_not_left_behind(pacs, image, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(tmp_path.glob("*.dcm"))
    with pytest.raises(LabelError):
        new_segmentation(LabelMap(LABEL[1:], {1: "liver", 2: "spleen"}), image, pacs.ct.files, None)
    assert set(tmp_path.glob("*.dcm")) == before


def test_a_volume_lies_on_the_image_and_is_gone_afterwards(image):
    with as_volume(LabelMap(LABEL, {1: "a", 2: "b"}), image) as path:
        volume = nib.load(path)
        np.testing.assert_array_equal(np.asarray(volume.dataobj), LABEL)
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert not path.exists()


def test_facts_keep_the_clients_colours(client, pacs, image):
    sent = send_label(client, LabelMap(LABEL, {1: "liver", 2: "spleen"}), image, pacs.ct.files, INFO)
    facts = label_facts(sent, {1: "liver", 2: "spleen"}, INFO)
    assert facts["label_info"] == INFO
    assert (facts["SOPInstanceUID"], facts["Modality"]) == (sent.uid, "SEG")
    # Whatever a client calls a class, it is its name in the store that counts.
    said = [{"name": " liver ", "color": [1, 2, 3]}, {"name": ["spleen"]}, {"name": None}]
    assert label_facts(sent, {1: "liver", 2: "spleen"}, said)["label_info"] == INFO
    assert label_facts(sent)["label_info"] == [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]
