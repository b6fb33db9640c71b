"""Images, and labels that are drawn in world coordinates, so that every grid has the same truth."""

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from highdicom.seg import SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, generate_uid

from lib.images.medical_image import LPS_IDENTITY, Voxels, make_image

# RAS millimetres: centre, radius, value. Off the diagonal, and neither mirrored nor turned into each other.
BALLS = (((6.0, -9.0, 3.0), 7.5, 1), ((-8.0, 4.0, -5.0), 5.5, 2))


def turned(spacing, origin, a=0.35, b=-0.2):
    """RAS affine of a volume that is turned about two axes."""
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn_z @ turn_x * np.array(spacing)
    affine[:3, 3] = origin
    return affine


def centred(columns, shape):
    """RAS affine whose volume has its middle at the world's origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns, dtype=float).T
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


SHAPE = (44, 50, 24)
GRIDS = {
    "RAS": (centred([[1.0, 0, 0], [0, 0.9, 0], [0, 0, 1.5]], SHAPE), SHAPE),
    "LPS": (centred([[-1.0, 0, 0], [0, -0.9, 0], [0, 0, 1.5]], SHAPE), SHAPE),
    "sagittal": (centred([[0, -0.9, 0], [0, 0, -1.1], [1.7, 0, 0]], (46, 38, 27)), (46, 38, 27)),
    "anisotropic": (centred([[0.7, 0, 0], [0, 0.8, 0], [0, 0, 4.0]], (60, 54, 9)), (60, 54, 9)),
    "oblique": (turned((1.0, 0.9, 1.5), (-20.0, -24.0, -16.0)), (44, 50, 24)),
}


def drawn(affine, shape, balls=BALLS):
    """uint8 labels of the balls at the voxel centres of a grid, and how far each is from a surface."""
    world = nib.affines.apply_affine(affine, np.stack(np.indices(shape), axis=-1))
    labels, away = np.zeros(shape, np.uint8), np.full(shape, np.inf)
    for centre, radius, value in balls:
        beyond = np.linalg.norm(world - centre, axis=-1) - radius
        labels[beyond < 0] = value
        away = np.minimum(away, np.abs(beyond))
    return labels, away


@pytest.fixture
def image(tmp_path):
    """Function that makes an opened image; its file need not be there."""

    def make(affine=LPS_IDENTITY, shape=SHAPE, is_2d=False, file_format="itk", path=None):
        voxels = Voxels(np.zeros(shape, np.int16), np.array(affine, dtype=float), is_2d)
        return make_image(voxels, path or tmp_path / "image.nrrd", file_format)

    return make


@pytest.fixture
def picture(image):
    """Function that makes an opened picture of so many columns and rows."""
    return lambda width, height: image(LPS_IDENTITY, (width, height, 1), is_2d=True, file_format="raster")


@pytest.fixture
def nifti(tmp_path):
    """Function that writes a NIfTI file and returns its path."""

    def write(array, affine=LPS_IDENTITY, name="label.nii.gz"):
        nib.Nifti1Image(array, affine, dtype=array.dtype).to_filename(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def ct():
    """Function that makes the headers of a CT series in LPS, one for each slice of an image."""

    def make(affine, shape, frame_of_reference="1.2.3.4"):
        lps = LPS_IDENTITY @ affine
        columns = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
        study, series, slices = generate_uid(), generate_uid(), []
        for k in range(shape[2]):
            one = Dataset()
            one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid()
            one.StudyInstanceUID, one.SeriesInstanceUID = study, series
            one.FrameOfReferenceUID, one.PositionReferenceIndicator = frame_of_reference, ""
            one.PatientID, one.PatientName, one.PatientBirthDate, one.PatientSex = "1", "A^B", "", "O"
            one.StudyID, one.StudyDate, one.StudyTime, one.AccessionNumber = "1", "20260101", "120000", ""
            one.ReferringPhysicianName, one.Modality, one.InstanceNumber = "", "CT", k + 1
            one.ImagePositionPatient = [float(v) for v in lps[:3, 3] + k * lps[:3, 2]]
            one.ImageOrientationPatient = [float(v) for v in [*columns[:, 0], *columns[:, 1]]]
            one.PixelSpacing = [float(np.linalg.norm(lps[:3, 1])), float(np.linalg.norm(lps[:3, 0]))]
            one.SliceThickness = float(np.linalg.norm(lps[:3, 2]))
            one.Rows, one.Columns = shape[1], shape[0]
            one.file_meta = Dataset()
            slices.append(one)
        return slices

    return make


def described(number, name):
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Liver,
        algorithm_type="MANUAL",
    )


@pytest.fixture
def seg(tmp_path):
    """Function that writes (I, J, K) labels, or (I, J, K, segments), as the segmentation of a series."""

    def write(labels, series, names=("liver", "spleen"), kind="BINARY", **more):
        made = hd.seg.Segmentation(
            source_images=series,
            pixel_array=np.ascontiguousarray(np.moveaxis(labels, (0, 1, 2), (2, 1, 0))),
            segmentation_type=SegmentationTypeValues[kind],
            segment_descriptions=[described(number, name) for number, name in enumerate(names, 1)],
            series_instance_uid=generate_uid(),
            series_number=2,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="a",
            manufacturer_model_name="b",
            software_versions="1",
            device_serial_number="1",
            **more,
        )
        made.save_as(tmp_path / "label.dcm")
        return tmp_path / "label.dcm"

    return write


def changed(path, **elements):
    """Sets elements of a file; None takes them away."""
    dataset = pydicom.dcmread(path)
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)
    return path


@pytest.fixture
def case(image, ct, seg):
    """A file with two segments, and its image."""
    affine, shape = GRIDS["LPS"]
    return seg(drawn(affine, shape)[0], ct(affine, shape)), image(affine, shape)
