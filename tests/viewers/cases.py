"""The series that the tests look at: which way they lie, how their slices are numbered, and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sample_study.dicom import Series, write_series
from tests.support import phantoms
from tests.support.phantoms import Phantom

# OHIF sorts slices by itself, scanners number them either way, and few lie straight.
NAMES = ("top_first", "bottom_first", "oblique_ct", "oblique_mr")


@dataclass(frozen=True)
class Case:
    """A series in the store, and what is on it.

    Attributes:
        name: the Patient ID as well.
        phantom: image and truth; its slices rise along their normal, as OHIF and the server order them.
        series: the files.
        label: the object that a test clicks on.
    """

    name: str
    phantom: Phantom
    series: Series
    label: str

    @property
    def truth(self) -> np.ndarray:
        """Where that object is, bool ``[i, j, k]``."""
        return self.phantom.objects[self.label]


def write_cases(folder: Path) -> dict[str, Case]:
    """Writes every series into a folder of its own below ``folder``."""
    ct, mr = phantoms.ct(), phantoms.mr()
    turned = Phantom(ct.image, _turn(20.0, 12.0) @ ct.affine, ct.objects)
    return {
        "top_first": _write(folder, "top_first", ct, "lesion", instances="descending"),
        "bottom_first": _write(folder, "bottom_first", ct, "lesion"),
        "oblique_ct": _write(folder, "oblique_ct", turned, "organ"),
        "oblique_mr": _write(folder, "oblique_mr", mr, "tumour", modality="MR", window=(1000, 2000)),
    }


def _write(folder: Path, name: str, phantom: Phantom, label: str, **options: object) -> Case:
    options = {"window": (40.0, 600.0), "patient": name, "description": name, **options}
    series = write_series(folder / name, phantom.image, phantom.affine, **options)  # type: ignore[arg-type]
    return Case(name, phantom, series, label)


def _turn(first: float, second: float) -> np.ndarray:
    """A turn by ``first`` degrees about x and then ``second`` about z, ``(4, 4)``."""
    a, b = np.deg2rad([first, second])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    turned = np.eye(4)
    turned[:3, :3] = about_z @ about_x
    return turned
