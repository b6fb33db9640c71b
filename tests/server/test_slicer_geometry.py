"""3D Slicer places an answer by its header alone: physical points of masks against those of the objects."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monailabel.client import MONAILabelClient

from tests.support import phantoms
from tests.support.client import Client
from tests.support.phantoms import FROM_BOX, FROM_CLICK, THROUGH_VOLUME, dice
from tests.support.slicer import EXTRA, points_of, roi_of, slicer_client
from tests.support.studies import write_nifti, write_nrrd

# The lesion of the CT and a few slices more, so that it lies off the middle along every axis.
SLICES = slice(3, 16)
CT = phantoms.ct()
IMAGE, LESION = CT.image[:, :, SLICES], CT.objects["lesion"][:, :, SLICES]


def _turned(degrees: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """Slices tilted about two axes, as a gantry or a head are."""
    a, b = np.deg2rad([degrees, degrees / 2])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_z @ about_x @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(spacing)


def _axes(*columns: tuple[float, float, float]) -> np.ndarray:
    return np.array(columns, dtype=float).T


# Where i, j and k lead, in millimetres of RAS.
MATRICES = {
    "LPS": np.diag([-1.0, -1.0, 4.0]),
    "RAS": np.diag([1.0, 1.0, 4.0]),
    "anisotropic": np.diag([-0.4, -1.3, 9.0]),
    "slices from above": np.diag([-1.0, -1.0, -4.0]),
    "mirrored": np.diag([1.0, -1.0, 4.0]),
    "oblique": _turned(25, (0.8, 0.9, 3.0)),
    "oblique by much": _turned(40, (0.8, 0.9, 3.0)),
    "sagittal": _axes((0, -0.9, 0), (0, 0, -0.9), (3.5, 0, 0)),
    "coronal": _axes((-0.9, 0, 0), (0, 0, -0.9), (0, -3.5, 0)),
}


@pytest.fixture
def slicer(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MONAILabelClient:
    return slicer_client(client.url, tmp_path, monkeypatch)


@pytest.fixture(params=MATRICES)
def placed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, sitk.Image]:
    """The image as a file, and the truth as SimpleITK places it."""
    affine = np.eye(4)
    affine[:3, :3] = MATRICES[request.param]
    affine[:3, 3] = [13.0, -47.0, 91.0]
    truth = sitk.ReadImage(str(write_nrrd(tmp_path / "truth.nrrd", LESION.astype(np.uint8), affine)))
    return write_nifti(tmp_path / "volume.nii.gz", IMAGE, affine), truth


@pytest.fixture
def registered(tmp_path: Path) -> Path:
    """The image where the scanner put it, as its qform says, and turned to another image by its sform."""
    scanned, turned = np.eye(4), np.eye(4)
    scanned[:3, :3], turned[:3, :3] = MATRICES["LPS"], MATRICES["oblique by much"]
    file = nib.Nifti1Image(IMAGE, None)
    file.set_qform(scanned, code=1)
    file.set_sform(turned, code=2)
    nib.save(file, tmp_path / "registered.nii.gz")
    return tmp_path / "registered.nii.gz"


def _ask(slicer: MONAILabelClient, model: str, file: Path, **params: object) -> sitk.Image:
    path, _ = slicer.infer(model, "", {**EXTRA, "label": "lesion", **params}, file=str(file))
    return sitk.ReadImage(path)


def _click(truth: sitk.Image) -> list[int]:
    """Where a person sees the object's middle, turned into an index as the extension does."""
    middle = points_of(truth).mean(axis=0)
    return list(truth.TransformPhysicalPointToIndex([float(value) for value in middle]))


def test_a_mask_lies_in_space_where_its_object_is(
    slicer: MONAILabelClient, placed: tuple[Path, sitk.Image]
) -> None:
    file, truth = placed
    click = _click(truth)
    mask = _ask(slicer, "biosam2_propagate", file, foreground=[click], background=[])
    apart = points_of(mask).mean(axis=0) - points_of(truth).mean(axis=0)
    assert np.linalg.norm(apart) < min(truth.GetSpacing()) + 0.2 * max(truth.GetSpacing())
    # Onto the object's own grid by positions, whatever the order of the voxels in the two files.
    there = sitk.Resample(mask, truth, sitk.Transform(), sitk.sitkNearestNeighbor)
    found = sitk.GetArrayFromImage(there)
    assert dice(found, sitk.GetArrayFromImage(truth)) > THROUGH_VOLUME
    assert found.sum() == sitk.GetArrayViewFromImage(mask).sum()


def test_the_corners_of_the_answer_are_those_of_the_image(
    slicer: MONAILabelClient, placed: tuple[Path, sitk.Image]
) -> None:
    file, truth = placed
    mask = _ask(slicer, "biosam2_point", file, foreground=[_click(truth)], background=[])
    last = [side - 1 for side in truth.GetSize()]
    assert mask.GetSize() == truth.GetSize()
    for i in (0, last[0]):
        for j in (0, last[1]):
            for k in (0, last[2]):
                corner = truth.TransformIndexToPhysicalPoint((i, j, k))
                np.testing.assert_allclose(mask.TransformIndexToPhysicalPoint((i, j, k)), corner, atol=1e-2)


def test_a_click_and_a_roi_in_2d(slicer: MONAILabelClient, placed: tuple[Path, sitk.Image]) -> None:
    file, truth = placed
    click = _click(truth)
    k = click[2]
    mask = _ask(slicer, "biosam2_point", file, foreground=[click], background=[], slice=k)
    found = sitk.GetArrayFromImage(mask)
    assert set(np.nonzero(found)[0]) == {k}
    assert dice(found[k], LESION[:, :, k].T) > FROM_CLICK
    roi = roi_of(truth, [*CT.roi("lesion")[:4], k, k])
    # Without a point, the slice is the view's offset in millimetres.
    offset = round(abs(truth.TransformIndexToPhysicalPoint(click)[2]))
    mask = _ask(slicer, "biosam2_box", file, foreground=[], background=[], roi=roi, slice=offset)
    found = sitk.GetArrayFromImage(mask)
    assert set(np.nonzero(found)[0]) == {k}
    assert dice(found[k], LESION[:, :, k].T) > FROM_BOX


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".mha"])
def test_a_mask_of_a_registered_image_lies_where_slicer_shows_the_image(
    slicer: MONAILabelClient, registered: Path, extension: str
) -> None:
    shown = sitk.ReadImage(str(registered))
    truth = sitk.GetImageFromArray(LESION.astype(np.uint8).T)
    truth.CopyInformation(shown)
    asked = {"foreground": [_click(truth)], "background": [], "result_extension": extension}
    mask = _ask(slicer, "biosam2_propagate", registered, **asked)
    there = sitk.Resample(mask, shown, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert dice(sitk.GetArrayFromImage(there), sitk.GetArrayFromImage(truth)) > THROUGH_VOLUME
