"""DICOM files in a folder of images: clips, and whole slides, of which one file of many stands for all."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from lib.datastores.catalog import NO_PICTURES

_SUFFIX = ".dcm"
_TAGS = ["SOPClassUID", "ImageType", "TotalPixelMatrixColumns", "Modality", "NumberOfFrames"]
# Folders whose answers are kept.
_KEPT = 4096


def is_clip(path: Path) -> bool:
    """Whether a file is an image of several frames; other files are slices of a series."""
    try:
        return path.suffix.lower() == _SUFFIX and _has_frames(path, path.stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=_KEPT)
def _has_frames(path: Path, changed: int) -> bool:
    header = _header(path)
    return (
        header is not None
        and header.get("Modality") not in NO_PICTURES
        and int(header.get("NumberOfFrames") or 1) > 1
    )


def whole_slide_file(folder: Path) -> Path | None:
    """The file of the largest level of the whole slide in a folder; None where it holds none."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == _SUFFIX)
        return _largest(tuple(files), folder.stat().st_mtime_ns) if files else None
    except OSError:
        return None


@lru_cache(maxsize=_KEPT)
def _largest(files: tuple[Path, ...], changed: int) -> Path | None:
    """The file of the largest level.

    Args:
        files: DICOM files of the folder. Of other series only the first one is read.
        changed: Time of the folder's last change, so that it is read again afterwards.
    """
    best: tuple[int, Path] | None = None
    for path in files:
        columns = _volume_columns(path)
        if columns is None and best is None:
            return None
        if columns is not None and (best is None or columns > best[0]):
            best = columns, path
    return best[1] if best else None


def _volume_columns(path: Path) -> int | None:
    """Width of a level in pixels, 0 for labels and overviews; None for files of other kinds."""
    header = _header(path)
    if header is None or header.get("SOPClassUID") != VLWholeSlideMicroscopyImageStorage:
        return None
    is_volume = "VOLUME" in (header.get("ImageType") or [])
    return int(header.get("TotalPixelMatrixColumns") or 0) if is_volume else 0


def _header(path: Path) -> pydicom.Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError):
        return None
