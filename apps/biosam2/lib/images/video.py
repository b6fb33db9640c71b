"""Video files, decoded by FFmpeg through PyAV: clips in, and masks drawn into them out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.medical_image import LPS_IDENTITY, MedicalImage, Voxels, require_size
from lib.palette import CLASS_COLOURS
from lib.transforms.frames import FrameStack

# The format comes from the name: FFmpeg would take a text file of addresses for a playlist and open them.
_CONTAINERS = {".mp4": "mp4", ".avi": "avi", ".mov": "mov", ".mkv": "matroska"}
_FRAMES_PER_SECOND = 25
_DRAWN = 0.5  # opacity of a mask


def read_video(path: Path, max_voxels: int) -> Voxels:
    """Reads the frames of a video file as a volume (x, y, t); grey ones have no colour axis.

    Args:
        path: MP4, AVI, MOV or MKV file.
        max_voxels: Limit of voxels; it is checked with each frame, since files lie about their number.

    Raises:
        ImageError: No video in the file, frames of several sizes, or damage.
        ImageTooLargeError: Too many voxels or bytes.
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise ImageError("there is no video in the file")
        stream = container.streams.video[0]
        is_grey = (stream.codec_context.pix_fmt or "").startswith("gray")
        require_size((stream.codec_context.width, stream.codec_context.height, 1), max_voxels)
        frames, count = np.empty((0, 0, 0), np.uint8), 0
        for frame in _decoded(container, stream):
            require_size((frame.width, frame.height, count + 1), max_voxels, 1 if is_grey else 3)
            quarters = frame.rotation // 90 if frame.rotation % 90 == 0 else 0
            pixels = np.rot90(frame.to_ndarray(format="gray" if is_grey else "rgb24"), quarters)
            if count and pixels.shape != frames.shape[1:]:
                raise ImageError("its frames have several sizes: convert it to one size")
            if count == len(frames):
                frames = _longer(frames, (max(stream.frames, 2 * count, 1), *pixels.shape), max_voxels)
            frames[count] = pixels
            count += 1
    if not count:
        raise ImageError("there is no frame in the file")
    # (t, y, x[, 3]) to (x, y, t[, 3]).
    return Voxels(frames[:count].swapaxes(0, 2), LPS_IDENTITY)


def _decoded(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The frames of a stream, in order.

    Raises:
        ImageError: The file holds fewer frames than its header counts: they would be taken for other moments.
    """
    found = 0
    for packet in container.demux(stream):
        found += packet.size > 0
        yield from packet.decode()
    # An AVI repeats the frame before by a chunk without bytes.
    repeated = sum(entry.size == 0 for entry in stream.index_entries)
    if found + repeated < stream.frames:
        raise ImageError(
            f"it is cut off or damaged: {found} of {stream.frames} frames are left. Copy it again, or "
            "convert what is left to a new file"
        )


def _longer(frames: NDArray[np.uint8], shape: tuple[int, ...], max_voxels: int) -> NDArray[np.uint8]:
    """Frames with room for more of them; memory is taken where frames are written."""
    length = min(shape[0], max(max_voxels // (shape[1] * shape[2]), 1))
    longer = np.empty((length, *shape[1:]), np.uint8)
    longer[: len(frames)] = frames.reshape(len(frames), *shape[1:])
    return longer


def write_film(path: Path, image: MedicalImage, labels: NDArray[np.uint8]) -> None:
    """Writes an MP4 of a clip with its objects drawn in, each in a colour of its own.

    Args:
        path: File to write.
        image: Clip (x, y, t).
        labels: Label values (x, y, t).
    """
    frames = FrameStack(image.array, 2, image.window())
    # H.264 with 4:2:0 needs even sides.
    width, height = frames.width + frames.width % 2, frames.height + frames.height % 2
    colours = np.array(CLASS_COLOURS, np.float32)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=_FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in enumerate(frames):
            values = labels[:, :, index].T
            drawn = frame.astype(np.float32)
            drawn[values > 0] *= 1 - _DRAWN
            drawn[values > 0] += _DRAWN * colours[(values[values > 0] - 1) % len(colours)]
            padding = ((0, height - frames.height), (0, width - frames.width), (0, 0))
            pixels = np.pad(drawn.astype(np.uint8), padding, mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def _opened(path: Path) -> av.container.InputContainer:
    """A container that opens no other file and no address."""
    options = {"protocol_whitelist": "file"}
    return av.open(str(path.resolve()), format=_CONTAINERS[path.suffix.lower()], options=options)
