"""Evaluation cases with ground truth on some or all frames: of a MONAI Label datastore, or clips."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.engine.frames import FrameSequence
from lib.errors import EvaluationError, ImageError, LabelError
from lib.images.file_formats import FORMATS, split_ending
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image
from lib.labels.reading import read_labels
from lib.labels.values import LabelMap, listed_label_info
from lib.settings import Settings
from lib.transforms.frames import FrameStack, frame_view, in_plane_axes, spacing
from lib.transforms.windowing import IntensityWindow

Kind = Literal["picture", "volume", "clip"]
ReadTruth = Callable[[Path, MedicalImage], LabelMap]

MAX_VOXELS = Settings().max_voxels


@dataclass(frozen=True, eq=False)
class LabelledSequence:
    """Frames and their ground truth.

    Attributes:
        kind: ``picture`` (one frame), ``volume`` (neighbouring slices) or ``clip`` (video frames).
        frames: All frames.
        content: Hash of frames and ground truth, part of the key of a result.
        annotated: Frames with ground truth, ascending; all frames of a volume.
        truth: Label map (H, W) per annotated frame; 0 is background, each other value one object.
        names: Class by object value.
        spacing: Millimetres between frames, rows and columns; 1 if unknown.
    """

    kind: Kind
    frames: FrameSequence
    content: str
    annotated: tuple[int, ...]
    truth: Sequence[NDArray[np.integer]]
    names: Mapping[int, str]
    spacing: tuple[float, float, float]

    @property
    def objects(self) -> tuple[int, ...]:
        """Object values, ascending."""
        return tuple(sorted({int(value) for frame in self.truth for value in np.unique(frame)} - {0}))

    def labels(self, index: int) -> NDArray[np.integer]:
        """Label map of an annotated frame, (H, W)."""
        return self.truth[self.annotated.index(index)]

    def mask(self, value: int, index: int) -> NDArray[np.bool_]:
        """Mask of an object on an annotated frame, (H, W)."""
        return self.labels(index) == value

    def visible(self, value: int) -> tuple[int, ...]:
        """Annotated frames with an object."""
        return tuple(
            index for index, frame in zip(self.annotated, self.truth, strict=True) if (frame == value).any()
        )


@dataclass(frozen=True, eq=False)
class EvaluationCase:
    """A case that can be opened.

    Attributes:
        id: Unique id in one evaluation.
        open: Function from the slice axis of volumes to the opened case. It raises ``LabelError`` or
            ``ImageError`` if the files cannot be used.
    """

    id: str
    open: Callable[[int], LabelledSequence]


def open_image(
    image: Path, label: Path, read_truth: ReadTruth, axis: int, crop: Sequence[int] = ()
) -> LabelledSequence:
    """Opens a picture or a volume with its label.

    Args:
        image: Image file or folder.
        label: Label file or folder.
        read_truth: Function from the label's path and the image to the label map on the image's grid.
        axis: Slice axis of a volume.
        crop: First i, first j, width and height in voxels; ignored if empty or outside the image.

    Raises:
        ImageError, LabelError: the image or the label cannot be used.
    """
    opened = read_image(image, MAX_VOXELS)
    found = read_truth(label, opened)
    array, labels = opened.array, found.array
    if crop and array.shape[0] >= crop[0] + crop[2] and array.shape[1] >= crop[1] + crop[3]:
        part = (slice(crop[0], crop[0] + crop[2]), slice(crop[1], crop[1] + crop[3]))
        array, labels = array[part], labels[part]
    if not labels.any():
        raise LabelError(f"{label.name} is empty: draw an object of {image.name}, or remove the label")
    axis = 2 if opened.is_2d else axis
    truth = [frame_view(labels, axis, t) for t in range(labels.shape[axis])]
    digest = f"{opened.digest} {list(crop)}"
    x_axis, y_axis = in_plane_axes(axis)
    steps = spacing(opened.affine)
    return LabelledSequence(
        kind="picture" if opened.is_2d else "volume",
        frames=FrameStack(array, axis, opened.window(), digest),
        content=content_of(digest, truth),
        annotated=tuple(range(len(truth))),
        truth=truth,
        names=found.names,
        spacing=(steps[axis], steps[y_axis], steps[x_axis]),
    )


def content_of(digest: str, truth: Sequence[NDArray]) -> str:
    """Hash of frames and ground truth, in hex."""
    content = hashlib.sha256(f"{digest} {len(truth)}".encode())
    for frame in truth:
        content.update(np.ascontiguousarray(frame, dtype=np.int64).data)
    return content.hexdigest()[:16]


FRAME_SUFFIXES = FORMATS["raster"]
FILM_SUFFIXES = FORMATS["video"]


class FolderFrames:
    """Frames in separate picture files in temporal order, all of one size, read on demand."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self.width, self.height, _ = self.image(0).shape

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The frame, uint8 (H, W, 3).

        Raises:
            ImageError: the file cannot be read, or its size differs from the first frame.
        """
        image = self.image(index)
        width, height, _ = image.shape
        if (width, height) != (self.width, self.height):
            raise ImageError(
                f"{self._files[index].name} has {width} x {height} pixels and the first frame "
                f"{self.width} x {self.height}: all frames of a clip must have one size"
            )
        return FrameStack(image.array, 2, image.window())[0]

    def key(self, index: int) -> Hashable:
        """Cache key of a frame within the clip."""
        return index

    def image(self, index: int) -> MedicalImage:
        """The frame as an image, whose grid a label must match."""
        return read_image(self._files[index], MAX_VOXELS)

    @cached_property
    def digest(self) -> str:
        """Hash of all files, in hex."""
        files = (hashlib.sha256(file.read_bytes()).digest() for file in self._files)
        return hashlib.sha256(b"".join(files)).hexdigest()


class FilmFrames(FrameStack):
    """Frames of a video file."""

    def __init__(self, path: Path) -> None:
        self._film = read_image(path, MAX_VOXELS)
        super().__init__(self._film.array, 2, IntensityWindow(0, 255, "levels"), self._film.digest)

    def image(self, index: int) -> MedicalImage:
        """The frame as an image, whose grid a label must match."""
        return replace(self._film, array=self._film.array[:, :, index][:, :, None], is_2d=True)


def open_clip(
    source: Sequence[Path] | Path, masks: Mapping[int, Path], read_truth: ReadTruth, axis: int
) -> LabelledSequence:
    """Opens a clip.

    Args:
        source: Frame files in temporal order, or one video file.
        masks: Label files by frame index.
        read_truth: Function from a label's path and its frame to the label map on the frame's grid.
        axis: Ignored: clips have one axis.

    Raises:
        ImageError, LabelError: a frame or a mask cannot be used, or all masks are empty.
    """
    frames = FilmFrames(source) if isinstance(source, Path) else FolderFrames(source)
    beyond = [path.name for index, path in masks.items() if index >= len(frames)]
    if beyond:
        raise LabelError(
            f"The clip has {len(frames)} frames, but masks of later ones: {', '.join(beyond[:3])}"
        )
    names: dict[int, str] = {}
    truth = []
    for index in sorted(masks):
        found = read_truth(masks[index], frames.image(index))
        names.update(found.names)
        truth.append(frame_view(found.array, 2, 0))
    return clip_sequence(frames, sorted(masks), truth, names)


def clip_sequence(
    frames: FolderFrames | FilmFrames,
    annotated: Sequence[int],
    truth: Sequence[NDArray],
    names: Mapping[int, str],
) -> LabelledSequence:
    """A clip from its ground truth: one label map (H, W) per annotated frame, ascending.

    Raises:
        LabelError: all label maps are empty.
    """
    if not any(frame.any() for frame in truth):
        raise LabelError("All masks of the clip are empty: draw an object, or remove the clip")
    return LabelledSequence(
        kind="clip",
        frames=frames,
        content=content_of(f"{frames.digest} {list(annotated)}", truth),
        annotated=tuple(annotated),
        truth=truth,
        names=names,
        spacing=(1.0, 1.0, 1.0),
    )


def frame_number(path: Path) -> int | None:
    """The last number in a file name without its extension; None if there is none."""
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None


def natural(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort key that places frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


logger = logging.getLogger(__name__)

LABELS = Path("labels") / "final"
RECORD = "datastore_v2.json"


def list_cases(folder: Path) -> list[EvaluationCase]:
    """The labelled images of a datastore, then the clips in the folder and its subfolders.

    Args:
        folder: Images with their labels in ``labels/final``, or clips: folders with ``masks/`` and either
            ``frames/`` or one video file.

    Raises:
        EvaluationError: the folder has neither.
    """
    cases = [*_datastore_cases(folder), *_clip_cases(folder)]
    if not cases:
        raise EvaluationError(
            f"{folder} has nothing to evaluate: no labels in {LABELS}/, and no masks/ beside frames/ or a "
            f"video ({', '.join(FILM_SUFFIXES)}) in it or its subfolders; use --preset for a public dataset"
        )
    return cases


def stem(path: Path) -> str:
    """File name without its extension (``.nii.gz`` is one extension)."""
    return split_ending(path.name)[0]


def labelled_files(folder: Path) -> list[tuple[str, Path | None, Path]]:
    """Id, image (a file, or a folder of DICOM files; None if it is gone) and label of each final label."""
    # A file takes precedence over the DICOM folder that it was converted from.
    found = sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    images = {
        stem(path): path
        for path in found
        if not path.name.startswith(".") and path.suffix != ".json" and path.name != LABELS.parts[0]
    }
    labels = sorted((path for path in (folder / LABELS).glob("[!.]*") if path.is_file()), key=stem)
    return [(stem(path), images.get(stem(path)), path) for path in labels]


def read_record(folder: Path) -> dict[str, Any]:
    """Entries of MONAI Label's record by image id; empty if it is absent or damaged."""
    try:
        objects = json.loads((folder / RECORD).read_text(encoding="utf-8"))["objects"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read and is ignored, so classes may have no names: %s", RECORD, error)
        return {}
    return objects if isinstance(objects, dict) else {}


def _datastore_cases(folder: Path) -> Iterator[EvaluationCase]:
    record = read_record(folder)
    for name, image, label in labelled_files(folder):
        info: Any = record
        for key in (name, "labels", LABELS.name, "info"):
            info = info.get(key) if isinstance(info, Mapping) else None
        label_info = listed_label_info(info) if isinstance(info, Mapping) else None
        yield EvaluationCase(name, partial(_open, image, label, label_info or None))


def _open(
    image: Path | None, label: Path, info: Sequence[Mapping[str, Any]] | None, axis: int
) -> LabelledSequence:
    if image is None:
        raise LabelError(f"{label.name} has no image with its name: restore the image, or delete the label")
    return open_image(image, label, partial(read_labels, label_info=info), axis)


def _clip_cases(folder: Path) -> Iterator[EvaluationCase]:
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for place in (folder, *inside):
        if (place / "masks").is_dir() and (source := _clip_source(place)):
            yield EvaluationCase(place.name, partial(_open_clip, source, place / "masks"))


def _clip_source(place: Path) -> Sequence[Path] | Path | None:
    if (place / "frames").is_dir():
        return files_of(place / "frames")
    return next((path for path in sorted(place.iterdir()) if path.suffix.lower() in FILM_SUFFIXES), None)


def files_of(folder: Path) -> list[Path]:
    """Pictures of a folder, sorted by the numbers in their names."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES]
    return sorted((path for path in found if not path.name.startswith(".")), key=natural)


def _open_clip(source: Sequence[Path] | Path, folder: Path, axis: int) -> LabelledSequence:
    return open_clip(source, match_masks(source, files_of(folder)), read_labels, axis)


def match_masks(source: Sequence[Path] | Path, masks: Sequence[Path]) -> dict[int, Path]:
    """Masks by frame index: the frame with the mask's name, or the mask's number for a video file.

    Raises:
        LabelError: there is no mask, or a mask without a frame.
    """
    if not masks:
        raise LabelError("The clip has no mask: name each mask like its frame, or by its number")
    numbers = None if isinstance(source, Path) else {path.stem: index for index, path in enumerate(source)}
    matched = {}
    for mask in masks:
        index = frame_number(mask) if numbers is None else numbers.get(mask.stem)
        if index is None:
            raise LabelError(f"The mask {mask.name} has no frame with its name: rename it")
        matched[index] = mask
    return matched
