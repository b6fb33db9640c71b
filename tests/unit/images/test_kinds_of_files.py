"""One object in every kind of file that people have: where it lies in space, and where its mask lies.

The object is an ellipsoid in millimetres, so that the truth is a formula and no reader's answer.
"""

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lib.images.reading import read_image
from lib.images.writing import write_mask
from sample_study.dicom import write_series
from tests.unit.conftest import many_frames

MANY = 10**9
SHAPE, CENTRE = (24, 20, 12), (14.0, 7.0, 5.0)
RADII = np.array([9.0, 7.0, 10.0])  # millimetres to the right, front and top
SPACING = np.diag([1.5, 1.25, 3.0])
LPS = np.diag([-1.0, -1.0, 1.0])
LEVELS = (100, 600)
TURNED = np.array(
    [[0.9397, -0.3214, 0.1170], [0.3420, 0.8830, -0.3214], [0.0, 0.3420, 0.9397]]
)  # 20 degrees about two axes


def turn(order, signs=(1, 1, 1)):
    """Axes of the patient, right front top, along i, j and k."""
    return np.eye(3)[:, list(order)] * signs


ORIENTATIONS = {
    "RAS": turn((0, 1, 2)),
    "LPS": turn((0, 1, 2), (-1, -1, 1)),
    "LAS": turn((0, 1, 2), (-1, 1, 1)),
    "feet first": turn((0, 1, 2), (-1, -1, -1)),
    "coronal": turn((0, 2, 1), (-1, -1, 1)),
    "sagittal": turn((1, 2, 0), (-1, -1, -1)),
    "oblique": np.linalg.qr(TURNED)[0] * np.sign(np.diag(np.linalg.qr(TURNED)[1])),
}


def affine_of(axes, spacing=SPACING):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes @ spacing, (-30, 20, 55)
    return affine


def inside(affine, shape, centre):
    """Voxels whose centre lies in the object."""
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    return ((((world.T - centre) / RADII) ** 2).sum(1) <= 1).reshape(shape)


class Phantom:
    """The object on one grid."""

    def __init__(self, affine, shape=SHAPE):
        self.affine = affine
        self.centre = (affine @ [*CENTRE, 1])[:3]
        self.array = np.where(inside(affine, shape, self.centre), LEVELS[1], LEVELS[0]).astype(np.int16)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def check(path, phantom, name, is_written=True):
    image = read_image(path, MANY)
    found = image.array > sum(LEVELS) / 2
    truth = inside(image.affine, image.shape, phantom.centre)
    assert truth.sum() > 300, name
    assert dice(found, truth) >= 0.99, name
    for extension in (".nrrd", ".nii.gz", ".mha") if is_written else ():
        mask = write_mask(np.asfortranarray(found, np.uint8), image, extension)
        shown = sitk.ReadImage(str(mask))
        mask.unlink()
        lps = np.eye(4)
        lps[:3, :3] = np.reshape(shown.GetDirection(), (3, 3)) * shown.GetSpacing()
        lps[:3, 3] = shown.GetOrigin()
        where = inside(np.diag([-1, -1, 1, 1]) @ lps, shown.GetSize(), phantom.centre)
        assert dice(sitk.GetArrayFromImage(shown).T > 0, where) >= 0.99, f"{name}, mask as {extension}"


