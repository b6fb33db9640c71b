"""A slide, of which only regions are ever read.

Coordinates are pixels of level 0, the largest of a slide's resolutions, from its upper left corner: x to the
right, y down, and the first pixel reaches from 0 to 1.
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

# Pixels that are read at once, of whatever level: 4096 x 4096, 64 MiB with their colours.
MOST_PIXELS = 1 << 24


class Slide(ABC):
    """Something with regions. A context manager: leaving it closes the file.

    Args:
        width: of level 0, in pixels.
        height: of level 0, in pixels.
        downsamples: how many pixels of level 0 go into one of each level, along one side; the first is 1.
    """

    def __init__(self, width: int, height: int, downsamples: tuple[float, ...] = (1.0,)):
        self.width = width
        self.height = height
        self.downsamples = downsamples

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - what is in memory has nothing to close
        """Closes the file; nothing can be read afterwards."""

    def read(self, x: int, y: int, width: int, height: int, scale: float = 1.0) -> NDArray[np.uint8]:
        """A region as it looks at some resolution.

        Args:
            x: left edge.
            y: upper edge.
            width: of the region, at least 1.
            height: of the region, at least 1.
            scale: pixels of level 0 for each pixel of the answer along one side, at least 1.

        Returns:
            uint8 (h, w, 3), RGB, of ``width / scale`` by ``height / scale`` pixels, rounded, at least one by
            one; white outside the slide.

        Raises:
            ImageTooLargeError: the slide has no level small enough to read the region from.
            ImageError: the file is damaged.
        """
        level = max(
            (number for number, step in enumerate(self.downsamples) if step <= scale + 1e-3), default=0
        )
        step = self.downsamples[level]
        columns, rows = (max(1, round(side / step)) for side in (width, height))
        if columns * rows > MOST_PIXELS:
            raise ImageTooLargeError(
                f"a region of {width} x {height} pixels takes {columns * rows} pixels of level {level} to "
                f"see, and {MOST_PIXELS} are the limit: draw a smaller one, or save it with more levels"
            )
        pixels = self._read(x, y, level, columns, rows)
        wanted = max(1, round(width / scale)), max(1, round(height / scale))
        if wanted == (columns, rows):
            return pixels
        resized = Image.fromarray(pixels).resize(wanted, Image.Resampling.BOX)
        return np.asarray(resized)

    @abstractmethod
    def _read(self, x: int, y: int, level: int, columns: int, rows: int) -> NDArray[np.uint8]:
        """uint8 (rows, columns, 3) of a level, from (x, y) of level 0 on; white outside the slide."""


class Picture(Slide):
    """A picture that is in memory already, or a region of a slide that another server has cut out.

    Args:
        image: 2-D.
        x: column of the slide that the picture's first one is.
        y: row of the slide that the picture's first one is.
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
