"""Readers for the ground truth formats of public datasets, each onto the grid of its image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas
from numpy.typing import NDArray
from skimage.draw import polygon

from lib.errors import LabelError
from lib.evaluation.cases import MAX_VOXELS, LabelledSequence
from lib.evaluation.clips import FilmFrames, clip_sequence
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image
from lib.labels.label_map import LabelMap
from lib.labels.reading import read_labels

Colour = tuple[int, int, int]
Tracing = Mapping[int, NDArray[np.float64]]


def read_classes(path: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """Reads a label map with one value per class.

    Raises:
        LabelError: it cannot be read, or has another grid than the image.
    """
    found = read_labels(path, image)
    return LabelMap(found.array, {value: classes.get(value, name) for value, name in found.names.items()})


def read_instances(path: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """Reads a label map with one value per object of a single class.

    Raises:
        LabelError: it cannot be read, or has another grid than the image.
    """
    found = read_labels(path, image)
    (name,) = classes.values()
    return LabelMap(found.array, dict.fromkeys(found.names, name))


def read_colours(path: Path, image: MedicalImage, colours: Mapping[str, Colour]) -> LabelMap:
    """Reads a picture with one colour per class; other colours are background.

    Raises:
        LabelError: its size differs from the image.
    """
    array = _picture(path, image)
    labels = np.zeros(image.shape, np.uint8)
    for value, colour in enumerate(colours.values(), start=1):
        labels[(array == np.array(colour)).all(axis=-1)] = value
    return LabelMap(labels, dict(enumerate(colours, start=1)))


def read_class_folders(folder: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """Reads one folder per instrument, each with a mask named like the image.

    A folder belongs to the class whose name it contains: ``Left_Prograsp_Forceps_labels`` to ``Prograsp
    Forceps``. Other folders are ignored.

    Raises:
        LabelError: no folder belongs to a class, or a mask's size differs from the image.
    """
    labels = np.zeros(image.shape, np.uint8)
    masks = list(_class_masks(folder, image.path.name, classes))
    if not masks:
        raise LabelError(f"{folder.name} has no mask {image.path.name} in a folder named after a class")
    for value, path in masks:
        labels[_picture(path, image).any(axis=-1)] = value
    return LabelMap(labels, dict(classes))


def read_tracings(path: Path) -> dict[str, Tracing]:
    """Reads EchoNet-Dynamic's ``VolumeTracings.csv``: lines across the ventricle.

    Returns:
        Lines (N, 4) as x1, y1, x2, y2 by frame, by video name without extension. The first line is the long
        axis.

    Raises:
        LabelError: a column is missing or a value is not a number.
    """
    columns = ["X1", "Y1", "X2", "Y2"]
    try:
        table = pandas.read_csv(path).astype(dict.fromkeys(columns, float) | {"Frame": int})
        videos = table.groupby([table["FileName"].map(lambda name: Path(name).stem), "Frame"], sort=False)
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path.name} cannot be read: it needs numbers in FileName, X1, Y1, X2, Y2, Frame ({error})"
        ) from error
    found: dict[str, dict[int, NDArray[np.float64]]] = {}
    for (video, frame), lines in videos:
        found.setdefault(video, {})[int(frame)] = lines[columns].to_numpy()
    return dict(found)


def open_traced(video: Path, tracing: Tracing, classes: Mapping[int, str], axis: int) -> LabelledSequence:
    """Opens a video with tracings as ground truth.

    Raises:
        ImageError: the video cannot be decoded.
        LabelError: a tracing lies beyond the last frame.
    """
    frames = FilmFrames(video)
    if max(tracing) >= len(frames):
        raise LabelError(f"{video.name} has {len(frames)} frames and a tracing on frame {max(tracing)}")
    annotated = sorted(tracing)
    truth = [traced_mask(tracing[index], frames.height, frames.width) for index in annotated]
    return clip_sequence(frames, annotated, truth, classes)


def traced_mask(lines: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """The area between the ends of lines across an object.

    Filled as in EchoNet-Dynamic's program: without the first line, on rounded pixels.

    Args:
        lines: (N, 4), x1, y1, x2, y2 in pixels.
        height: Frame height in pixels.
        width: Frame width in pixels.

    Returns:
        (H, W), 1 inside.
    """
    corners = np.rint(np.concatenate([lines[1:, :2], lines[:0:-1, 2:]])).astype(int)
    mask = np.zeros((height, width), np.uint8)
    mask[polygon(corners[:, 1], corners[:, 0], mask.shape)] = 1
    return mask


def _class_masks(folder: Path, name: str, classes: Mapping[int, str]) -> Iterator[tuple[int, Path]]:
    inside: Sequence[Path] = sorted(folder.iterdir()) if folder.is_dir() else []
    for place in inside:
        for value, label in classes.items():
            if label.replace(" ", "_") in place.name and (place / name).is_file():
                yield value, place / name


def _picture(path: Path, image: MedicalImage) -> NDArray:
    """Picture (I, J, K, channels) with the image's size."""
    found = read_image(path, MAX_VOXELS)
    if found.shape != image.shape:
        raise LabelError(
            f"{path.name} has {found.shape[:2]} pixels and its image {image.shape[:2]}: export it again"
        )
    return found.array if found.is_rgb else found.array[..., None]
