"""Simple volumes and a picture with known truth, unlike the training's scenes in how they are made."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["all_phantoms"]


def _ellipsoid(shape: tuple[int, int, int], centre: tuple, radii: tuple) -> np.ndarray:
    """Bool (T, H, W): inside an ellipsoid of this centre and these radii, in voxels."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)) <= 1


def _finish(values: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    smooth = ndimage.gaussian_filter(values, (0.3, 0.7, 0.7))
    return (np.clip(smooth + rng.normal(0, noise, values.shape), 0, 1) * 255).astype(np.uint8)


def _ct(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A body with a liver, two kidneys, a spleen and a spine: (T, H, W) levels and labels 1..5."""
    shape = (32, 160, 192)
    values, labels = np.zeros(shape), np.zeros(shape, dtype=np.int16)
    body = _ellipsoid(shape, (16, 80, 96), (200, 68, 86))
    values[body] = 0.42
    organs = (
        ((16, 70, 62), (14, 36, 40), 0.66),
        ((15, 100, 70), (9, 14, 10), 0.58),
        ((15, 100, 126), (9, 14, 10), 0.58),
        ((17, 72, 142), (9, 20, 14), 0.55),
        ((16, 118, 97), (60, 11, 11), 0.95),
    )
    for number, (centre, radii, value) in enumerate(organs, start=1):
        inside = _ellipsoid(shape, centre, radii)
        values[inside], labels[inside] = value, number
    return _finish(values, rng, 0.05), labels


def _mr(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A head with a bright lesion and dark ventricles: levels and labels 1, 2."""
    shape = (28, 144, 128)
    values, labels = np.zeros(shape), np.zeros(shape, dtype=np.int16)
    values[_ellipsoid(shape, (14, 72, 64), (60, 66, 56))] = 0.75
    values[_ellipsoid(shape, (14, 72, 64), (50, 58, 49))] = 0.4
    for number, (centre, radii, value) in enumerate(
        (((14, 52, 82), (7, 11, 9), 0.8), ((14, 74, 60), (9, 17, 8), 0.15)), start=1
    ):
        inside = _ellipsoid(shape, centre, radii)
        values[inside], labels[inside] = value, number
    return _finish(values, rng, 0.04), labels


def _cells(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A plane of bright round cells on dark ground: levels (1, H, W) and a label for each."""
    shape = (1, 176, 176)
    values, labels = np.full(shape, 0.1), np.zeros(shape, dtype=np.int16)
    number = 0
    for row in range(5):
        for column in range(5):
            number += 1
            centre = (0, 20 + 34 * row + rng.uniform(-6, 6), 20 + 34 * column + rng.uniform(-6, 6))
            inside = _ellipsoid(shape, centre, (1, rng.uniform(7, 14), rng.uniform(7, 14)))
            values[inside], labels[inside] = rng.uniform(0.45, 0.9), number
    return _finish(values, rng, 0.05), labels


def all_phantoms() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name to (levels (T, H, W) uint8, labels (T, H, W) int16), the same every time."""
    rng = np.random.default_rng(5)
    return {"ct phantom": _ct(rng), "mr phantom": _mr(rng), "cells": _cells(rng)}
