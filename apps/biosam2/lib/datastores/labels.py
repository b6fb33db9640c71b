"""Sends labels to a DICOMweb store as segmentations, and reads segmentations onto the image's grid."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import requests
from dicomweb_client import DICOMwebClient

from lib.datastores.catalog import StoredSegmentation, read_segmentation, store_errors
from lib.errors import LabelError
from lib.images.medical_image import MedicalImage
from lib.images.writing import write_mask
from lib.labels.dicom_seg_writing import describe_segments, write_dicom_seg
from lib.labels.reading import read_labels
from lib.labels.values import LabelMap, name_values

_MOST_OBJECTS = 255
# Status codes of a store, or of a proxy before it, that is down or overloaded.
_DOWN = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
# Name of the only segment of an empty label without names: DICOM requires one.
NOTHING = "nothing found"


def open_label(path: Path, image: MedicalImage, label_info: Sequence[Mapping[str, Any]] | None) -> LabelMap:
    """Reads a client's label onto its image's grid.

    Args:
        path: File that ``read_labels`` reads, or a ``.bin``: uint8 of the whole image, x fastest.
        image: Image of the label.
        label_info: Names of the values, from the client.

    Raises:
        LabelError: The label does not fit its image, or has more than 255 objects.
    """
    if path.suffix == ".bin":
        return _read_bytes(path, image, label_info)
    labels = read_labels(path, image, label_info)
    if int(labels.array.max()) > _MOST_OBJECTS:
        raise LabelError(
            f"it has values up to {int(labels.array.max())} and {_MOST_OBJECTS} are the limit: number its "
            "objects from 1"
        )
    return labels


def _read_bytes(path: Path, image: MedicalImage, label_info: Sequence[Mapping[str, Any]] | None) -> LabelMap:
    content = np.fromfile(path, dtype=np.uint8)
    if content.size != np.prod(image.shape):
        size = " x ".join(str(side) for side in image.shape)
        raise LabelError(
            f"it has {content.size} bytes and its image {size} voxels: send one byte for each voxel, "
            "x fastest"
        )
    array = content.reshape(image.shape, order="F")
    values = [int(value) for value in np.flatnonzero(np.bincount(content)) if value]
    return LabelMap(array, name_values(values, {}, label_info))


def send_label(
    client: DICOMwebClient,
    labels: LabelMap,
    image: MedicalImage,
    files: Sequence[Path],
    label_info: Sequence[Mapping[str, Any]] | None,
) -> StoredSegmentation:
    """Sends a label to a store as a DICOM segmentation.

    Args:
        client: DICOMweb client of the store.
        labels: Label on the image's grid.
        image: Image of the label.
        files: Files of the image's series.
        label_info: Colours and codes, from the client.

    Raises:
        LabelError: The label cannot be written, or the store refuses it.
        BusyError: The store does not answer.
    """
    path = new_segmentation(labels, image, files, label_info)
    try:
        dataset = pydicom.dcmread(path)
        with store_errors(client):
            answer = client.store_instances([dataset])
    finally:
        path.unlink(missing_ok=True)
    failed = answer.get("FailedSOPSequence")
    if failed:
        raise LabelError(
            f"the DICOM store {client.base_url} refuses it (reason "
            f"{failed[0].get('FailureReason')}): see its log"
        )
    stored = read_segmentation(dataset, str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
    if stored is None:
        raise LabelError("its series has no UID, so that nobody could find the label again")
    return stored


def fetch_label(client: DICOMwebClient, drawn: StoredSegmentation, image: MedicalImage) -> LabelMap:
    """Reads a segmentation of the store onto its image's grid.

    Raises:
        LabelError: The segmentation does not fit its image, cannot be read, or is missing in the store.
        BusyError: The store does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="biosam2-seg-") as folder:
        path = Path(folder) / f"{drawn.uid}.dcm"
        with store_errors(client), _refusals():
            client.retrieve_instance(drawn.study_uid, drawn.series_uid, drawn.uid).save_as(path)
        return open_label(path, image, None)


@contextmanager
def _refusals() -> Iterator[None]:
    """Raises ``LabelError`` where the store refuses one file, as opposed to a store that is down."""
    try:
        yield
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code in _DOWN:
            raise
        raise LabelError(f"the DICOM store cannot send it: {error}") from error


@contextmanager
def as_volume(labels: LabelMap, image: MedicalImage) -> Iterator[Path]:
    """Writes a label to a temporary ``.nii.gz`` on its image's grid."""
    path = write_mask(labels.array.astype(np.uint8, copy=False), image, ".nii.gz")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def new_segmentation(
    labels: LabelMap,
    image: MedicalImage,
    files: Sequence[Path],
    label_info: Sequence[Mapping[str, Any]] | None,
) -> Path:
    """Writes a label as a DICOM segmentation to a temporary file, which the caller deletes."""
    handle, name = tempfile.mkstemp(suffix=".dcm")
    os.close(handle)
    path = Path(name)
    try:
        names = labels.names or _expected_names(label_info)
        write_dicom_seg(path, labels.array, image, files, describe_segments(names, label_info))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _expected_names(label_info: Sequence[Mapping[str, Any]] | None) -> dict[int, str]:
    """Segment names of an empty label: DICOM requires a segment even if nothing is drawn."""
    names = [str(item.get("name") or "").strip() for item in label_info or ()]
    return dict(enumerate(filter(None, names), start=1)) or {1: NOTHING}


def label_facts(
    drawn: StoredSegmentation,
    names: Mapping[int, str] | None = None,
    label_info: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Information that the datastore keeps of a label.

    Args:
        drawn: Segmentation in the store.
        names: Names by value in the cached volume; None if there is none.
        label_info: Names and colours, from the client.
    """
    said = {
        str(item.get("name") or "").strip(): item for item in label_info or () if isinstance(item, Mapping)
    }
    listed = [
        {**said.get(name, {}), "name": name, "idx": value} for value, name in sorted((names or {}).items())
    ]
    return {
        "label_info": listed or drawn.label_info,
        "Modality": "SEG",
        "StudyInstanceUID": drawn.study_uid,
        "SeriesInstanceUID": drawn.series_uid,
        "SOPInstanceUID": drawn.uid,
        "ts": int(drawn.seen or drawn.made),
    }
