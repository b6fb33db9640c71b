"""Access to regions of a slide.

Coordinates are pixels of level 0, the largest of a slide's resolutions, from the upper left corner that
viewers show: x to the right, y down, and the first pixel reaches from 0 to 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.errors import ImageTooLargeError
from lib.images.medical_image import MedicalImage
from lib.transforms.frames import frame_view

# Largest number of pixels that are read at once, of whatever level: 4096 x 4096 take 64 MiB as RGBA.
MOST_PIXELS = 1 << 24
# Pixel sizes outside this range (micrometres) are defaults of software, such as 72 dpi, and not measured.
MPP_RANGE = (0.05, 20.0)


class Slide(ABC):
    """Base class of slides; a context manager that closes the file.

    Args:
        width: Width of level 0 in pixels.
        height: Height of level 0 in pixels.
        downsamples: Level-0 pixels per pixel of each level along one axis; the first is 1.
        mpp: Micrometres per level-0 pixel; None where the file does not say it.
    """

    def __init__(
        self, width: int, height: int, downsamples: tuple[float, ...] = (1.0,), mpp: float | None = None
    ):
        self.width = width
        self.height = height
        self.downsamples = downsamples
        self.mpp = mpp

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - a slide in memory has nothing to close
        """Closes the file; reading afterwards is an error."""

    def read(self, x: int, y: int, width: int, height: int, scale: float = 1.0) -> NDArray[np.uint8]:
        """Reads a region at a resolution.

        Args:
            x: Left edge.
            y: Upper edge.
            width: Width of the region, at least 1.
            height: Height of the region, at least 1.
            scale: Level-0 pixels per pixel of the result along one axis; below 1 counts as 1.

        Returns:
            uint8 (h, w, 3), RGB, of ``width / scale`` by ``height / scale`` pixels, rounded, at least one by
            one; white outside the slide.

        Raises:
            ImageTooLargeError: The slide has no level coarse enough for so large a region.
            ImageError: The file is damaged.
        """
        scale = max(scale, 1.0)
        level = max(
            (number for number, step in enumerate(self.downsamples) if step <= scale + 1e-3), default=0
        )
        step = self.downsamples[level]
        columns, rows = (max(1, round(side / step)) for side in (width, height))
        if columns * rows > MOST_PIXELS:
            raise ImageTooLargeError(
                f"A region of {width} x {height} pixels takes {columns * rows} pixels of level {level}, and "
                f"the limit is {MOST_PIXELS}: draw a smaller one, or save the slide with more levels"
            )
        pixels = self._read(x, y, level, columns, rows)
        wanted = max(1, round(width / scale)), max(1, round(height / scale))
        if wanted == (columns, rows):
            return pixels
        resized = Image.fromarray(pixels).resize(wanted, Image.Resampling.BOX)
        return np.asarray(resized)

    def overview(self, side: int) -> NDArray[np.uint8]:
        """The whole slide as uint8 (h, w, 3), its longer side of about ``side`` pixels.

        Raises:
            ImageTooLargeError: The slide has no coarse level.
            ImageError: The file is damaged.
        """
        scale = max(1.0, max(self.width, self.height) / side)
        return self.read(0, 0, self.width, self.height, scale)

    @abstractmethod
    def _read(self, x: int, y: int, level: int, columns: int, rows: int) -> NDArray[np.uint8]:
        """uint8 (rows, columns, 3) of a level, from level-0 position (x, y) on; white outside the slide."""


class Picture(Slide):
    """A picture in memory, or a region that another server has cut out of a slide.

    Args:
        image: 2-D image.
        x: Column of the slide at which the picture begins.
        y: Row of the slide at which the picture begins.
    """

    def __init__(self, image: MedicalImage, x: int = 0, y: int = 0):
        super().__init__(x + image.shape[0], y + image.shape[1])
        self._frame = frame_view(image.array, 2, 0)
        self._window = image.window()
        self._origin = (x, y)

    def _read(self, x: int, y: int, level: int, columns: int, rows: int) -> NDArray[np.uint8]:
        x, y = x - self._origin[0], y - self._origin[1]
        out = np.full((rows, columns, 3), 255, np.uint8)
        part = self._frame[max(0, y) : max(0, y + rows), max(0, x) : max(0, x + columns)]
        if part.size:
            levels = self._window.apply(part)
            top, left = max(0, -y), max(0, -x)
            target = out[top : top + part.shape[0], left : left + part.shape[1]]
            target[...] = levels if levels.ndim == 3 else levels[..., None]
        return out


def plausible_mpp(*values: float | str | None) -> float | None:
    """Mean of pixel sizes in micrometres; None unless all are numbers in ``MPP_RANGE``."""
    try:
        sizes = [float(value) for value in values]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    low, high = MPP_RANGE
    return float(np.mean(sizes)) if sizes and all(low <= size <= high for size in sizes) else None
