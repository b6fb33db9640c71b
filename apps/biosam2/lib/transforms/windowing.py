"""Intensities to 8-bit levels: choice of the window, and its application to a slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from lib.errors import PromptError
from lib.transforms.sampling import require_finite, sorted_sample

# Soft tissue, width 400 and level 40 HU: what MedSAM and MedSAM2 were trained with.
CT_SOFT_TISSUE = (-160.0, 240.0)

# Air is -1000 HU, and a scan that shows none of it has at least fat and the padding of its table.
CT_MINIMUM_BELOW = -500.0
# What a scanner measures. Below lies only padding (one value, the minimum); above, only metal.
CT_RANGE = (-1100.0, 3100.0)
CT_RANGE_SHARE = 0.98
# Fat to enhanced blood. A phase or subtraction image can fall into CT_RANGE, hardly ever with less of this.
CT_TISSUE_RANGE = (-200.0, 300.0)
CT_TISSUE_SHARE = 0.01
# Fat, lung and air lie below. Without any of it, beside padding, values that reach down so far are no CT.
CT_FAT = -20.0
CT_BELOW_WATER_SHARE = 0.005
# But for a crop out of soft tissue of a CT by its tags.
CT_SOFT_SHARE = 0.9

PERCENTILES = (0.5, 99.5)
# A value that fills a tenth of the image is its background (air, padding, a slide's white) and would pull the
# percentiles to itself.
BACKGROUND_SHARE = 0.1

# 8-bit images are display levels already, unless they use so few of them that they would show as black.
LEVELS_NEEDED = 32


@dataclass(frozen=True)
class IntensityWindow:
    """The interval of intensities that is shown from black to white.

    Attributes:
        low: Intensity that becomes level 0, as everything below.
        high: Intensity that becomes level 255, as everything above.
        source: Origin of the choice: ``request``, ``dicom``, ``levels``, ``ct`` or ``percentiles``.
    """

    low: float
    high: float
    source: str

    def apply(self, array: NDArray) -> NDArray[np.uint8]:
        """Maps intensities to levels: linear, clipped to the window, rounded to the nearest.

        Meant for one slice at a time: it makes a float copy of what it gets.

        Args:
            array: Any shape, integer or float.

        Returns:
            uint8 of the same shape, 0 to 255. An 8-bit array under the window (0, 255) comes back as it is.
        """
        if array.dtype == np.uint8 and (self.low, self.high) == (0.0, 255.0):
            return array
        # 24 bits of mantissa hold every 16-bit integer; wider types get a wider float.
        wide = array.dtype.itemsize > 2 and array.dtype != np.float32
        levels: NDArray[np.floating] = array.astype(np.float64 if wide else np.float32)
        with np.errstate(over="ignore"):
            levels -= self.low
            levels *= 255.0 / (self.high - self.low)
        np.clip(levels, 0.0, 255.0, out=levels)
        np.rint(levels, out=levels)
        return levels.astype(np.uint8)


def choose_window(
    array: NDArray,
    *,
    requested: Sequence[float] | None = None,
    dicom: tuple[float, float] | None = None,
    modality: str | None = None,
) -> IntensityWindow:
    """Chooses the window of an image: the request's, else DICOM's, else one by the intensities.

    DICOM's is left out where no voxel lies in it, and where a CT's values are all positive and its window is
    not, as after a conversion that forgot the tags. Else levels of
    8 bits stay as they are, CT in Hounsfield units gets the soft tissue window, and everything else the 0.5th
    to the 99.5th percentile without the background. Intensities are judged by a sample
    (``sampling.sorted_sample``), so the cost does not grow with the volume.

    Args:
        array: Whole image, any shape, integer or float, finite.
        requested: (low, high) of the request, in the image's intensities.
        dicom: (low, high) of the image's DICOM tags.
        modality: DICOM modality such as ``CT`` or ``MR``; None if it is not known.

    Raises:
        PromptError: The requested window is not two finite numbers, low before high.
        ImageError: The sample has NaN or infinite values.
    """
    if requested is not None:
        return _requested_window(requested)
    sample = sorted_sample(array)
    require_finite(sample)
    if dicom is not None and _is_meant_for(sample, dicom, modality):
        return IntensityWindow(float(dicom[0]), float(dicom[1]), "dicom")
    if array.dtype == np.uint8 and sample[-1] >= LEVELS_NEEDED:
        return IntensityWindow(0.0, 255.0, "levels")
    if modality in (None, "CT") and _is_hounsfield(sample, known_ct=modality == "CT"):
        return IntensityWindow(*CT_SOFT_TISSUE, "ct")
    return _percentile_window(sample)


def dicom_window(center: float, width: float, function: str = "LINEAR") -> tuple[float, float] | None:
    """Interval of DICOM's window centre and width (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        center: IntensityWindow Center (0028,1050).
        width: IntensityWindow Width (0028,1051).
        function: VOI LUT Function (0028,1056). ``LINEAR``: from c - 0.5 - (w-1)/2 to c - 0.5 + (w-1)/2;
            ``LINEAR_EXACT`` and, as its nearest straight line, ``SIGMOID``: from c - w/2 to c + w/2.

    Returns:
        (low, high), or None if the tags make no interval.
    """
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    low, high = center - width / 2.0, center + width / 2.0
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def _requested_window(requested: Sequence[float]) -> IntensityWindow:
    remedy = "send [low, high] in the image's intensities, for example [-160, 240]"
    if isinstance(requested, str) or not isinstance(requested, Sequence) or len(requested) != 2:
        raise PromptError(f"window {requested!r} is not two numbers: {remedy}")
    if any(isinstance(value, bool) or not isinstance(value, Real) for value in requested):
        raise PromptError(f"window {requested!r} is not two numbers: {remedy}")
    try:
        low, high = float(requested[0]), float(requested[1])
    except OverflowError as error:
        raise PromptError(f"window has a number that no float holds: {remedy}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high and math.isfinite(high - low)):
        raise PromptError(f"window [{low:g}, {high:g}] must be finite with low below high: {remedy}")
    return IntensityWindow(low, high, "request")


def _is_hounsfield(sample: NDArray, *, known_ct: bool) -> bool:
    """Whether sorted intensities are Hounsfield units. A CT by its tags need not show air."""
    if sample.dtype == np.uint8 or not (known_ct or sample[0] <= CT_MINIMUM_BELOW):
        return False
    # The minimum alone may be padding, around an MR as well.
    measured = sample[np.searchsorted(sample, sample[0], side="right") :]
    if not measured.size:
        return False
    is_soft = known_ct and _share(measured, CT_TISSUE_RANGE) >= CT_SOFT_SHARE
    return (
        (is_soft or _share(measured, (CT_RANGE[0], CT_FAT)) >= CT_BELOW_WATER_SHARE)
        and _share(measured, CT_RANGE) >= CT_RANGE_SHARE
        and _share(measured, CT_TISSUE_RANGE) >= CT_TISSUE_SHARE
    )


def _is_meant_for(sample: NDArray, interval: tuple[float, float], modality: str | None) -> bool:
    """Whether DICOM's window shows something of sorted intensities.

    A CT whose values are all positive lost its intercept: a window that begins below zero shows its air.
    """
    is_shifted = sample[0] >= 0 and _share(sample, CT_TISSUE_RANGE) < CT_SOFT_SHARE
    if modality == "CT" and interval[0] < 0 and is_shifted:
        return False
    return _shows_anything(sample, interval)


def _shows_anything(ordered: NDArray, interval: tuple[float, float]) -> bool:
    """Whether some intensity lies in the interval, ends not counted: else all is black or white."""
    first = np.searchsorted(ordered, interval[0], side="right")
    last = np.searchsorted(ordered, interval[1], side="left")
    return bool(last > first)


def _share(ordered: NDArray, interval: tuple[float, float]) -> float:
    first = np.searchsorted(ordered, interval[0], side="left")
    last = np.searchsorted(ordered, interval[1], side="right")
    return float(last - first) / ordered.size


def _percentile_window(sample: NDArray) -> IntensityWindow:
    foreground = _without_background(sample)
    low, high = (float(value) for value in np.percentile(foreground, PERCENTILES))
    if low >= high:
        low, high = float(sample[0]), float(sample[-1])
    if low >= high:
        # A constant image: any window makes it uniform, this one keeps it black.
        high = low + max(1.0, abs(low))
    return IntensityWindow(low, high, "percentiles")


def _without_background(ordered: NDArray) -> NDArray:
    """Sorted intensities without their most frequent value, where that is the background."""
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.append(starts, ordered.size))
    longest = int(np.argmax(lengths))
    start, length = int(starts[longest]), int(lengths[longest])
    if length < BACKGROUND_SHARE * ordered.size or length == ordered.size:
        return ordered
    return np.concatenate((ordered[:start], ordered[start + length :]))
