"""Videos: frames in a folder or in a file, with the truth of some of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError, LabelError
from lib.evaluation.cases import MAX_VOXELS, ReadTruth, Scene, content_of
from lib.images.medical_image import MedicalImage, Voxels, make_image, require_size
from lib.images.reading import read_image
from lib.transforms.frames import FrameStack, frame_view

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FILM_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")


class FolderFrames:
    """Frames that lie in files of their own, read when asked for.

    Args:
        files: in the order of time, all of one size.

    Attributes:
        height: pixels of a frame along y.
        width: pixels of a frame along x.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        first = self._stack(0)
        self.height, self.width = first.height, first.width

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The frame, uint8 (H, W, 3).

        Raises:
            ImageError: it cannot be read, or is of another size than the first.
        """
        stack = self._stack(index)
        if (stack.height, stack.width) != (self.height, self.width):
            raise ImageError(
                f"{self._files[index].name} is {stack.width} x {stack.height} pixels and the first frame "
                f"{self.width} x {self.height}: all frames of a clip must be of one size"
            )
        return stack[0]

    def key(self, index: int) -> Hashable:
        """Equal for equal frames of one clip."""
        return index

    def image(self, index: int) -> MedicalImage:
        """The frame as an image, to read a label on its grid."""
        return read_image(self._files[index], MAX_VOXELS)

    @cached_property
    def digest(self) -> str:
        """Hash of all files, in hex."""
        content = hashlib.sha256()
        for file in self._files:
            content.update(hashlib.sha256(file.read_bytes()).digest())
        return content.hexdigest()

    def _stack(self, index: int) -> FrameStack:
        image = self.image(index)
        return FrameStack(image.array, 2, image.window())


class FilmFrames:
    """Frames of a video file, decoded at once.

    Args:
        path: of the file.

    Attributes:
        height: pixels of a frame along y.
        width: pixels of a frame along x.

    Raises:
        ImageError: it cannot be decoded here, or has no frame.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames = _decoded(path)
        self.height, self.width = self._frames[0].shape[:2]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The frame, uint8 (H, W, 3)."""
        return self._frames[index]

    def key(self, index: int) -> Hashable:
        """Equal for equal frames of one clip."""
        return index

    def image(self, index: int) -> MedicalImage:
        """The frame as an image, to read a label on its grid."""
        pixels = self._frames[index].swapaxes(0, 1)[:, :, None]
        return make_image(Voxels(pixels, np.eye(4), is_2d=True), self._path, "raster")

    @cached_property
    def digest(self) -> str:
        """Hash of all frames, in hex: decoders differ a little."""
        content = hashlib.sha256()
        for frame in self._frames:
            content.update(np.ascontiguousarray(frame).data)
        return content.hexdigest()


def open_clip(
    source: Sequence[Path] | Path, masks: Mapping[int, Path], read_truth: ReadTruth, axis: int
) -> Scene:
    """Opens a clip.

    Args:
        source: files of the frames in their order, or one video file.
        masks: label file by the index of its frame; frames without one have no truth.
        read_truth: from a label's path and its frame to the truth on the frame's grid.
        axis: not used; clips have no choice.

    Raises:
        ImageError: a frame cannot be read.
        LabelError: a mask cannot be read, does not fit, or all are empty.
    """
    frames = FilmFrames(source) if isinstance(source, Path) else FolderFrames(source)
    beyond = [path.name for index, path in masks.items() if index >= len(frames)]
    if beyond:
        raise LabelError(f"{', '.join(beyond[:3])} lie beyond the last of {len(frames)} frames: rename them")
    names: dict[int, str] = {}
    truth = []
    for index in sorted(masks):
        found = read_truth(masks[index], frames.image(index))
        names.update(found.names)
        truth.append(frame_view(found.array, 2, 0))
    return clip_scene(frames, sorted(masks), truth, names)


def clip_scene(
    frames: FolderFrames | FilmFrames,
    annotated: Sequence[int],
    truth: Sequence[NDArray],
    names: Mapping[int, str],
) -> Scene:
    """A clip whose truth is known already: whole numbers (H, W) for each annotated frame, ascending.

    Raises:
        LabelError: the truth is empty.
    """
    if not any(frame.any() for frame in truth):
        raise LabelError("the masks of the clip label nothing: draw an object, or leave the clip out")
    return Scene(
        kind="clip",
        frames=frames,
        content=content_of(f"{frames.digest} {list(annotated)}", truth),
        annotated=tuple(annotated),
        truth=truth,
        names=names,
        spacing=(1.0, 1.0, 1.0),
    )


def frame_number(path: Path) -> int | None:
    """The last number in a file's name without its ending; None where there is none."""
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None


def natural(path: Path) -> tuple[tuple[int, str], ...]:
    """Sorts frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def _decoded(path: Path) -> list[NDArray[np.uint8]]:
    try:
        import cv2
    except ImportError as error:
        raise ImageError(
            f"{path.name} cannot be decoded here: `make install-dev` brings opencv, which can; or save the "
            "frames as pictures in a folder `frames` beside it"
        ) from error
    film = cv2.VideoCapture(str(path))
    frames: list[NDArray[np.uint8]] = []
    try:
        while True:
            read, frame = film.read()
            if not read:
                break
            frames.append(np.ascontiguousarray(frame[:, :, ::-1]))
            require_size((frame.shape[1], frame.shape[0], len(frames)), MAX_VOXELS)
    finally:
        film.release()
    if not frames:
        raise ImageError(f"{path.name} has no frame that can be decoded: copy or export it again")
    return frames
