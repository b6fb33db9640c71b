"""Surface distances between two masks: normalized surface Dice (NSD) and the 95% Hausdorff distance (HD95).

Computed by DeepMind's ``surface-distance`` (Nikolov et al. 2018, arXiv 1809.04430): a surface consists of
elements at the corners between voxels, each weighted by its area. MONAI uses the object's outermost voxels
instead, each counted once: always in ``compute_hausdorff_distance``, and in ``compute_surface_dice`` unless
``use_subvoxels`` is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import surface_distance
from numpy.typing import NDArray

from lib.metrics.overlap import Mask, check_pair

# Relative to the tolerance and to a voxel. Spacings often have 7 digits: three voxels of 0.7 mm must be
# within 2.1 mm.
_ROUNDING = 1e-6
_ROBUST_PERCENT = 95


def normalized_surface_dice(
    first: Mask, second: Mask, spacing: Sequence[float], tolerance_mm: float
) -> float:
    """Share of both surfaces within a tolerance of the other surface (Nikolov et al. 2018, section 4.3).

    Args:
        first: 2-D or 3-D bool.
        second: bool, same shape.
        spacing: mm per axis, in the masks' axis order.
        tolerance_mm: Distance in mm, 0 or more.

    Returns:
        0 to 1. Two empty masks: 1 (DeepMind: NaN); one empty mask: 0.

    Raises:
        ValueError: a mask is not bool or not 2-D or 3-D, the shapes differ, or the spacing or the tolerance
            is invalid.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"Invalid tolerance {tolerance_mm} mm: use 0 or more")
    distances = _surface_distances(first, second, spacing)
    if not (first.any() or second.any()):
        return 1.0
    limit = tolerance_mm + _ROUNDING * (tolerance_mm + min(spacing))
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, limit))


def hausdorff95(first: Mask, second: Mask, spacing: Sequence[float]) -> float:
    """Distance in mm that covers 95% of each surface's area, the larger of the two directions.

    Args:
        first: 2-D or 3-D bool.
        second: bool, same shape.
        spacing: mm per axis, in the masks' axis order.

    Returns:
        mm. Two empty masks: 0; one empty mask: infinity.

    Raises:
        ValueError: a mask is not bool or not 2-D or 3-D, the shapes differ, or the spacing is invalid.
    """
    distances = _surface_distances(first, second, spacing)
    if not (first.any() or second.any()):
        return 0.0
    return float(surface_distance.compute_robust_hausdorff(distances, _ROBUST_PERCENT))


def _surface_distances(
    first: Mask, second: Mask, spacing: Sequence[float]
) -> Mapping[str, NDArray[np.float64]]:
    """Distances and areas of the surface elements of both masks."""
    check_pair(first, second)
    if first.ndim not in (2, 3):
        raise ValueError(f"Masks with {first.ndim} axes have no surface distance: use 2-D or 3-D masks")
    if len(spacing) != first.ndim or not all(np.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(
            f"Invalid spacing {tuple(spacing)}: use a positive number for each of {first.ndim} axes"
        )
    found: Mapping[str, NDArray[np.float64]] = surface_distance.compute_surface_distances(
        first, second, tuple(spacing)
    )
    return found
