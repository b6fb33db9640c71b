"""Video files, decoded by FFmpeg through PyAV: clips in, and masks drawn into them out."""

from __future__ import annotations

import hashlib
import math
import threading
import weakref
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

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
# Bytes of decoded frames that a clip keeps: more than a key frame's distance of 250 frames of 320 x 240.
KEPT_BYTES = 64 << 20
# Codecs that never write so many zero bytes in a row (none did in black, white and grey clips): a hole in the
# file, which their decoders fill with what they make up. OpenCV's MJPEG has such runs in plain frames.
_WITHOUT_ZEROS = frozenset({"ffv1", "h264", "hevc", "mpeg4"})
_ZEROS = 64


def read_video(path: Path, max_voxels: int) -> Voxels:
    """Opens a video file as a volume (x, y, t); grey ones have no colour axis.

    Every frame is decoded once, to find damage and to compute the digest, and none is kept: the array is a
    :class:`VideoArray`.

    Args:
        path: MP4, AVI, MOV or MKV file.
        max_voxels: Limit of voxels; it is checked with each frame, since files lie about their number.

    Raises:
        ImageError: No video in the file, frames of several sizes, or damage.
        ImageTooLargeError: Too many voxels or bytes.
    """
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        shape, frames, digest = _survey(file, path, max_voxels)
        array = VideoArray(file, path, shape, frames)
        weakref.finalize(array, stack.pop_all().close)
    # An array for all that is asked of it: shape, dtype, nbytes, [:, :, t] and numpy.asarray.
    return Voxels(cast(NDArray, array), LPS_IDENTITY, digest=digest)


def _survey(file: BinaryIO, path: Path, max_voxels: int) -> tuple[tuple[int, ...], list[_Frame], str]:
    """Shape of a frame, (H, W) or (H, W, 3), facts about each, and the digest of all."""
    found: list[_Frame] = []
    digest = hashlib.sha256()
    shape: tuple[int, ...] = ()
    with _opened(file, path) as container:
        if not container.streams.video:
            raise ImageError("there is no video in the file")
        size = container.streams.video[0].codec_context
        require_size((size.width, size.height, 1), max_voxels)
        for frame in _whole(container):
            require_size((frame.width, frame.height, len(found) + 1), max_voxels, 1 if _is_grey(frame) else 3)
            pixels = _pixels(frame)
            if found and pixels.shape != shape:
                raise ImageError("its frames have several sizes: convert it to one size")
            shape = pixels.shape
            digest.update(pixels.data)
            found.append(_Frame(frame.pts, bool(frame.key_frame), zlib.crc32(pixels.data)))
    if not found:
        raise ImageError("there is no frame in the file")
    digest.update(f"{shape} {len(found)}".encode())
    return shape, found, digest.hexdigest()


@dataclass(frozen=True)
class _Frame:
    """What is known of a frame without its pixels.

    Attributes:
        time: Presentation time in units of the stream; None where the file has none.
        is_key: Whether decoding can begin with it.
        checksum: CRC-32 of its pixels.
    """

    time: int | None
    is_key: bool
    checksum: int


