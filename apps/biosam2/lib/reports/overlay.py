"""Masks drawn on a frame: a line along the edge and a faint fill."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.reports.colours import Colour, colour_of

Frame = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Masks = Mapping[str, Mask] | Mapping[Colour, Mask] | Mapping[str | Colour, Mask]

FILL = 0.12  # opacity: the object is found at a glance, and what lies under it still shows
# Where two lines run over each other they take turns, so many pixels each.
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

    Lines lie on the object's own outermost pixels. Where those of several masks coincide, their colours take
    turns along the line, so that none hides another.

    Args:
        frame: uint8 ``(H, W, 3)``.
        masks: by the name of their colour ("truth", "before" or "after") or by RGB levels: bool ``(H, W)``.
        side: pixels of the result's longer side; without it the result has the frame's size. On a small frame
            that is enlarged, lines are as thin as on a large one.
        width: of a line, in pixels of the result.
        fill: opacity inside, 0 to 1.

    Returns:
        uint8 ``(H, W, 3)``, or in that proportion.

    Raises:
        ValueError: a frame, mask, colour or number does not fit the description above.
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
    """The object's outermost pixels: those beside a pixel that is not of the object, or at the image's edge.

    Args:
        mask: bool ``(H, W)``.
        width: how many rows of pixels, counted from outside.
    """
    inside = mask
    for _ in range(width):
        padded = np.pad(inside, 1)
        beside = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
        inside = np.logical_and.reduce([inside, *beside])
    return mask & ~inside


def png_bytes(image: Frame) -> bytes:
    """An image ``(H, W, 3)`` as the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_lines(pixels: NDArray[np.float64], colours: Sequence[NDArray], edges: Sequence[Mask]) -> None:
    """Sets the pixels of every line to its colour, or to that of one of the lines by turns."""
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
    """The mask in another size, with a smooth edge where that of the pixels would have steps."""
    if size == mask.shape[1::-1]:
        return mask
    levels = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(levels) > 127


def _check(frame: Frame, masks: Masks, side: int | None, width: int, fill: float) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise ValueError(f"a frame of {frame.dtype} {frame.shape} cannot be drawn on: give uint8 (H, W, 3)")
    for key, mask in masks.items():
        if mask.dtype != np.bool_ or mask.shape != frame.shape[:2]:
            raise ValueError(
                f"the mask {key!r} of {mask.dtype} {mask.shape} does not lie on the frame: "
                f"give bool {frame.shape[:2]}"
            )
    if side is not None and side < 1:
        raise ValueError(f"an image of {side} pixels cannot be drawn: give 1 or more")
    if width < 1 or not 0 <= fill <= 1:
        raise ValueError(f"a line of {width} pixels and a fill of {fill}: give 1 or more, and 0 to 1")
