"""Small images made here, and the real ones where they are at hand."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)


@pytest.fixture
def data():
    """Folder of real images."""
    folder = Path(os.environ.get("BIOSAM2_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the real images are not at {folder}; BIOSAM2_DATA names their folder")
    return folder


def oblique(spacing=(0.6, 0.9, 2.5), origin=(-31.0, 47.0, 12.5)):
    """RAS affine of a volume that is turned about two axes."""
    a, b = 0.35, -0.2
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn_z @ turn_x * np.array(spacing)
    affine[:3, 3] = origin
    return affine


AFFINES = {
    "RAS": np.array([[0.7, 0, 0, -5], [0, 0.9, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]]),
    "LPS": np.array([[-0.7, 0, 0, -5], [0, -0.9, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]]),
    "PIR": np.array([[0, 0, 3.0, -5], [-0.7, 0, 0, 6], [0, -0.9, 0, 7], [0, 0, 0, 1.0]]),
    "oblique": oblique(),
}


# Of one file: where a scanner put the volume, and where it was registered to.
SCANNED = np.array([[-0.7, 0, 0, 10], [0, -0.9, 0, 12], [0, 0, 3, -18], [0, 0, 0, 1.0]])
REGISTERED = oblique((0.7, 0.9, 3.0))
CODES = [(sform, qform) for sform in range(5) for qform in range(5)]


def write_forms(path, array, codes, kind=nib.Nifti1Image, sform=REGISTERED, qform=SCANNED, **fields):
    """A NIfTI file with two forms, codes of sform and qform, and fields of the header as given."""
    header = kind.header_class()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_qform(qform)
    header.set_sform(sform)
    fields = {"sform_code": codes[0], "qform_code": codes[1], "vox_offset": 544, **fields}
    for name, value in {**fields, "magic": header.single_magic}.items():
        header[name] = value
    content = header.binaryblock.ljust(544, b"\0") + array.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture(params=AFFINES)
def affine(request):
    """RAS affines of several orientations, each with three different spacings."""
    return AFFINES[request.param]


def dataset(path, sop_class, **elements):
    """An empty DICOM file with the elements that every image has."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    made.is_little_endian, made.is_implicit_VR = True, False
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for name, value in elements.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def ct_slice():
    """Function that writes one CT slice: stored values (rows, columns), z in millimetres, more elements."""

    def write(path, stored, z, series="1.2.3", **elements):
        made = dataset(path, CTImageStorage, Modality="CT", SeriesInstanceUID=series, StudyInstanceUID="1.2")
        made.ImagePositionPatient = [-20.0, -30.0, z]
        made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        made.PixelSpacing = [0.9, 0.7]  # between rows, between columns
        made.SliceThickness = 2.5
        made.RescaleSlope, made.RescaleIntercept = 1, -1024
        made.Rows, made.Columns = stored.shape
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
        made.PixelData = stored.astype("<u2").tobytes()
        for name, value in elements.items():
            setattr(made, name, value)
        pydicom.dcmwrite(path, made, write_like_original=False)
        return path

    return write


@pytest.fixture
def ultrasound():
    """Function that writes a colour cine loop: uint8 (frames, rows, columns, 3)."""

    def write(path, frames):
        made = dataset(path, UltrasoundMultiFrameImageStorage, Modality="US", NumberOfFrames=len(frames))
        made.WindowCenter, made.WindowWidth = 128, 256
        made.Rows, made.Columns = frames.shape[1:3]
        made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
        made.PixelData = frames.tobytes()
        pydicom.dcmwrite(path, made, write_like_original=False)
        return path

    return write


def many_frames(files, path):
    """The slices as the frames of one enhanced CT file, in this order."""
    slices = [pydicom.dcmread(file) for file in files]
    made = pydicom.dcmread(files[0])
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    made.NumberOfFrames = len(slices)
    shared = pydicom.Dataset()
    for group, names in (
        ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness")),
        ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
        ("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept", "RescaleType")),
    ):
        setattr(shared, group, [group_of(made, *names)])
    made.SharedFunctionalGroupsSequence = [shared]
    frames = [pydicom.Dataset() for _ in slices]
    for frame, one in zip(frames, slices, strict=True):
        frame.PlanePositionSequence = [group_of(one, "ImagePositionPatient")]
    made.PerFrameFunctionalGroupsSequence = frames
    del made.ImagePositionPatient, made.ImageOrientationPatient, made.PixelSpacing
    made.PixelData = b"".join(one.PixelData for one in slices)
    made.save_as(path)
    return path


def group_of(source, *names):
    """An item of a functional group."""
    item = pydicom.Dataset()
    for name in names:
        setattr(item, name, source.get(name))
    return item
