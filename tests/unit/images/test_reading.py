"""Opening files: the right reader, the size before the voxels, and a reason for whatever cannot be read."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from lib.errors import ImageError, ImageNotFoundError, ImageTooLargeError
from lib.images.reading import MedicalImage, read_image

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
