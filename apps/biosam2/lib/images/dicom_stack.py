"""Whether the files or frames of a DICOM series are an even stack of slices, and where the stack lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.dicom_header import DicomHeader, Frame

# Direction cosines that differ by less are one direction: DICOM keeps decimals.
_SAME_DIRECTION = 1e-3
# Shares of the usual distance of two slices: below the first they lie at one place, beyond the second one is
# missing between them.
_SAME_PLACE, _GAP = 0.05, 1.5
# Voxels that a slice may lie off its place in an even stack: from a half on, a voxel would be its neighbour.
OFF_PLACE = 0.5
# Files that a message names.
_LISTED = 5


def require_one_stack(headers: Sequence[DicomHeader]) -> None:
    """Refuses what cannot be one volume: it would open, and every mask would lie in the wrong place.

    Files without a position, such as secondary captures, count in the order in which they come. Slices that
    are shifted evenly, as a tilted gantry leaves them, are a stack.

    Args:
        headers: One series.

    Raises:
        ImageError: Several clips, or slices of several sizes or directions, several at one place, or a gap
            between them; with where.
    """
    if len(headers) > 1:
        _require_no_clips(headers)
        _require_one((header.size[:2] for header in headers), "sizes", _one_file(headers))
        _require_one(((header.samples,) for header in headers), "numbers of channels")
    frames = [frame for header in headers for frame in header.frames]
    if len(frames) < 2 or not all(frame.is_placed for frame in frames):
        return
    _require_one_direction(np.array([frame.orientation for frame in frames]))
    _require_one(((tuple(round(v, 4) for v in header.spacing)) for header in headers), "pixel spacings")
    along = _along(frames)
    _require_even(np.sort(along))
    if len(headers) == 1 and len(set(np.sign(np.diff(along)))) > 1:
        raise ImageError(
            "its frames are not in the order of their places, as where several stacks are in one file: store "
            "each stack as a series of its own"
        )
    _require_even_shift(frames, along, headers[0].spacing)


def slice_step(frames: Sequence[Frame]) -> NDArray[np.float64] | None:
    """Vector from the first voxel of a slice to that of the next, LPS millimetres.

    Args:
        frames: Slices of one stack, in their order.

    Returns:
        (3,); of a tilted gantry it is not along the normal. None where positions are missing or the same.
    """
    if len(frames) < 2 or not all(len(frame.position) == 3 for frame in frames):
        return None
    apart = np.array(frames[-1].position) - np.array(frames[0].position)
    return apart / (len(frames) - 1) if apart.any() else None


def is_tilted(frames: Sequence[Frame], spacing: Sequence[float]) -> bool:
    """Whether slices are shifted against each other, so that formats of right angles cannot hold them."""
    step = slice_step(frames)
    if step is None or not frames[0].is_placed:
        return False
    normal = _normal(frames[0])
    shift = np.linalg.norm(step - normal * (step @ normal)) * (len(frames) - 1)
    return bool(shift > OFF_PLACE * min(spacing, default=1.0))


def _normal(frame: Frame) -> NDArray[np.float64]:
    return np.cross(frame.orientation[:3], frame.orientation[3:])


def _along(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Distances along the normal of the first frame, millimetres."""
    return np.array([frame.position for frame in frames]) @ _normal(frames[0])


def _require_no_clips(headers: Sequence[DicomHeader]) -> None:
    clips = [header.size[2] for header in headers if header.size[2] > 1]
    if not clips:
        return
    stills = len(headers) - len(clips)
    what = f"{len(clips)} clips or volumes ({', '.join(str(count) for count in clips[:10])} frames)"
    raise ImageError(
        f"its series holds {what}{f' and {stills} single pictures' if stills else ''}, and an image is "
        f"one of them: {_one_file(headers)}"
    )


def _one_file(headers: Sequence[DicomHeader]) -> str:
    """Remedy for a series whose files are an image each."""
    listed = ", ".join(header.uid for header in headers[:_LISTED])
    return f"ask a DICOM store for one file by its SOP Instance UID ({listed}), or open one file alone"


def _require_one(found: Sequence[Hashable] | object, what: str, otherwise: str = "") -> None:
    counted: Counter[tuple[float, ...]] = Counter(found)  # type: ignore[arg-type]
    if len(counted) < 2:
        return
    listed = ", ".join(
        f"{count} of {' x '.join(f'{number:g}' for number in key) or 'none'}"
        for key, count in counted.most_common()
    )
    raise ImageError(
        f"its slices have several {what} ({listed}), as where a localizer or another scan is among them: "
        f"store each as a series of its own{f', or {otherwise}' if otherwise else ''}"
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
    if off > OFF_PLACE:
        raise ImageError(
            f"its slices are not evenly spaced (from {gaps.min():.2f} to {gaps.max():.2f} mm apart, one is "
            f"{off:.1f} slices off its place): resample it to even slices, for example in 3D Slicer"
        )


def _require_even_shift(frames: Sequence[Frame], along: NDArray, spacing: Sequence[float]) -> None:
    """Refuses slices that are shifted within their plane by more than a tilt explains."""
    order = np.argsort(along)
    positions = np.array([frame.position for frame in frames])[order]
    if np.ptp(along) <= 0:
        return
    shares = (along[order] - along[order[0]]) / np.ptp(along)
    even = positions[0] + shares[:, None] * (positions[-1] - positions[0])
    off = np.linalg.norm(positions - even, axis=1) / min(spacing, default=1.0)
    if off.max() > OFF_PLACE:
        raise ImageError(
            f"its slices are shifted against each other (slice {int(off.argmax()) + 1} by {off.max():.1f} "
            "pixels), and no volume can hold that: resample the series, for example in 3D Slicer"
        )
