import io

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from requests_toolbelt import MultipartEncoder

from benchmarks.client import InferenceError, Viewer, parse_answer, read_mask


@pytest.fixture
def mask():
    """Off the diagonal, so that swapped axes show: [i, j, k] of 5 x 4 x 3."""
    mask = np.zeros((5, 4, 3), np.uint8)
    mask[4, 1, 2] = mask[3, 0, 0] = 1
    return mask


def _nrrd(mask, folder):
    path = folder / "x.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(mask.T), str(path))
    return path.read_bytes()


def test_nrrd_comes_back_as_ijk(mask, tmp_path):
    assert np.array_equal(read_mask(_nrrd(mask, tmp_path), "x.nrrd"), mask > 0)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_comes_back_as_ijk(mask, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), path)
    assert np.array_equal(read_mask(path.read_bytes(), path.name), mask > 0)


def test_png_comes_back_as_xy():
    pixels = np.zeros((4, 6), np.uint8)
    pixels[1, 5] = 255
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    assert np.argwhere(read_mask(content.getvalue(), "x.png")).tolist() == [[5, 1]]


def test_answer_is_split_into_file_and_params():
    body = b"\x00binary\r\n--not the boundary\xff"
    encoder = MultipartEncoder(
        fields={
            "params": (None, '{"score": 0.5}', "application/json"),
            "image": ("mask.nrrd", body, "application/octet-stream"),
        }
    )
    answer = parse_answer(encoder.to_string(), encoder.content_type, 1.5)
    assert (answer.params, answer.file_name, answer.content) == ({"score": 0.5}, "mask.nrrd", body)
    assert answer.seconds == 1.5


def test_answer_without_a_file_is_an_error():
    with pytest.raises(InferenceError, match="no file in an answer of type application/json"):
        parse_answer(b"{}", "application/json")


def test_an_error_of_the_server_carries_its_reason(monkeypatch):
    class Response:
        status_code, content, text = 400, b"", "point outside"

    viewer = Viewer("http://nowhere")
    monkeypatch.setattr(viewer._session, "post", lambda *args, **kwargs: Response())
    with pytest.raises(InferenceError, match="sam_2d on ct: 400 point outside"):
        viewer.infer("sam_2d", "ct", {})
