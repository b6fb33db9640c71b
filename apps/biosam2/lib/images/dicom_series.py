"""Whether the files of a DICOM series are an even stack of slices, and if not, what is wrong with them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.dicom_tags import GROUPS, groups, numbers

logger = logging.getLogger(__name__)

_TAGS = ["ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns", "PixelSpacing"]
# Direction cosines that differ by less are one direction: DICOM keeps decimals.
_SAME_DIRECTION = 1e-3
# Shares of the usual distance of two slices: below the first they lie at one place, beyond the second one is
# missing between them.
_SAME_PLACE, _GAP = 0.05, 1.5
# Slices that a slice may lie off its place in an even stack: from a half on, a voxel would be its neighbour.
_OFF_PLACE = 0.5


@dataclass(frozen=True)
class _Slice:
    """Where one file's pixels lie, in LPS millimetres."""

    size: tuple[float, ...]
    spacing: tuple[float, ...]
    orientation: tuple[float, ...]
    position: tuple[float, ...]


def require_even_stack(files: Sequence[Path]) -> None:
    """Refuses what cannot be one volume: it would open, and every mask would lie in the wrong place.

    Files without a position, as of secondary captures, are taken in the order that they come in.

    Args:
        files: of one series, each of one slice.

    Raises:
        ImageError: for slices of several sizes or directions, several at one place, or a gap between them;
            with where.
    """
    slices = [_read(file) for file in files]
    _require_one(Counter(one.size for one in slices), "sizes")
    if not all(len(one.position) == 3 and len(one.orientation) == 6 for one in slices):
        return
    _require_one_direction(np.array([one.orientation for one in slices]))
    _require_one(Counter(one.spacing for one in slices), "pixel spacings")
    normal = np.cross(slices[0].orientation[:3], slices[0].orientation[3:])
    _require_even(np.sort(np.array([one.position for one in slices]) @ normal))


def require_even_frames(file: Path) -> None:
    """The same for a file of many frames; those without a place, as of a loop, are in the order of time.

    Raises:
        ImageError: for frames that are no even stack, or not in the order of their places.
    """
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["NumberOfFrames", *GROUPS])
    positions = [numbers(one, "ImagePositionPatient") for one in groups(header, "PlanePositionSequence")]
    turns = [numbers(one, "ImageOrientationPatient") for one in groups(header, "PlaneOrientationSequence")]
    if {len(one) for one in positions} != {3} or {len(one) for one in turns} != {6}:
        return
    _require_one_direction(np.array(turns))
    along = np.array(positions) @ np.cross(turns[0][:3], turns[0][3:])
    _require_even(np.sort(along))
    if len(set(np.sign(np.diff(along)))) > 1:
        raise ImageError(
            "its frames are not in the order of their places, as of several stacks in one file: store each "
            "stack as a series of its own"
        )


def _read(file: Path) -> _Slice:
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
    return _Slice(
        (int(header.get("Columns") or 0), int(header.get("Rows") or 0)),
        tuple(round(value, 4) for value in numbers(header, "PixelSpacing")),
        numbers(header, "ImageOrientationPatient"),
        numbers(header, "ImagePositionPatient"),
    )


def _require_one(found: Counter[tuple[float, ...]], what: str) -> None:
    if len(found) < 2:
        return
    listed = ", ".join(
        f"{count} of {' x '.join(f'{number:g}' for number in key) or 'none'}"
        for key, count in found.most_common()
    )
    raise ImageError(
        f"its slices have several {what} ({listed}), as where a localizer or another scan is among them: "
        "store each as a series of its own"
    )


def _require_one_direction(orientations: NDArray[np.float64]) -> None:
    apart = np.abs(orientations - orientations[0]).max(axis=1)
    others = int((apart > _SAME_DIRECTION).sum())
    if others:
        raise ImageError(
            f"its slices lie in several directions ({others} of {len(orientations)} are turned against the "
            "first), as those of a localizer do: choose a series of parallel slices"
        )


def _require_even(along: NDArray[np.float64]) -> None:
    """Checks distances along the normal, in ascending order."""
    gaps = np.diff(along)
    if not gaps.size:
        return
    usual = float(np.median(gaps[gaps > _SAME_PLACE * gaps.max()])) if gaps.max() > 0 else 0.0
    twice = np.flatnonzero(gaps <= _SAME_PLACE * usual)
    if twice.size:
        places = len(along) - len(twice)
        raise ImageError(
            f"{len(along)} slices lie at {places} places (two or more at {along[twice[0]]:.1f} mm along the "
            "slice axis), as several time points, echoes or phases do: store each as a series of its own"
        )
    wide = np.flatnonzero(gaps > _GAP * usual)
    if wide.size:
        first = int(wide[0])
        missing = int((np.rint(gaps[wide] / usual) - 1).sum())
        raise ImageError(
            f"{max(missing, 1)} of its slices are missing: between slice {first + 1} and {first + 2} of "
            f"{len(along)} (at {along[first]:.1f} and {along[first + 1]:.1f} mm along the slice axis) are "
            f"{gaps[first]:.2f} mm, where slices are {usual:.2f} mm apart; send the series again"
        )
    even = np.linspace(along[0], along[-1], len(along))
    off = float(np.abs(along - even).max()) / usual
    if off > _OFF_PLACE:
        raise ImageError(
            f"its slices are not evenly spaced (from {gaps.min():.2f} to {gaps.max():.2f} mm apart, one is "
            f"{off:.1f} slices off its place): resample it to even slices, for example in 3D Slicer"
        )