def test_nifti(tmp_path):
    cases = {}
    for name, axes in ORIENTATIONS.items():
        phantom = Phantom(affine_of(axes))
        cases[name] = (nib.Nifti1Image(phantom.array, phantom.affine), phantom)
    phantom = Phantom(affine_of(ORIENTATIONS["oblique"]))
    for dtype in ("u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8", ">i2", ">f4"):
        levels = (phantom.array // 3 if dtype == "u1" else phantom.array).astype(dtype)
        image = nib.Nifti1Image(levels, phantom.affine, dtype=np.dtype(dtype))
        if dtype == "u1":
            image.header.set_slope_inter(3, 0)
        cases[dtype] = (image, phantom)
    scaled = nib.Nifti1Image((phantom.array + 50).astype(np.float64), phantom.affine)
    scaled.set_data_dtype(np.uint8)
    cases["scaled"] = (scaled, phantom)
    cases["NIfTI-2"] = (nib.Nifti2Image(phantom.array, phantom.affine), phantom)
    cases["four axes"] = (nib.Nifti1Image(phantom.array[..., None], phantom.affine), phantom)
    for code, forms in {"qform alone": (1, 0), "sform alone": (0, 2), "both, aligned": (2, 2)}.items():
        image = nib.Nifti1Image(phantom.array, phantom.affine)
        image.set_qform(phantom.affine, forms[0])
        image.set_sform(phantom.affine, forms[1])
        cases[code] = (image, phantom)
    for name, (image, phantom) in cases.items():
        for suffix in (".nii", ".nii.gz"):
            nib.save(image, tmp_path / f"a{suffix}")
            check(tmp_path / f"a{suffix}", phantom, f"{name} {suffix}", is_written=suffix == ".nii")


KINDS = ("sitkInt16", "sitkUInt16", "sitkFloat32", "sitkFloat64", "sitkInt64")


def test_nrrd_and_metaimage(tmp_path):
    for name, axes in ORIENTATIONS.items():
        phantom = Phantom(affine_of(axes))
        image = sitk.GetImageFromArray(phantom.array.T)
        image.SetSpacing(np.diag(SPACING).tolist())
        image.SetDirection((LPS @ axes).ravel().tolist())
        image.SetOrigin((LPS @ phantom.affine[:3, 3]).tolist())
        for kind in ("sitkInt16", "sitkUInt16", "sitkFloat32", "sitkFloat64", "sitkInt64")[
            : 5 if name == "oblique" else 1
        ]:
            for suffix in (".nrrd", ".nhdr", ".mha", ".mhd"):
                for compressed in (False, True):
                    path = tmp_path / f"a{suffix}"
                    sitk.WriteImage(sitk.Cast(image, getattr(sitk, kind)), str(path), compressed)
                    check(path, phantom, f"{name} {kind} {suffix} {compressed}", is_written=not compressed)


def rewritten(folder, syntax):
    """Files of a series in another transfer syntax."""
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        elif syntax == ExplicitVRBigEndian:
            dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.is_little_endian = syntax != ExplicitVRBigEndian
        dataset.is_implicit_VR = syntax == ImplicitVRLittleEndian
        dataset.save_as(file, write_like_original=False)


def changed(folder, change):
    for number, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        change(dataset, number)
        dataset.save_as(file)


def unsigned_of_12_bits(dataset, _):
    dataset.PixelData = (dataset.pixel_array + 1024).astype("<u2").tobytes()
    dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 12, 11
    dataset.RescaleIntercept = -1024


def slope_of_its_own(dataset, number):
    slope = 1 + number % 4
    dataset.PixelData = (dataset.pixel_array // slope).astype("<i2").tobytes()
    dataset.RescaleSlope = slope


def without(*names):
    def change(dataset, _):
        for name in names:
            dataset.pop(name, None)

    return change


CHANGES = {
    "12 bits": unsigned_of_12_bits,
    "slope of its own": slope_of_its_own,
    "no instance number": without("InstanceNumber"),
    "no thickness": without("SliceThickness", "SpacingBetweenSlices"),
    "no frame of reference": without("FrameOfReferenceUID", "PatientPosition"),
    "no rescaling": without("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "no modality": without("Modality", "ImageType"),
    "rounded positions": lambda dataset, _: setattr(
        dataset, "ImagePositionPatient", [round(float(value), 2) for value in dataset.ImagePositionPatient]
    ),
    "wrong thickness": lambda dataset, _: setattr(dataset, "SliceThickness", 9),
    "window of nothing": lambda dataset, _: dataset.update({"WindowCenter": 9e4, "WindowWidth": 1}),
}


def test_dicom(tmp_path):
    for name, axes in ORIENTATIONS.items():
        for instances in ("ascending", "descending"):
            phantom = Phantom(affine_of(axes))
            series = write_series(
                tmp_path / name / instances, phantom.array, phantom.affine, instances=instances
            )
            check(tmp_path / name / instances, phantom, f"{name} {instances}")
        many_frames(sorted(series.files), tmp_path / "enhanced.dcm")
        check(tmp_path / "enhanced.dcm", phantom, f"{name} enhanced")
    phantom = Phantom(affine_of(ORIENTATIONS["oblique"]))
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless):
        folder = tmp_path / syntax
        write_series(folder, phantom.array, phantom.affine)
        rewritten(folder, syntax)
        check(folder, phantom, syntax.name, is_written=False)
    for name, change in CHANGES.items():
        folder = tmp_path / name
        write_series(folder, phantom.array, phantom.affine)
        changed(folder, change)
        check(folder, phantom, name, is_written=False)
    for file in list(folder.iterdir()):
        file.rename(file.with_name(f"IM{file.stem[-4:]}"))
    check(folder, phantom, "no suffix")


def test_a_tilted_gantry(tmp_path):
    for degrees in (3, 10, 25):
        phantom = Phantom(affine_of(ORIENTATIONS["LPS"]))
        phantom.affine[1, 2] = -3 * np.tan(np.deg2rad(degrees))
        phantom = Phantom(phantom.affine)
        folder = tmp_path / str(degrees)
        straight = affine_of(ORIENTATIONS["LPS"])
        write_series(folder, phantom.array, straight)

        def shift(dataset, number, affine=phantom.affine):
            dataset.ImagePositionPatient = [
                round(value, 6) for value in LPS @ (affine @ [0, 0, number, 1])[:3]
            ]

        changed(folder, shift)
        check(folder, phantom, f"{degrees} degrees", is_written=False)