class VideoArray:
    """Frames of a video file as an array, decoded when they are asked for. Safe to share between threads.

    The frames decoded last are kept, ``KEPT_BYTES`` of them. On the way forward every frame is decoded once;
    to go back, decoding begins again at the key frame before. A frame that decodes differently then, as
    after a key frame that is none, is decoded again from the start of the file.

    Args:
        file: Video file, which may be deleted from its folder meanwhile.
        path: Its name.
        frame_shape: (H, W), or (H, W, 3) for colours.
        frames: All frames, in order.

    Attributes:
        shape: (W, H, T), or (W, H, T, 3) for colours.
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, file: BinaryIO, path: Path, frame_shape: tuple[int, ...], frames: Sequence[_Frame]
    ) -> None:
        self.shape = (frame_shape[1], frame_shape[0], len(frames), *frame_shape[2:])
        self._file, self._path = file, path
        self._frames = frames
        times = [frame.time for frame in frames if frame.time is not None]
        is_ordered = len(times) == len(frames) and all(a < b for a, b in pairwise(times))
        self._keys = [t for t, frame in enumerate(frames) if t == 0 or (is_ordered and frame.is_key)]
        self._most = max(1, KEPT_BYTES // math.prod(frame_shape))
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._decoder: Iterator[tuple[int, NDArray[np.uint8]]] = iter(())
        self._next = len(frames)
        self._lock = threading.Lock()

    @property
    def ndim(self) -> int:
        """3, or 4 for colours."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the frames that are kept at most."""
        return min(math.prod(self.shape), KEPT_BYTES)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """A frame (x, y[, 3]) for [:, :, t]; any other part is cut out of the whole array."""
        is_frame = isinstance(key, tuple) and len(key) == 3 and isinstance(key[2], int | np.integer)
        if not (is_frame and all(isinstance(part, slice) and part == slice(None) for part in key[:2])):
            return np.asarray(self)[key]
        if not 0 <= key[2] < len(self._frames):
            raise IndexError(f"frame {key[2]} is not from 0 to {len(self._frames) - 1}")
        with self._lock:
            return self._frame(int(key[2])).swapaxes(0, 1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        """All frames, in memory."""
        # (t, y, x[, 3]) to (x, y, t[, 3]).
        frames = np.empty((self.shape[2], self.shape[1], self.shape[0], *self.shape[3:]), np.uint8)
        for t in range(len(frames)):
            frames[t] = self[:, :, t].swapaxes(0, 1)
        return frames.swapaxes(0, 2).astype(dtype or np.uint8, copy=False)

    def _frame(self, t: int) -> NDArray[np.uint8]:
        while t not in self._kept:
            key = self._keys[bisect_right(self._keys, t) - 1]
            if not key <= self._next <= t:
                time = self._frames[key].time
                self._decoder, self._next = _decoded(self._file, self._path, key, time), key
            index, pixels = next(self._decoder, (-1, None))
            if pixels is not None and index == self._next and self._is_known(index, pixels):
                pixels.flags.writeable = False
                self._kept[index] = pixels
                self._next += 1
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            elif len(self._keys) == 1:
                raise ImageError(f"{self._path.name} has changed since it was opened: send the request again")
            else:
                self._keys, self._next = [0], len(self._frames)
        self._kept.move_to_end(t)
        return self._kept[t]

    def _is_known(self, t: int, pixels: NDArray[np.uint8]) -> bool:
        return zlib.crc32(pixels.data) == self._frames[t].checksum


def _decoded(
    file: BinaryIO, path: Path, key: int, time: int | None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Indices and pixels of the frames from a key frame on, shown at ``time``, to the first damaged one."""
    with _opened(file, path) as container, suppress(av.FFmpegError):
        stream = container.streams.video[0]
        if key and time is not None:
            container.seek(time, stream=stream)
        index = key
        for frame in container.decode(stream):
            # Seeking may end at an earlier key frame.
            if key and index == key and (time or 0) > (frame.pts or 0):
                continue
            yield index, _pixels(frame)
            index += 1


def _whole(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """The frames of a container's video, in order.

    Raises:
        ImageError: The file holds fewer frames than it counts, or frames are damaged: masks would be of other
            moments, or of what a decoder makes up.
    """
    stream = container.streams.video[0]
    found = hidden = shown = 0
    for packet in container.demux(stream):
        if packet.is_corrupt or (stream.codec_context.name in _WITHOUT_ZEROS and _has_zeros(bytes(packet))):
            raise _damaged(shown, _expected(container, stream))
        found += packet.size > 0
        hidden += packet.size > 0 and packet.is_discard
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            raise _damaged(shown, _expected(container, stream)) from error
        for frame in frames:
            if frame.is_corrupt:
                raise _damaged(shown, _expected(container, stream))
            shown += 1
            yield frame
    # An AVI repeats the frame before by a chunk without bytes.
    repeated = sum(entry.size == 0 for entry in stream.index_entries)
    if found + repeated < _expected(container, stream) or shown < found - hidden:
        raise _damaged(shown, _expected(container, stream))


def _expected(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Frames that a file counts: by its length in time where it does not say."""
    rate, duration, unit = stream.average_rate, stream.duration, stream.time_base
    timed = round(duration * unit * rate) if rate and duration and unit else stream.frames
    # A trimmed MP4 counts the frames before its beginning, too; the length of an AVI is that of its bytes.
    is_timed = not stream.frames or "mp4" in container.format.name
    return min(stream.frames or timed, timed) if is_timed else stream.frames


def _has_zeros(data: bytes) -> bool:
    return bytes(_ZEROS) in data.rstrip(b"\0")


def _damaged(left: int, expected: int) -> ImageError:
    return ImageError(
        f"it is cut off or damaged after {left} of {expected} frames. Copy it again, or convert what is left "
        "to a new file"
    )


def _is_grey(frame: av.VideoFrame) -> bool:
    return frame.format.name.startswith("gray")


def _pixels(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Pixels of a frame as it is shown, (H, W) or (H, W, 3), contiguous."""
    quarters = frame.rotation // 90 if frame.rotation % 90 == 0 else 0
    pixels = np.rot90(frame.to_ndarray(format="gray" if _is_grey(frame) else "rgb24"), quarters)
    return np.ascontiguousarray(pixels, np.uint8)


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


@contextmanager
def _opened(file: BinaryIO, path: Path) -> Iterator[av.container.InputContainer]:
    """A container that opens no other file and no address, and whose decoder reports damage."""
    options = {"protocol_whitelist": "none"}
    file.seek(0)
    with av.open(file, format=_CONTAINERS[path.suffix.lower()], options=options) as container:
        for stream in container.streams.video[:1]:
            stream.codec_context.options = {"err_detect": "explode"}
        yield container
