"""One picture of all prompts and masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from benchmarks.baselines import Click
from demo.session import Answered, Session
from demo.targets import Target
from lib.palette import BLACK, GREEN, MASK_COLOURS, ORANGE, VERMILLION, WHITE
from lib.reports.pictures import edge

PANEL = 232  # pixels, the longer side of each of a row's images
GAP = 6
HEADER = 26
FOOTER = 30
TEXT = 14

MASK, TRUTH = MASK_COLOURS["after"], MASK_COLOURS["truth"]
POSITIVE, NEGATIVE, BOX = GREEN, VERMILLION, ORANGE
OPACITY = 0.4

TITLES = ("clicks", "mask", "box", "mask", "propagated below", "propagated above")

Box = tuple[int, int, int, int]


def draw(sessions: Sequence[Session]) -> Image.Image:
    """A row for each session: its clicks and mask, its box and mask, and two slices of the propagation."""
    width = len(TITLES) * (PANEL + GAP) + GAP
    height = HEADER + len(sessions) * (PANEL + TEXT + 2 * GAP) + FOOTER
    sheet = Image.new("RGB", (width, height), WHITE)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT)
    for column, title in enumerate(TITLES):
        pen.text((GAP + column * (PANEL + GAP), GAP), title, BLACK, font)
    top = HEADER
    for session in sessions:
        name = f"{session.target.case.name}, {session.target.label}"
        pen.text((GAP, top), name, BLACK, font)
        for column, (image, caption) in enumerate(_panels(session)):
            left = GAP + column * (PANEL + GAP)
            sheet.paste(image, (left, top + TEXT + GAP))
            if caption:
                pen.text((left + PANEL, top), caption, BLACK, font, anchor="ra")
        top += PANEL + TEXT + 2 * GAP
    _legend(pen, font, top + GAP)
    return sheet


def _legend(pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, top: int) -> None:
    left = GAP
    entries = (
        ("positive click", POSITIVE), ("negative click", NEGATIVE), ("box", BOX), ("the server's mask", MASK),
        ("outline of the truth", TRUTH),
    )  # fmt: skip
    for text, colour in entries:
        pen.rectangle((left, top + 2, left + TEXT - 2, top + TEXT), colour, BLACK)
        pen.text((left + TEXT + GAP, top), text, BLACK, font)
        left += TEXT + 4 * GAP + int(pen.textlength(text, font))


def _panels(session: Session) -> Iterable[tuple[Image.Image, str]]:
    target, clicked, boxed = session.target, session.clicked[-1], session.boxed
    drawer = SliceDrawer(target, clicked)
    middle = target.middle
    yield drawer.panel(middle, clicks=session.clicks), ""
    yield drawer.panel(middle, answer=clicked), f"Dice {clicked.dice:.3f}"
    yield drawer.panel(middle, box=target.box), ""
    if boxed is not None:
        yield drawer.panel(middle, answer=boxed), f"Dice {boxed.dice:.3f}"
    if session.propagated is not None:
        caption = f"volume {session.propagated.dice:.3f}"
        for index in _quarters(target):
            yield drawer.panel(index, answer=session.propagated), caption
            caption = ""


def _quarters(target: Target) -> tuple[int, int]:
    """Slices a quarter and three quarters up the structure."""
    slices = np.flatnonzero(target.truth.any(axis=(0, 1)))
    return int(slices[len(slices) // 4]), int(slices[3 * len(slices) // 4])


class SliceDrawer:
    """Draws slices of one image with the intensity window of the network.

    Args:
        target: Structure of the image.
        answer: Answer with the ``window`` parameter; default: the image's extremes.
    """

    def __init__(self, target: Target, answer: Answered) -> None:
        self._target = target
        image = target.case.image
        low, high = answer.params.get("window") or (image.min(), image.max())
        self._low, self._high = float(low), float(high)

    def panel(
        self,
        index: int,
        answer: Answered | None = None,
        clicks: Sequence[Click] = (),
        box: Box | None = None,
    ) -> Image.Image:
        """A slice with an answer's mask and the outline of the truth, or with prompts."""
        frame = self._frame(index)
        height, width = frame.shape[:2]
        scale = PANEL / max(height, width)
        size = round(width * scale), round(height * scale)
        image = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        if answer is not None:
            image = _covered(image, answer.mask[:, :, index].T, self._target.truth[:, :, index].T)
        pen = ImageDraw.Draw(image)
        if box is not None:
            pen.rectangle([edge * scale for edge in box], outline=BOX, width=2)
        for click in clicks:
            x, y = (click.x + 0.5) * scale, (click.y + 0.5) * scale
            colour = POSITIVE if click.positive else NEGATIVE
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), colour, WHITE)
        return self._as_seen(image)

    def _frame(self, index: int) -> NDArray[np.uint8]:
        """Levels of a slice, ``(H, W, 3)``."""
        image = self._target.case.image
        if not self._target.case.is_volume:
            return np.ascontiguousarray(image.swapaxes(0, 1)).astype(np.uint8)
        span = max(self._high - self._low, 1e-6)
        levels = (image[:, :, index].T.astype(np.float64) - self._low) / span
        return np.repeat(np.rint(255 * levels.clip(0, 1)).astype(np.uint8)[..., None], 3, axis=2)

    def _as_seen(self, image: Image.Image) -> Image.Image:
        """Radiological orientation: the patient's right on the left, anterior on top."""
        affine = self._target.case.affine
        if affine is None:
            return image
        image = ImageOps.mirror(image) if affine[0, 0] > 0 else image
        return ImageOps.flip(image) if affine[1, 1] > 0 else image


def _covered(image: Image.Image, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Image.Image:
    """The image with a translucent mask and the outline of the truth; masks are ``(H, W)``."""
    large_mask, large_truth = (
        np.asarray(Image.fromarray(each).resize(image.size, Image.Resampling.NEAREST))
        for each in (mask, truth)
    )
    pixels = np.asarray(image).astype(np.float64)
    pixels[large_mask] = (1 - OPACITY) * pixels[large_mask] + OPACITY * np.asarray(MASK)
    pixels[edge(large_mask, 2)] = MASK
    pixels[edge(large_truth)] = TRUTH
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
