"""The ways in which public datasets keep their truth, each read onto the grid of its image."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from lib.errors import LabelError
from lib.evaluation.cases import MAX_VOXELS, Scene
from lib.evaluation.clips import FilmFrames, clip_scene
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image
from lib.labels.label_map import LabelMap
from lib.labels.reading import read_labels

Colour = tuple[int, int, int]
Tracing = Mapping[int, NDArray[np.float64]]


def read_classes(path: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """Whole numbers, one for each class.

    Raises:
        LabelError: it cannot be read, or does not fit.
    """
    found = read_labels(path, image)
    return LabelMap(found.array, {value: classes.get(value, name) for value, name in found.names.items()})


def read_instances(path: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """Whole numbers, one for each object of the only class.

    Raises:
        LabelError: it cannot be read, or does not fit.
    """
    found = read_labels(path, image)
    (name,) = classes.values()
    return LabelMap(found.array, dict.fromkeys(found.names, name))


def read_colours(path: Path, image: MedicalImage, colours: Mapping[str, Colour]) -> LabelMap:
    """A picture with one colour for each class; all others are background.

    Raises:
        LabelError: it is of another size than the image.
    """
    array = _picture(path, image)
    labels = np.zeros(image.shape, np.uint8)
    for value, colour in enumerate(colours.values(), start=1):
        labels[(array == np.array(colour)).all(axis=-1)] = value
    return LabelMap(labels, dict(enumerate(colours, start=1)))


def read_class_folders(folder: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """A folder for each instrument, with a mask of the image's name in it.

    A folder belongs to the class whose name is part of its own: ``Left_Prograsp_Forceps_labels`` to
    ``Prograsp Forceps``; other folders are left out.

    Raises:
        LabelError: no folder belongs to a class, or a mask is of another size than the image.
    """
    labels = np.zeros(image.shape, np.uint8)
    masks = list(_class_masks(folder, image.path.name, classes))
    if not masks:
        raise LabelError(f"{folder.name} has no mask {image.path.name} in a folder of any class")
    for value, path in masks:
        labels[_picture(path, image).any(axis=-1)] = value
    return LabelMap(labels, dict(classes))


def read_tracings(path: Path) -> dict[str, Tracing]:
    """EchoNet-Dynamic's ``VolumeTracings.csv``: by video and frame, lines across the ventricle.

    Returns:
        By the video's name without its ending, by frame: (N, 4) with x1, y1, x2, y2 of each line. The first
        one is the long axis.

    Raises:
        LabelError: its columns are others.
    """
    lines: dict[str, dict[int, list[list[float]]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                line = [float(row[name]) for name in ("X1", "Y1", "X2", "Y2")]
                video = lines.setdefault(Path(row["FileName"]).stem, {})
                video.setdefault(int(row["Frame"]), []).append(line)
            except (KeyError, TypeError, ValueError) as error:
                raise LabelError(
                    f"line {number} of {path.name} cannot be read: it needs FileName, X1, Y1, X2, Y2, Frame"
                ) from error
    return {
        name: {frame: np.array(found) for frame, found in frames.items()} for name, frames in lines.items()
    }


def open_traced(video: Path, tracing: Tracing, classes: Mapping[int, str], axis: int) -> Scene:
    """Opens a video whose truth are tracings.

    Raises:
        ImageError: it cannot be decoded.
        LabelError: a tracing lies beyond its last frame.
    """
    frames = FilmFrames(video)
    if max(tracing) >= len(frames):
        raise LabelError(f"{video.name} has {len(frames)} frames and a tracing on frame {max(tracing)}")
    annotated = sorted(tracing)
    truth = [traced_mask(tracing[index], frames.height, frames.width) for index in annotated]
    return clip_scene(frames, annotated, truth, classes)


def traced_mask(lines: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """The area that lines across an object span: down their first ends and up their second.

    As EchoNet-Dynamic's own program fills it: without the first line, on rounded pixels.

    Args:
        lines: (N, 4), x1, y1, x2, y2 in pixels.
        height: of the frame.
        width: of the frame.

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
    """(I, J, K, channels) of the image's size."""
    found = read_image(path, MAX_VOXELS)
    if found.shape != image.shape:
        raise LabelError(
            f"{path.name} has {found.shape[:2]} pixels and its image {image.shape[:2]}: export it again"
        )
    return found.array if found.is_rgb else found.array[..., None]
