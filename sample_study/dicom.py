"""Arrays as DICOM files: a volume as a series of slices, frames as one ultrasound file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat

# Other modalities are written as secondary captures, which fit any of them.
STORAGE = {"CT": CTImageStorage, "MR": MRImageStorage}
# Required attributes besides geometry and pixels; an empty value means unknown.
ATTRIBUTES: dict[str, dict[str, object]] = {
    CTImageStorage: {
        "KVP": 120,
        "AcquisitionNumber": 1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "HU",
    },
    MRImageStorage: {
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": 9000,
        "EchoTime": 120,
        "EchoTrainLength": 1,
        "AcquisitionNumber": 1,
    },
    SecondaryCaptureImageStorage: {"ConversionType": "WSD"},
}
DATE, TIME = "20260102", "090000"
# Tolerance of orthogonality: rounding of an affine in a 32-bit file header.
ORTHOGONAL = 1e-4


@dataclass(frozen=True)
class Series:
    """A series on disk.

    Attributes:
        patient: Patient ID.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID, the image id in a DICOMweb datastore.
        files: One file per slice in the order of the array's last axis, or one multi-frame file.
    """

    patient: str
    study_uid: str
    series_uid: str
    files: tuple[Path, ...]


def write_series(
    folder: Path,
    image: NDArray[np.generic],
    affine: NDArray[np.floating],
    *,
    modality: str = "CT",
    description: str = "phantom",
    patient: str = "phantom",
    window: tuple[float, float] | None = None,
    instances: Literal["ascending", "descending"] = "ascending",
    study_uid: str | None = None,
) -> Series:
    """Writes a volume as one file per slice.

    The first axis becomes a file's columns and the second its rows. Readers order slices along their normal,
    the cross product of these two: where the third axis runs against it, they see it reversed.

    Args:
        folder: Folder of ``slice_0000.dcm`` and so on, created if absent.
        image: ``(I, J, K)``, values that fit int16; Hounsfield units for CT.
        affine: ``(4, 4)``, voxel index to RAS+ millimetres; orthogonal axes in any direction.
        modality: DICOM modality.
        description: Series Description.
        patient: Patient ID and name.
        window: Window centre and width in the image's values.
        instances: Order of Instance Numbers along the normal.
        study_uid: Study Instance UID of an existing study; default: a new one.

    Raises:
        ValueError: the image is not 3-D, values do not fit int16, or the axes are not orthogonal.
    """
    if image.ndim != 3:
        raise ValueError(f"a series is written from (I, J, K), not from the shape {image.shape}")
    stored = image.astype(np.int16)
    if not np.array_equal(stored, image):
        raise ValueError("a series stores whole numbers from -32768 to 32767")
    to_patient = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, np.float64)
    spacing = np.linalg.norm(to_patient[:3, :3], axis=0)
    axes = to_patient[:3, :3] / spacing
    if not np.allclose(axes.T @ axes, np.eye(3), atol=ORTHOGONAL):
        raise ValueError("a series needs orthogonal axes: this affine shears")
    common = _common(modality, description, patient, study_uid)
    common.update(_plane(axes, spacing))
    if window is not None:
        common.WindowCenter, common.WindowWidth = (DSfloat(value, auto_format=True) for value in window)
    along_normal = np.dot(np.cross(axes[:, 0], axes[:, 1]), axes[:, 2]) > 0
    rises = along_normal == (instances == "ascending")
    files = []
    for index in range(image.shape[2]):
        dataset = _instance(common, index + 1 if rises else image.shape[2] - index)
        position = (to_patient @ [0, 0, index, 1])[:3]
        dataset.ImagePositionPatient = _decimals(position)
        _set_pixels(dataset, stored[:, :, index].T)
        files.append(_write(dataset, folder / f"slice_{index:04d}.dcm"))
    return Series(patient, common.StudyInstanceUID, common.SeriesInstanceUID, tuple(files))


def write_multiframe_ultrasound(
    folder: Path,
    frames: NDArray[np.uint8],
    *,
    description: str = "phantom",
    patient: str = "phantom",
    frame_time_ms: float = 40.0,
    spacing_mm: float | None = None,
    study_uid: str | None = None,
) -> Series:
    """Writes frames as one ultrasound file, uncompressed.

    Args:
        folder: Folder of ``clip.dcm``, created if absent.
        frames: ``(T, H, W)`` grey or ``(T, H, W, 3)`` RGB, uint8.
        description: Series Description.
        patient: Patient ID and name.
        frame_time_ms: Time between two frames.
        spacing_mm: Pixel spacing, stored as the calibration of one region that covers the frame.
        study_uid: Study Instance UID of an existing study; default: a new one.

    Raises:
        ValueError: the frames have another type or shape.
    """
    if frames.dtype != np.uint8 or frames.shape[3:] not in ((), (3,)) or frames.ndim < 3:
        raise ValueError(
            f"a clip is (T, H, W) or (T, H, W, 3) uint8, not {frames.shape} of the type {frames.dtype}"
        )
    dataset = _instance(_common("US", description, patient, study_uid), 1)
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    del dataset.ConversionType
    dataset.NumberOfFrames = len(frames)
    dataset.FrameTime = DSfloat(frame_time_ms, auto_format=True)
    dataset.FrameIncrementPointer = 0x00181063  # Frame Time
    if spacing_mm is not None:
        dataset.SequenceOfUltrasoundRegions = [_region(frames.shape[1:3], spacing_mm)]
    _set_pixels(dataset, frames)
    file = _write(dataset, folder / "clip.dcm")
    return Series(patient, dataset.StudyInstanceUID, dataset.SeriesInstanceUID, (file,))


def _common(modality: str, description: str, patient: str, study_uid: str | None) -> Dataset:
    """Attributes that all files of a series share."""
    dataset = Dataset()
    dataset.SOPClassUID = STORAGE.get(modality, SecondaryCaptureImageStorage)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
    dataset.StudyDate, dataset.StudyTime = DATE, TIME
    dataset.ContentDate, dataset.ContentTime = DATE, TIME
    dataset.Modality = modality
    dataset.SeriesDescription = dataset.StudyDescription = description
    dataset.PatientID = patient
    dataset.PatientName = f"{patient}^Phantom"
    dataset.StudyInstanceUID = study_uid or generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SeriesNumber = 1
    for name in ("AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "PatientSex", "StudyID"):
        setattr(dataset, name, "")
    dataset.Manufacturer = dataset.Laterality = ""
    for name, value in ATTRIBUTES[dataset.SOPClassUID].items():
        setattr(dataset, name, value)
    return dataset


def _plane(axes: NDArray[np.float64], spacing: NDArray[np.float64]) -> Dataset:
    """Geometry of all slices except position; ``axes``: columns of an LPS rotation, ``spacing``: mm."""
    dataset = Dataset()
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.PositionReferenceIndicator = dataset.PatientPosition = ""
    dataset.ImageOrientationPatient = _decimals([*axes[:, 0], *axes[:, 1]])
    dataset.PixelSpacing = _decimals([spacing[1], spacing[0]])
    dataset.SliceThickness = DSfloat(spacing[2], auto_format=True)
    return dataset


def _region(shape: tuple[int, ...], spacing_mm: float) -> Dataset:
    """A calibrated region that covers the frame; ``shape`` is ``(H, W)``."""
    dataset = Dataset()
    dataset.RegionSpatialFormat, dataset.RegionDataType, dataset.RegionFlags = 1, 1, 0
    dataset.RegionLocationMinX0 = dataset.RegionLocationMinY0 = 0
    dataset.RegionLocationMaxY1, dataset.RegionLocationMaxX1 = (size - 1 for size in shape)
    dataset.PhysicalUnitsXDirection = dataset.PhysicalUnitsYDirection = 3  # cm
    dataset.PhysicalDeltaX = dataset.PhysicalDeltaY = spacing_mm / 10
    return dataset


def _instance(common: Dataset, number: int) -> FileDataset:
    dataset = FileDataset("", common, preamble=b"\0" * 128, file_meta=FileMetaDataset())
    dataset.SOPInstanceUID = generate_uid()
    dataset.InstanceNumber = number
    return dataset


def _set_pixels(dataset: Dataset, pixels: NDArray[np.generic]) -> None:
    """Sets the pixels: ``(..., H, W)`` int16 or uint8, or ``(..., H, W, 3)`` uint8."""
    is_colour = pixels.dtype == np.uint8 and pixels.ndim == 4
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if is_colour else pixels.shape[-2:]
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    data = np.ascontiguousarray(pixels).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)


def _write(dataset: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.save_as(path, write_like_original=False)
    return path


def _decimals(values: Iterable[float]) -> list[DSfloat]:
    """Numbers as DICOM decimal strings (at most 16 characters)."""
    return [DSfloat(float(value), auto_format=True) for value in values]
