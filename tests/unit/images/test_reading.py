"""Opening files: the right reader, the size before the voxels, and a reason for whatever cannot be read."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lib.errors import ImageError, ImageNotFoundError, ImageTooLargeError
from lib.images.reading import MedicalImage, read_image
from lib.images.writing import write_mask
from sample_study.dicom import write_series
from tests.unit.conftest import many_frames

MANY = 10**9


def nifti(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def test_a_marked_voxel_is_at_the_same_place_in_every_format(tmp_path, affine):
    for suffix in [".nii", ".nii.gz", ".nrrd", ".mha"]:
        array = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
        source = nifti(tmp_path / "source.nii", array, affine)
        path = tmp_path / f"copy{suffix}"
        sitk.WriteImage(sitk.ReadImage(str(source)), str(path))

        image = read_image(path, MANY)

        assert isinstance(image, MedicalImage)
        assert np.array_equal(image.array, array)
        assert image.array.dtype == np.int16
        itk = sitk.ReadImage(str(path))
        for index in [(0, 0, 0), (4, 0, 0), (0, 5, 0), (0, 0, 6), (3, 1, 2)]:
            left, back, up = itk.TransformIndexToPhysicalPoint(index)
            assert image.affine @ [*index, 1] == pytest.approx([-left, -back, up, 1], abs=1e-4)
            assert image.array[index] == itk[index]


def test_equal_contents_have_one_digest_wherever_they_came_from(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nifti(tmp_path / "a.nii.gz", array)
    nifti(tmp_path / "b.nii", array, np.diag([2, 2, 2, 1.0]))
    sitk.WriteImage(sitk.GetImageFromArray(array.T), str(tmp_path / "c.nrrd"))
    digests = {read_image(tmp_path / name, MANY).digest for name in ("a.nii.gz", "b.nii", "c.nrrd")}
    assert len(digests) == 1
    changed = array.copy()
    changed[1, 2, 3] += 1
    assert read_image(nifti(tmp_path / "d.nii", changed), MANY).digest not in digests
    assert read_image(nifti(tmp_path / "e.nii", array.reshape(4, 3, 5)), MANY).digest not in digests


def test_an_image_is_read_only(tmp_path):
    image = read_image(nifti(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16)), MANY)
    with pytest.raises(ValueError, match="read-only"):
        image.array[0, 0, 0] = 1


@pytest.mark.parametrize("name", ["", "absent.nii.gz", "absent"])
def test_a_missing_file_is_not_found(tmp_path, name):
    with pytest.raises(ImageNotFoundError, match="there is no image"):
        read_image(tmp_path / name if name else "", MANY)


def test_an_empty_file_is_called_empty(tmp_path):
    for name in ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.png", "a.jpg", "a.tif", "a.dcm", "a"]:
        (tmp_path / name).touch()
        with pytest.raises(ImageError, match=r"is empty \(0 bytes\)"):
            read_image(tmp_path / name, MANY)


def test_a_file_of_other_bytes_cannot_be_read(tmp_path):
    for name in ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.png", "a.jpg", "a.tif", "a.bmp", "a.dcm"]:
        (tmp_path / name).write_bytes(b"this is no image at all, " * 40)
        with pytest.raises(ImageError, match=name) as raised:
            read_image(tmp_path / name, MANY)
        assert str(tmp_path) not in str(raised.value)


def test_a_file_that_is_cut_off_cannot_be_read(tmp_path):
    for suffix in [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif"]:
        for kept in [0.3, 0.6, 0.97]:
            rng = np.random.default_rng(0)
            path = tmp_path / f"a{suffix}"
            if suffix in (".png", ".tif"):
                Image.fromarray(rng.integers(0, 255, (60, 70)).astype(np.uint8)).save(path)
            else:
                itk = sitk.GetImageFromArray(rng.integers(-900, 900, (20, 30, 40)).astype(np.int16))
                sitk.WriteImage(itk, str(path), suffix == ".nrrd")
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * kept)])
            with pytest.raises(ImageError, match=f"a{suffix}"):
                read_image(path, MANY)


def test_a_flipped_bit_in_a_gzipped_volume_is_noticed(tmp_path):
    array = np.random.default_rng(0).integers(-900, 900, (20, 30, 40)).astype(np.int16)
    path = nifti(tmp_path / "a.nii.gz", array)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.nii\.gz"):
        read_image(path, MANY)


def test_nan_and_infinity_are_refused_with_their_number(tmp_path):
    for value, words in [(np.nan, "1 NaN and 0 infinite"), (np.inf, "0 NaN and 1 infinite")]:
        for suffix in [".nii.gz", ".nrrd", ".tif"]:
            array = np.zeros((3, 4, 5), np.float32)
            array[1, 1, 1] = value
            path = tmp_path / f"a{suffix}"
            if suffix == ".tif":
                Image.fromarray(array[1]).save(path)
            else:
                sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
            with pytest.raises(ImageError, match=words):
                read_image(path, MANY)


def test_four_axes_are_refused_in_words(tmp_path):
    array = np.zeros((4, 5, 6, 3), np.int16)
    nifti(tmp_path / "a.nii.gz", array)
    sitk.WriteImage(sitk.GetImageFromArray(array.T, isVector=False), str(tmp_path / "a.nrrd"))
    for name in ("a.nii.gz", "a.nrrd"):
        with pytest.raises(ImageError, match=r"4 axes \(4 x 5 x 6 x 3\).*one volume"):
            read_image(tmp_path / name, MANY)


def test_a_fourth_axis_of_one_is_none(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    nifti(tmp_path / "a.nii", array)
    sitk.WriteImage(sitk.GetImageFromArray(array.T, isVector=False), str(tmp_path / "a.nrrd"))
    for name in ("a.nii", "a.nrrd"):
        assert np.array_equal(read_image(tmp_path / name, MANY).array, array[..., 0])


def test_the_size_is_checked_before_the_voxels(tmp_path, ct_slice):
    for suffix in [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".dcm"]:
        path = tmp_path / f"a{suffix}"
        if suffix == ".dcm":
            ct_slice(path, np.zeros((40, 50)), 0)
        elif suffix == ".png":
            Image.new("L", (50, 40)).save(path)
        else:
            sitk.WriteImage(sitk.Image([50, 40, 1], sitk.sitkInt16), str(path))
        assert read_image(path, 2000).shape == (50, 40, 1)
        # Without its last bytes the file cannot be read, so the error shows that nothing tried to.
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ImageTooLargeError, match=r"50 x 40.* = 2000 voxels.* at most 1999.*max_voxels"):
            read_image(path, 1999)


def test_a_header_that_promises_too_much_is_refused_at_once(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((30000, 30000, 30000))
    header["magic"], header["vox_offset"] = header.single_magic, 352
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(ImageTooLargeError, match="27000000000000 voxels"):
        read_image(tmp_path / "a.nii", 512**3)


def test_a_whole_slide_is_refused_with_what_to_do_instead(tmp_path):
    (tmp_path / "a.SVS").write_bytes(b"Aperio")
    with pytest.raises(ImageError, match=r"a\.SVS is a whole slide.*submit the rectangle"):
        read_image(tmp_path / "a.SVS", 10)


@pytest.mark.parametrize("name", ["notes.txt", "noextension"])
def test_another_kind_of_file_is_named_with_what_can_be_opened(tmp_path, name):
    (tmp_path / name).write_text("text")
    with pytest.raises(ImageError, match=r"Unsupported file format of .* \(supported: \.nii, \.nii\.gz"):
        read_image(tmp_path / name, MANY)


def test_suffixes_may_be_in_capitals(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "A.PNG")
    assert read_image(str(tmp_path / "A.PNG"), MANY).shape == (3, 2, 1)


def test_the_window_of_a_converted_series_comes_from_the_series_beside_it(tmp_path, ct_slice):
    # MONAI Label's DICOMweb cache: <uid>/*.dcm beside <uid>.nii.gz. The uid has dots.
    folder = tmp_path / "1.2.826.0.1"
    folder.mkdir()
    ct_slice(folder / "x.dcm", np.zeros((4, 5)), 0, WindowCenter=[60, 300], WindowWidth=[360, 1500])
    path = nifti(tmp_path / "1.2.826.0.1.nii.gz", np.zeros((5, 4, 1), np.int16))
    image = read_image(path, MANY)
    assert (image.modality, image.dicom_window) == ("CT", (60 - 0.5 - 359 / 2, 60 - 0.5 + 359 / 2))
    assert image.window().source == "dicom"
    assert image.window([0, 1]).source == "request"


def test_a_folder_beside_without_dicom_changes_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.dcm").write_bytes(b"no")
    image = read_image(nifti(tmp_path / "a.nii.gz", np.zeros((5, 4, 1), np.int16)), MANY)
    assert (image.modality, image.dicom_window) == (None, None)


def test_real_images_open_with_the_window_that_suits_them(data):
    expected = {
        "ct/ts_abdomen_ct.nii.gz": "ct",
        "ct/dcmqi_liver_spine_3slices.nii.gz": "ct",
        "ct/deeplesion_000001_mediastinum.nii.gz": "levels",
        "mr/pyradiomics_brain1.nii.gz": "percentiles",
        "image2d/isbi_em_00.png": "levels",
        "dicom/dcmqi_ct": "dicom",
        "dicom/echo_a4c.dcm": "levels",
    }
    assert {name: read_image(data / name, MANY).window().source for name in expected} == expected


def test_a_real_series_and_its_conversion_are_one_image(data):
    series = read_image(data / "dicom" / "dcmqi_ct", MANY)
    volume = read_image(data / "ct" / "dcmqi_liver_spine_3slices.nii.gz", MANY)
    assert series.digest == volume.digest
    assert series.affine == pytest.approx(volume.affine, abs=1e-3)


# One object in every kind of file that people have: an ellipsoid in millimetres, so that the truth is a
# formula and no answer of a reader.
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


def check(path, phantom, name, is_written=True, extensions=(".nrrd", ".nii.gz", ".mha")):
    image = read_image(path, MANY)
    found = image.array > sum(LEVELS) / 2
    truth = inside(image.affine, image.shape, phantom.centre)
    assert truth.sum() > 300, name
    assert dice(found, truth) >= 0.99, name
    for extension in extensions if is_written else ():
        mask = write_mask(np.asfortranarray(found, np.uint8), image, extension)
        shown = sitk.ReadImage(str(mask))
        mask.unlink()
        lps = np.eye(4)
        lps[:3, :3] = np.reshape(shown.GetDirection(), (3, 3)) * shown.GetSpacing()
        lps[:3, 3] = shown.GetOrigin()
        where = inside(np.diag([-1, -1, 1, 1]) @ lps, shown.GetSize(), phantom.centre)
        assert dice(sitk.GetArrayFromImage(shown).T > 0, where) >= 0.99, f"{name}, mask as {extension}"


def test_an_object_lies_in_its_place_in_every_kind_of_nifti(tmp_path):
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


def test_an_object_lies_in_its_place_in_every_kind_of_nrrd_and_metaimage(tmp_path):
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


def test_an_object_lies_in_its_place_in_every_kind_of_dicom_series(tmp_path):
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


def test_an_object_lies_in_its_place_under_a_tilted_gantry(tmp_path):
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
        # ITK refuses a sheared NIfTI, and reads the others as they are.
        check(folder, phantom, f"{degrees} degrees", extensions=(".nrrd", ".seg.nrrd", ".mha"))
