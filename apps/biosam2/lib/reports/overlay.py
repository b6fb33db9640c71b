"""Masks drawn on a frame: an outline and a faint fill."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from lib.palette import Colour, colour_of

Frame = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Masks = Mapping[str, Mask] | Mapping[Colour, Mask] | Mapping[str | Colour, Mask]

FILL = 0.12  # opacity: the object stands out and the image below stays visible
# Dash length in pixels for the colours of coinciding outlines.
_DASH = 4


def outlined(
    frame: Frame,
    masks: Masks,
    *,
    side: int | None = None,
    width: int = 1,
    fill: float = FILL,
) -> Frame:
    """Draws masks on a copy of a frame.

    An outline consists of the object's outermost pixels. Coinciding outlines alternate their colours in
    dashes, so that none hides another.

    Args:
        frame: uint8 ``(H, W, 3)``.
        masks: bool ``(H, W)`` by colour name ("truth", "before" or "after") or RGB levels.
        side: Longer side of the result in pixels; default: the frame's. Line widths do not scale with it.
        width: Line width in pixels of the result.
        fill: Opacity inside the mask, 0 to 1.

    Returns:
        uint8 ``(H, W, 3)``, resized in proportion.

    Raises:
        ValueError: a frame, mask, colour or number is not as described above.
    """
    _check(frame, masks, side, width, fill)
    size = _scaled(frame.shape[:2], side)
    pixels = _resized_frame(frame, size).astype(np.float64)
    colours = [np.asarray(colour_of(key), np.float64) for key in masks]
    resized = [_resized_mask(mask, size) for mask in masks.values()]
    for colour, mask in zip(colours, resized, strict=True):
        pixels[mask] += fill * (colour - pixels[mask])
    _draw_lines(pixels, colours, [edge(mask, width) for mask in resized])
    return np.rint(pixels).astype(np.uint8)


def edge(mask: Mask, width: int = 1) -> Mask:
    """Outermost pixels of an object: beside a background pixel or at the image's edge.

    Args:
        mask: bool ``(H, W)``.
        width: Thickness in pixels, counted from outside.
    """
    outline: Mask = mask & ~binary_erosion(mask, iterations=width)
    return outline


def png_bytes(image: Frame) -> bytes:
    """Content of a PNG file for an image ``(H, W, 3)``."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_lines(pixels: NDArray[np.float64], colours: Sequence[NDArray], edges: Sequence[Mask]) -> None:
    """Draws every line in its colour; shared pixels alternate between the colours."""
    if not edges:
        return
    crossing = np.sum(edges, axis=0)
    rows, columns = np.indices(crossing.shape, sparse=True)
    turn = (rows + columns) // _DASH % np.maximum(crossing, 1)
    before = np.zeros_like(crossing)
    for colour, line in zip(colours, edges, strict=True):
        pixels[line & (before == turn)] = colour
        before += line


def _scaled(shape: tuple[int, ...], side: int | None) -> tuple[int, int]:
    """Width and height of the result."""
    height, width = shape
    scale = 1.0 if side is None else side / max(height, width)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _resized_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    if size == frame.shape[1::-1]:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _resized_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask in another size, with a smooth edge instead of enlarged pixel steps."""
    if size == mask.shape[1::-1]:
        return mask
    levels = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(levels) > 127


def _check(frame: Frame, masks: Masks, side: int | None, width: int, fill: float) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise ValueError(f"Frames must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
    for key, mask in masks.items():
        if mask.dtype != np.bool_ or mask.shape != frame.shape[:2]:
            raise ValueError(
                f"The mask {key!r} must be bool {frame.shape[:2]}, not {mask.dtype} {mask.shape}"
            )
    if side is not None and side < 1:
        raise ValueError(f"Invalid side {side}: use 1 pixel or more")
    if width < 1 or not 0 <= fill <= 1:
        raise ValueError(f"Invalid line width {width} or fill {fill}: use 1 pixel or more, and 0 to 1")
