"""Labelled images of a simulation: units of the pool (images or slices of volumes), and the test set."""

from __future__ import annotations

import fnmatch
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lib.errors import BioSam2Error, EvaluationError
from lib.evaluation.active_learning.options import Unit
from lib.evaluation.datastore import LABELS, stem
from lib.settings import Settings
from lib.trainers.frames import LabelledFrames, LabelledImage, prepare_frames
from lib.trainers.sampler import visible_objects

logger = logging.getLogger(__name__)

# The test set is the same for all seeds, strategies and runs.
_SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class SliceUnit(LabelledFrames):
    """One slice of a volume as an image.

    Attributes:
        place: Index of the slice among the volume's frames.
    """

    place: int = 0

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The slice, uint8 (H, W, 3)."""
        return super().__getitem__(self.place)

    def mask(self, index: int, value: int) -> NDArray[np.bool_]:
        """Mask of an object on the slice, (H, W)."""
        return super().mask(self.place, value)


@dataclass(frozen=True)
class SimulationData:
    """The images of a simulation.

    Attributes:
        pool: Units to label, by id.
        test: Whole images of the test set, by id.
        left_out: Reason by id of each image that could not be used.
    """

    pool: tuple[LabelledFrames, ...]
    test: tuple[LabelledFrames, ...]
    left_out: dict[str, str]


def open_data(data: Path, frames: Path, unit: Unit, test: str, image_size: int) -> SimulationData:
    """Opens every labelled image of a datastore and splits them into pool and test set.

    Units whose objects are too small for the network's input are left out.

    Args:
        data: Folder of the datastore.
        frames: Folder for the prepared frames.
        unit: Unit of the pool.
        test: Share of the images, or pattern of their names.
        image_size: Side of the network's input in pixels.

    Raises:
        EvaluationError: the pool has fewer than two units, or the test set no image.
    """
    images, left_out = _open_images(data, frames)
    measured = choose_test([image.id for image in images], test)
    pool = [part for image in images if image.id not in measured for part in _units(image, unit)]
    parts = SimulationData(
        tuple(part for part in pool if _is_visible(part, image_size)),
        tuple(image for image in images if image.id in measured and _is_visible(image, image_size)),
        left_out,
    )
    if len(parts.pool) < 2 or not parts.test:
        raise EvaluationError(
            f"{data} has {len(parts.pool)} {unit}(s) to label and {len(parts.test)} image(s) to test, but 2 "
            f"and 1 are needed: label more images, or choose another --test than {test!r}"
        )
    return parts


def choose_test(names: Sequence[str], test: str) -> set[str]:
    """The images of the test set.

    Args:
        names: Names of all images.
        test: A share of them (at least one image), or a file name pattern such as ``test*``.

    Raises:
        EvaluationError: a share is not between 0 and 1.
    """
    try:
        share = float(test)
    except ValueError:
        return set(fnmatch.filter(names, test))
    if not 0 < share < 1:
        raise EvaluationError(f"--test {test} must be a share between 0 and 1, or a pattern such as 'test*'")
    order = np.random.default_rng(_SPLIT_SEED).permutation(sorted(names))
    return set(order[: math.ceil(share * len(names))].tolist())


def _open_images(data: Path, frames: Path) -> tuple[list[LabelledFrames], dict[str, str]]:
    found, left_out = [], {}
    for case in tqdm(_cases(data), desc="Opening labelled images", disable=None):
        try:
            found.append(prepare_frames(case, frames, Settings().max_voxels))
        except BioSam2Error as error:
            logger.warning("Left out: %s: %s", case.id, error)
            left_out[case.id] = str(error)
    return found, left_out


def _cases(data: Path) -> list[LabelledImage]:
    images = {stem(path): path for path in sorted(data.iterdir()) if path.is_file()}
    labels = sorted((path for path in (data / LABELS).glob("[!.]*") if path.is_file()), key=stem)
    return [LabelledImage(stem(path), images[stem(path)], path) for path in labels if stem(path) in images]


def _units(image: LabelledFrames, unit: Unit) -> list[LabelledFrames]:
    if unit == "image":
        return [image]
    return [
        SliceUnit(
            id=f"{image.id}#{place:03}",
            digest=f"{image.digest}#{place}",
            height=image.height,
            width=image.width,
            spacing=image.spacing,
            objects=(objects,),
            names=image.names,
            folder=image.folder,
            place=place,
        )
        for place, objects in enumerate(image.objects)
    ]


def _is_visible(image: LabelledFrames, image_size: int) -> bool:
    return any(visible_objects(image, index, image_size) for index in range(len(image)))
