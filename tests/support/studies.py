"""A datastore folder of phantoms, good and bad, as a person's folder of images would be."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from PIL import Image

from tests.support import phantoms
from tests.support.phantoms import Phantom

# Between the largest good phantom (96 x 80 x 24 = 184320 voxels) and the image that is meant to be refused.
MAX_VOXELS = 250_000
# RAS, as nibabel has it, to LPS, as ITK has it.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])

GOOD: dict[str, Phantom] = {
    "ct": phantoms.ct(),
    "lung": phantoms.lung(),
    "mr": phantoms.mr(),
    "grey": phantoms.grey_picture(),
    "tiny": phantoms.grey_picture(30, 20, seed=6),
    "colour": phantoms.colour_picture(),
}
# The same images in another file type, or by way of a link.
SAME_AS = {"ct_nrrd": "ct", "ct_linked": "ct"}


def phantom(image_id: str) -> Phantom:
    """The phantom behind an image id of the datastore."""
    return GOOD[SAME_AS.get(image_id, image_id)]


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Writes ``array`` [i, j, k(, t)] as it is."""
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Writes ``array`` [i, j, k] with the geometry of a RAS ``affine``."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    matrix = _RAS_TO_LPS @ affine[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection([float(v) for v in (matrix / spacing).ravel()])
    image.SetOrigin([float(v) for v in _RAS_TO_LPS @ affine[:3, 3]])
    sitk.WriteImage(image, str(path))
    return path


def write_picture(path: Path, array: np.ndarray, **options: object) -> Path:
    """Writes ``array`` [x, y, 0] or [x, y, 0, rgb] in the type of the path's ending."""
    pixels = array[:, :, 0]
    Image.fromarray(np.ascontiguousarray(np.swapaxes(pixels, 0, 1))).save(path, **options)
    return path


def write_datastore(folder: Path, outside: Path) -> Path:
    """Writes the good and the bad images into ``folder``; what a link points at goes to ``outside``."""
    folder.mkdir(parents=True, exist_ok=True)
    outside.mkdir(parents=True, exist_ok=True)
    for name in ("ct", "lung", "mr"):
        write_nifti(folder / f"{name}.nii.gz", GOOD[name].image, GOOD[name].affine)
    write_nrrd(folder / "ct_nrrd.nrrd", GOOD["ct"].image, GOOD["ct"].affine)
    target = write_nifti(outside / "ct_linked.nii.gz", GOOD["ct"].image, GOOD["ct"].affine)
    (folder / "ct_linked.nii.gz").symlink_to(target)
    write_picture(folder / "grey.png", GOOD["grey"].image)
    write_picture(folder / "colour.png", GOOD["colour"].image)
    write_picture(folder / "tiny.jpg", GOOD["tiny"].image, quality=92)
    write_bad_images(folder)
    return folder


def write_bad_images(folder: Path) -> None:
    """One file for each way in which an image can be unusable."""
    nan = np.linspace(0, 1, 20 * 18 * 6, dtype=np.float32).reshape(20, 18, 6)
    nan[3, 4, 2:4] = np.nan
    write_nifti(folder / "nan.nii.gz", nan, np.eye(4))
    whole = write_nifti(folder / "truncated.nii.gz", GOOD["mr"].image, np.eye(4))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "garbage.nii.gz").write_bytes(gzip.compress(b"this is no image " * 200))
    (folder / "garbage_picture.png").write_bytes(b"\x89PNG\r\n\x1a\nthis is no picture")
    (folder / "empty.nrrd").write_bytes(b"")
    write_nifti(
        folder / "four_d.nii.gz", np.arange(16 * 14 * 5 * 3, dtype=np.int16).reshape(16, 14, 5, 3), np.eye(4)
    )
    write_nifti(folder / "large.nii.gz", np.zeros((70, 70, 70), np.uint8), np.eye(4))


def tree_digest(folder: Path) -> dict[str, str]:
    """Relative path to digest of content, for every file below ``folder``."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
