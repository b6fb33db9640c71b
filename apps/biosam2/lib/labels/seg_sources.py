"""The headers of a series, as a segmentation of it needs them: complete, and each with its slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from lib.errors import LabelError
from lib.images.medical_image import LPS_IDENTITY, MedicalImage

# What every file of the standard has, if empty, and files of the world may not.
_TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
_SEXES = ("M", "F", "O", "")
# Share of a voxel by which a header and the opened image may place a slice differently: DICOM keeps decimals.
_SAME_PLACE = 0.3


@dataclass(frozen=True, eq=False)
class Sources:
    """A series from which a segmentation is derived.

    Attributes:
        headers: one for each slice, or the one of a file of many frames.
        slices: the image's slice of each header, or of each frame.
        is_placed: whether the slices lie anywhere in space; the frames of a loop do not.
    """

    headers: list[pydicom.Dataset]
    slices: list[int]
    is_placed: bool


def source_headers(files: Sequence[Path], image: MedicalImage) -> Sources:
    """Reads the headers of a series, and finds the image's slice that each is of.

    Args:
        files: of the series, in any order.
        image: the series as it was opened.

    Raises:
        LabelError: where files and image are not the same series.
    """
    headers = [_tidy(pydicom.dcmread(file, stop_before_pixels=True)) for file in files]
    if any((int(one.Columns), int(one.Rows)) != image.shape[:2] for one in headers):
        raise LabelError("its image and the DICOM series have slices of different sizes")
    if len(headers) == 1 and "NumberOfFrames" in headers[0]:
        return _frames(headers[0], image)
    if len(headers) != image.shape[2]:
        raise LabelError(f"its image has {image.shape[2]} slices and the DICOM series {len(headers)}")
    if len(headers) == 1 and "ImagePositionPatient" not in headers[0]:
        # A radiograph or an ultrasound picture: a frame of reference without a position helps nobody.
        headers[0].pop("FrameOfReferenceUID", None)
        return Sources(headers, [0], is_placed=True)
    slices = _slices([one.ImagePositionPatient for one in headers], image)
    _place(headers, image)
    return Sources(headers, slices, is_placed=True)


def _tidy(header: pydicom.Dataset) -> pydicom.Dataset:
    """Fills in what the standard asks for and highdicom insists on."""
    for name in _TYPE_2:
        if header.get(name) is None:
            setattr(header, name, "")
    if header.PatientSex not in _SEXES:
        header.PatientSex = ""
    if header.get("LossyImageCompression") == "01" and not (
        header.get("LossyImageCompressionRatio") and header.get("LossyImageCompressionMethod")
    ):
        del header.LossyImageCompression
    return header


def _place(headers: Sequence[pydicom.Dataset], image: MedicalImage) -> None:
    """Completes where the slices lie: one frame of reference, and how thick and far apart they are."""
    own = next((one.FrameOfReferenceUID for one in headers if one.get("FrameOfReferenceUID")), generate_uid())
    step = float(np.linalg.norm(image.affine[:3, 2]))
    for one in headers:
        one.FrameOfReferenceUID = own
        if not one.get("SliceThickness"):
            one.SliceThickness = round(step, 6)
        one.SpacingBetweenSlices = round(step, 6)


def _slices(positions: Sequence[Sequence[float]], image: MedicalImage) -> list[int]:
    """The image's slice whose first voxel lies at each position in LPS."""
    lps = np.column_stack([np.array(positions, dtype=float), np.ones(len(positions))])
    voxels = (np.linalg.inv(LPS_IDENTITY @ image.affine) @ lps.T).T[:, :3]
    slices = np.rint(voxels[:, 2]).astype(int)
    apart = np.abs(voxels - np.column_stack([np.zeros((len(slices), 2)), slices])).max(axis=1)
    first = int(np.argmin(voxels[:, 2]))
    is_stack = sorted(slices) == list(range(image.shape[2]))
    if is_stack and apart[first] < _SAME_PLACE < apart.max():
        raise LabelError(
            "the slices of its image are shifted against each other, as those of a tilted gantry, and no "
            "volume can hold that: resample the series to a straight one, for example in 3D Slicer"
        )
    if apart.max() > _SAME_PLACE or not is_stack:
        raise LabelError("its image lies elsewhere than the DICOM series: it is of another series")
    return [int(k) for k in slices]


def _frames(header: pydicom.Dataset, image: MedicalImage) -> Sources:
    """A file of many frames: each with its place, or in the order of time."""
    count = int(header.NumberOfFrames)
    if count != image.shape[2]:
        raise LabelError(f"its image has {image.shape[2]} slices and the DICOM file {count} frames")
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    positions = [
        group.PlanePositionSequence[0].ImagePositionPatient
        for group in groups
        if group.get("PlanePositionSequence")
    ]
    is_placed = len(positions) == count and bool(header.get("FrameOfReferenceUID"))
    slices = _slices(positions, image) if is_placed else list(range(count))
    _group(header, image, slices)
    if not is_placed:
        header.FrameOfReferenceUID = generate_uid()
    return Sources([header], slices, is_placed)


def _group(header: pydicom.Dataset, image: MedicalImage, slices: Sequence[int]) -> None:
    """Writes the frames' places as functional groups, the one form in which highdicom reads them.

    A loop of frames has none: it gets those of its pixels' grid, which are taken out again.
    """
    lps: NDArray[np.float64] = LPS_IDENTITY @ image.affine
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / sizes
    shared = pydicom.Dataset()
    measures = _measures(sizes)
    orientation = pydicom.Dataset()
    orientation.ImageOrientationPatient = [round(float(v), 9) for v in [*axes[:, 0], *axes[:, 1]]]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    items = []
    for k in slices:
        position, item = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = [round(float(v), 6) for v in (lps @ [0, 0, k, 1])[:3]]
        item.PlanePositionSequence = [position]
        items.append(item)
    header.PerFrameFunctionalGroupsSequence = items


def _measures(sizes: NDArray[np.float64]) -> pydicom.Dataset:
    """Pixel measures of voxels so many millimetres along i, j and k."""
    measures = pydicom.Dataset()
    measures.PixelSpacing = [round(float(sizes[1]), 9), round(float(sizes[0]), 9)]
    measures.SliceThickness = measures.SpacingBetweenSlices = round(float(sizes[2]), 9)
    return measures
