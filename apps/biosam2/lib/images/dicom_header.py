"""Header of one DICOM file: size, place, rescaling and window of each frame, and where its pixels are."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lib.errors import ImageError
from lib.transforms.windowing import dicom_window

logger = logging.getLogger(__name__)

# Functional groups of all frames of an enhanced file together, and of each frame.
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = [
    "SOPInstanceUID",
    "Modality",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "Columns",
    "Rows",
    "NumberOfFrames",
    "BitsAllocated",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    *GROUPS,
]
_FRAME_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)
# MPEG-2, MPEG-4 (H.264) and HEVC.
_VIDEO = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109))
_PIXEL_DATA, _FLOATS, _DOUBLES = 0x7FE00010, 0x7FE00008, 0x7FE00009
_ITEM, _UNDEFINED = 0xFFFEE000, 0xFFFFFFFF
_LONG_FORMS = (b"OB", b"OW", b"OF", b"OD", b"UN")


@dataclass(frozen=True)
class Frame:
    """What may differ from slice to slice and from frame to frame.

    Attributes:
        position: ImagePositionPatient, LPS millimetres; empty where there is none.
        orientation: ImageOrientationPatient, direction cosines of a row and of a column; or empty.
        rescale: Slope and intercept.
        window: (low, high) in rescaled intensities; None where there is none.
    """

    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    rescale: tuple[float, float] = (1.0, 0.0)
    window: tuple[float, float] | None = None

    @property
    def is_placed(self) -> bool:
        """Whether the frame has a place in space."""
        return len(self.position) == 3 and len(self.orientation) == 6


@dataclass(frozen=True)
class DicomHeader:
    """Header of one file.

    Attributes:
        file: The file.
        uid: SOP Instance UID.
        size: Columns, rows, frames; zeros where the file holds no pixels.
        samples: Values per pixel, 3 for colours.
        modality: DICOM modality such as ``CT``; None where the file does not say.
        spacing: PixelSpacing, millimetres between rows and between columns; or empty.
        frames: One entry per frame.
        fault: Reason why the pixels cannot be read; empty where they can.
    """

    file: Path
    uid: str
    size: tuple[int, int, int]
    samples: int
    modality: str | None
    spacing: tuple[float, ...]
    frames: tuple[Frame, ...]
    fault: str


def read_header(file: Path) -> DicomHeader:
    """Reads the header of a file, and looks at the size of its pixels without reading them.

    Raises:
        ImageError: A size, place or rescaling that is no number, or functional groups of other frames.
    """
    with file.open("rb") as opened:
        dataset = pydicom.dcmread(opened, stop_before_pixels=True, specific_tags=_TAGS)
        columns, rows, count = (_count(dataset, name) for name in ("Columns", "Rows", "NumberOfFrames"))
        size = (columns, rows, max(count, 1))
        return DicomHeader(
            file=file,
            uid=text(dataset, "SOPInstanceUID"),
            size=size,
            samples=_count(dataset, "SamplesPerPixel") or 1,
            modality=text(dataset, "Modality") or None,
            spacing=numbers(_measures(dataset), "PixelSpacing"),
            frames=tuple(_frames(dataset, size[2])),
            fault=_fault(opened, dataset, size),
        )


def _count(dataset: pydicom.Dataset, name: str) -> int:
    return int(next(iter(required_numbers(dataset, name)), 0))


def _measures(dataset: pydicom.Dataset) -> pydicom.Dataset:
    return next(filter(None, groups(dataset, "PixelMeasuresSequence")), dataset)


def _frames(dataset: pydicom.Dataset, count: int) -> Iterable[Frame]:
    """Frames of a file: each tag from its functional group, else from the file itself."""
    # ITK inverts these, so that the file's window does not suit them.
    is_negative = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if not any(dataset.get(name) for name in GROUPS):
        return [_frame([dataset] * len(_FRAME_GROUPS), is_negative)] * count
    found = [[own or dataset for own in groups(dataset, name)] for name in _FRAME_GROUPS]
    return [_frame(sources, is_negative) for sources in zip(*found, strict=True)]


def _frame(sources: Sequence[pydicom.Dataset], is_negative: bool) -> Frame:
    """One frame, from the datasets that hold its position, orientation, rescaling and window."""
    position, orientation, rescale, window = sources
    return Frame(
        required_numbers(position, "ImagePositionPatient"),
        required_numbers(orientation, "ImageOrientationPatient"),
        (
            next(iter(required_numbers(rescale, "RescaleSlope")), 1.0),
            next(iter(required_numbers(rescale, "RescaleIntercept")), 0.0),
        ),
        None if is_negative else _window(window),
    )


def _window(source: pydicom.Dataset) -> tuple[float, float] | None:
    """The first of the file's windows."""
    centers, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    if not centers or not widths:
        return None
    return dicom_window(centers[0], widths[0], text(source, "VOILUTFunction") or "LINEAR")


