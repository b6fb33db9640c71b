"""Video clips: frames in a folder or in one video file, with masks for some of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError, LabelError
from lib.evaluation.cases import MAX_VOXELS, LabelledSequence, ReadTruth, content_of
from lib.images.medical_image import MedicalImage, Voxels, make_image, require_size
from lib.images.reading import read_image
from lib.transforms.frames import FrameStack, frame_view

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FILM_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")


class FolderFrames:
    """Frames in separate picture files, read on demand.

    Args:
        files: Picture files in temporal order, all of one size.

    Attributes:
        height: Frame height in pixels.
        width: Frame width in pixels.
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
            ImageError: the file cannot be read, or its size differs from the first frame.
        """
        stack = self._stack(index)
        if (stack.height, stack.width) != (self.height, self.width):
            raise ImageError(
                f"{self._files[index].name} has {stack.width} x {stack.height} pixels and the first frame "
                f"{self.width} x {self.height}: all frames of a clip must have one size"
            )
        return stack[0]

    def key(self, index: int) -> Hashable:
        """Cache key of a frame within the clip."""
        return index

    def image(self, index: int) -> MedicalImage:
        """The frame as an image, whose grid a label must match."""
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
    """Frames of a video file, all decoded on opening.

    Args:
        path: Video file.

    Attributes:
        height: Frame height in pixels.
        width: Frame width in pixels.

    Raises:
        ImageError: the file cannot be decoded, or has no frame.
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
        """Cache key of a frame within the clip."""
        return index

    def image(self, index: int) -> MedicalImage:
        """The frame as an image, whose grid a label must match."""
        pixels = self._frames[index].swapaxes(0, 1)[:, :, None]
        return make_image(Voxels(pixels, np.eye(4), is_2d=True), self._path, "raster")

    @cached_property
    def digest(self) -> str:
        """Hash of all decoded frames, in hex (decoders differ slightly)."""
        content = hashlib.sha256()
        for frame in self._frames:
            content.update(np.ascontiguousarray(frame).data)
        return content.hexdigest()


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
        ImageError: a frame cannot be read.
        LabelError: a mask cannot be read or has another size, or all masks are empty.
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


def _decoded(path: Path) -> list[NDArray[np.uint8]]:
    try:
        import cv2
    except ImportError as error:
        raise ImageError(
            f"{path.name} cannot be decoded: install opencv (`make install-dev`), or save the frames as "
            "pictures in a folder `frames` beside it"
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
        raise ImageError(f"{path.name} has no decodable frame: export it again")
    return frames
