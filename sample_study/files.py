"""The study on disk: a datastore folder, and the ground truth in a folder beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from sample_study.abdomen import abdomen
from sample_study.case import Case
from sample_study.cells import cells
from sample_study.head import head

SEED = 7


def truth_folder(study: Path) -> Path:
    """Folder of the ground truth: beside the study, so that the datastore has no label."""
    return study.with_name(f"{study.name}_truth")


def make_cases(seed: int = SEED) -> list[Case]:
    """Draws every image, each with its own random generator."""
    drawers = (abdomen, head, cells)
    return [draw(np.random.default_rng([seed, index])) for index, draw in enumerate(drawers)]


def write_study(study: Path, seed: int = SEED) -> list[Path]:
    """Writes the images and their ground truth; labels saved in the study are kept.

    Returns:
        The image files.
    """
    truth = truth_folder(study)
    for folder in (study, truth):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for case in make_cases(seed):
        written.append(_write(study, case, case.image))
        _write(truth, case, case.truth)
        (truth / f"{case.name}.json").write_text(json.dumps({"labels": case.labels}, indent=1) + "\n")
    return written


def read_cases(study: Path) -> Iterator[Case]:
    """Reads the images of ``write_study``.

    Raises:
        FileNotFoundError: the study was not written yet.
    """
    descriptions = sorted(truth_folder(study).glob("*.json"))
    if not descriptions:
        raise FileNotFoundError(
            f"No sample study in {study}: create it with `python -m sample_study --output {study}`"
        )
    for description in descriptions:
        labels = json.loads(description.read_text())["labels"]
        image, affine = _read(study, description.stem)
        truth, _ = _read(truth_folder(study), description.stem)
        yield Case(description.stem, image, truth, labels, affine)


def _write(folder: Path, case: Case, array: np.ndarray) -> Path:
    if case.affine is None:
        path = folder / f"{case.name}.png"
        Image.fromarray(array.swapaxes(0, 1)).save(path)
        return path
    path = folder / f"{case.name}.nii.gz"
    volume = nib.Nifti1Image(array, case.affine)
    volume.header.set_xyzt_units("mm")
    nib.save(volume, path)
    return path


def _read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    picture = folder / f"{name}.png"
    if picture.exists():
        with Image.open(picture) as image:
            return np.asarray(image).swapaxes(0, 1), None
    volume = nib.Nifti1Image.from_filename(folder / f"{name}.nii.gz")
    return np.asarray(volume.dataobj), volume.affine