def common_window(headers: Sequence[DicomHeader]) -> tuple[float, float] | None:
    """Window of a series: the median of its slices' windows, which one odd slice does not change."""
    windows = [frame.window for header in headers for frame in header.frames if frame.window]
    if not windows:
        return None
    low, high = np.median(windows, axis=0)
    return float(low), float(high)


def file_beside(path: Path) -> Path | None:
    """A file of the series that a volume was converted from."""
    return min(files_beside(path), default=None)


def files_beside(path: Path) -> list[Path]:
    """Files of the series that a volume was converted from.

    MONAI Label keeps a DICOMweb series in a folder and its volume in ``<folder>.nii.gz``.
    """
    folder = path.parent / path.name.split(".nii")[0]
    return sorted(folder.glob("*.dcm")) if folder.is_dir() else []


def headers_beside(path: Path) -> list[DicomHeader]:
    """Headers of the series that a volume was converted from; none where they cannot be read."""
    try:
        return [read_header(file) for file in files_beside(path)]
    except Exception as error:
        # The volume itself is sound: without the tags its window is chosen by its intensities.
        logger.warning("The DICOM tags beside %s cannot be read: %s", path, error)
        return []


def _fault(file: BinaryIO, dataset: pydicom.Dataset, size: tuple[int, int, int]) -> str:
    """Why the pixels behind the header cannot be read; empty where they can, as far as their size tells."""
    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    if syntax in _VIDEO:
        return (
            f"it holds a video ({syntax.name}), which is not decoded here: export the loop as frames, for "
            "example uncompressed or as JPEG"
        )
    if syntax == DeflatedExplicitVRLittleEndian:
        return ""  # pydicom unpacked the file elsewhere, and noticed where it ended early
    tag, length = _element(file, dataset)
    if tag in (_FLOATS, _DOUBLES):
        return (
            "its pixels are floating point numbers (Float Pixel Data), which ITK does not read: export it as "
            "NIfTI, or as integers with a rescale slope"
        )
    if tag != _PIXEL_DATA:
        return "it has no pixels (Pixel Data): it is a report or another object without an image"
    return _cut_off(file, dataset, size, length)


def _element(file: BinaryIO, dataset: pydicom.Dataset) -> tuple[int, int]:
    """Tag and length of the element at which the header ends; the file is left at its value."""
    order = "<" if dataset.is_little_endian else ">"
    head = file.read(8)
    if len(head) < 8:
        return 0, 0
    group, element = struct.unpack(f"{order}HH", head[:4])
    if dataset.is_implicit_VR:
        (length,) = struct.unpack(f"{order}I", head[4:])
    elif head[4:6] in _LONG_FORMS:
        (length,) = struct.unpack(f"{order}I", file.read(4).ljust(4, b"\0"))
    else:
        (length,) = struct.unpack(f"{order}H", head[6:])
    return group << 16 | element, length


