"""What DICOM headers say: how large an image is, how it is meant to be shown, and of each of its frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom

from lib.errors import ImageError
from lib.transforms.windowing import dicom_window

logger = logging.getLogger(__name__)

# Of all frames of a file together, and of each.
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = [
    "Modality",
    "PhotometricInterpretation",
    "Columns",
    "Rows",
    "NumberOfFrames",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    *GROUPS,
]


def utc_offset(value: Any) -> timedelta:
    """How far a file's time zone is ahead of UTC, from DICOM's ``&ZZXX``; zero where it is no such text."""
    text = str(value or "").strip()
    if len(text) != 5 or not text[1:].isdigit():
        return timedelta()
    away = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return -away if text[0] == "-" else away


@dataclass(frozen=True)
class DicomTags:
    """What one file says of itself.

    Attributes:
        modality: such as ``CT``; None where the file does not say.
        window: (low, high) in rescaled intensities; None where the file does not say.
        size: columns, rows, frames; zeros where the file holds no pixels.
    """

    modality: str | None = None
    window: tuple[float, float] | None = None
    size: tuple[int, int, int] = (0, 0, 0)


def read_tags(file: Path) -> DicomTags:
    """Reads the tags of one file, without its pixels. Of several windows the first counts.

    A MONOCHROME1 file has none: ITK turns its intensities over, and a window is for those in the file.
    """
    dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
    turned_over = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    windows = () if turned_over else (_window(source) for source in _sources(dataset))
    return DicomTags(
        modality=dataset.get("Modality") or None,
        window=next((found for found in windows if found), None),
        size=(
            int(dataset.get("Columns") or 0),
            int(dataset.get("Rows") or 0),
            int(dataset.get("NumberOfFrames") or 1),
        ),
    )


def tags_beside(path: Path) -> DicomTags:
    """Tags of the series that a volume was converted from, where that lies beside it."""
    source = file_beside(path)
    if source is None:
        return DicomTags()
    try:
        return read_tags(source)
    except Exception as error:
        # The volume itself is sound: without the tags its window is chosen by its intensities.
        logger.warning("The DICOM tags beside %s cannot be read: %s", path, error)
        return DicomTags()


def file_beside(path: Path) -> Path | None:
    """A file of the series that a volume was converted from.

    MONAI Label keeps a DICOMweb series in a folder and its volume in ``<folder>.nii.gz``.
    """
    folder = path.parent / path.name.split(".nii")[0]
    return min(folder.glob("*.dcm"), default=None) if folder.is_dir() else None


def _sources(dataset: pydicom.Dataset) -> Iterator[pydicom.Dataset | None]:
    """Where a window can stand: in the file itself, or in an enhanced file's groups."""
    yield dataset
    for name in GROUPS:
        yield first_item(first_item(dataset, name), "FrameVOILUTSequence")


def _window(source: pydicom.Dataset | None) -> tuple[float, float] | None:
    centers, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    if source is None or not centers or not widths:
        return None
    return dicom_window(centers[0], widths[0], source.get("VOILUTFunction") or "LINEAR")


def numbers(dataset: pydicom.Dataset | None, name: str) -> tuple[float, ...]:
    """Numbers of a tag with none, one or several values."""
    value = dataset.get(name) if dataset is not None else None
    values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return tuple(float(number) for number in values if number not in (None, ""))


def groups(dataset: pydicom.Dataset, name: str) -> list[pydicom.Dataset | None]:
    """First item of a functional group for each frame: its own, else the shared one, else None.

    Raises:
        ImageError: where the header describes fewer or more frames than there are.
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