def _cut_off(file: BinaryIO, dataset: pydicom.Dataset, size: tuple[int, int, int], length: int) -> str:
    """Says what is missing where there are fewer pixels than the header promises: GDCM fills them up."""
    columns, rows, frames = size
    if length == _UNDEFINED:
        there = _count_fragments(file)
        return "" if there >= frames else f"it is cut off: {there} of its {frames} frames are there"
    is_halved = text(dataset, "PhotometricInterpretation") in ("YBR_FULL_422", "YBR_PARTIAL_422")
    samples = 2 if is_halved else _count(dataset, "SamplesPerPixel") or 1
    needed = -(-columns * rows * frames * samples * _count(dataset, "BitsAllocated") // 8)
    place = file.tell()
    there = min(length, file.seek(0, 2) - place)
    if there >= needed:
        return ""
    return f"it is cut off: its header promises {needed} bytes of pixels and it holds {there}; send it again"


def _count_fragments(file: BinaryIO) -> int:
    """Whole fragments of encapsulated pixels (PS3.5, A.4), of which each frame has one at least."""
    count, end = -1, file.seek(0, 2) if (place := file.tell()) else 0
    while place + 8 <= end:
        file.seek(place)
        group, element, length = struct.unpack("<HHI", file.read(8))
        place += 8 + length
        if group << 16 | element != _ITEM or place > end:
            break
        count += 1
    return max(count, 0)


def utc_offset(value: Any) -> timedelta:
    """Time zone of a file ahead of UTC, from DICOM's ``&ZZXX``; zero where it is no such text."""
    text = str(value or "").strip()
    if len(text) != 5 or not text[1:].isdigit():
        return timedelta()
    away = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return -away if text[0] == "-" else away


def numbers(dataset: pydicom.Dataset | None, name: str) -> tuple[float, ...]:
    """Numbers of an optional tag with none, one or several values.

    Text that is no number, such as ``40,5`` or ``N/A``, counts as an absent tag, and the log says so.
    """
    try:
        return required_numbers(dataset, name)
    except ImageError as error:
        logger.warning("DICOM tag ignored: %s", error)
        return ()


def required_numbers(dataset: pydicom.Dataset | None, name: str) -> tuple[float, ...]:
    """Numbers of a tag with none, one or several values.

    Raises:
        ImageError: Text that is no number, or NaN.
    """
    if dataset is None:
        return ()
    try:
        value = dataset.get(name)
        values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        found = tuple(float(number) for number in values if number not in (None, ""))
        if not all(math.isfinite(number) for number in found):
            raise ValueError(f"{found} is not finite")
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ImageError(f"its {name} is no number: {error}") from error
    return found


def text(dataset: pydicom.Dataset, name: str) -> str:
    """Text of a tag; empty where it is absent or cannot be decoded."""
    try:
        return str(dataset.get(name) or "").strip()
    except (ValueError, TypeError, LookupError) as error:
        logger.warning("DICOM tag ignored: its %s cannot be read: %s", name, error)
        return ""


def groups(dataset: pydicom.Dataset, name: str) -> list[pydicom.Dataset | None]:
    """First item of a functional group for each frame: its own, else the shared one, else None.

    Raises:
        ImageError: The header describes fewer or more frames than there are.
    """
    shared = first_item(first_item(dataset, GROUPS[0]), name)
    count = int(dataset.get("NumberOfFrames") or 1)
    own = list(dataset.get(GROUPS[1]) or [])
    if len(own) not in (0, count):
        raise ImageError(f"its header describes {len(own)} of its {count} frames: export it again")
    return [first_item(item, name) or shared for item in own] if own else [shared] * count


def first_item(dataset: pydicom.Dataset | None, name: str) -> pydicom.Dataset | None:
    """First item of a sequence; None where there is none."""
    items: Any = dataset.get(name) if dataset is not None else None
    return items[0] if items else None
