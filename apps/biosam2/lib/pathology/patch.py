"""What the network looks at: a patch of a slide, at a resolution at which its objects are of a good size."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from shapely.affinity import affine_transform
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from lib.pathology.slide import Slide

# Places of patches are multiples of a part of their side, so that a second click nearby meets the same patch
# and its embedding. A click then lies at least three eighths of the side from the patch's border.
PLACES = 4


@dataclass(frozen=True)
class Window:
    """A rectangle of a slide, and how closely it is looked at.

    Attributes:
        x: left edge, in pixels of level 0.
        y: upper edge.
        width: in pixels of level 0.
        height: in pixels of level 0.
        scale: pixels of level 0 for each pixel that the network sees, along one side.
    """

    x: int
    y: int
    width: int
    height: int
    scale: float


@dataclass(frozen=True, eq=False)
class Patch:
    """The pixels of a window; it stands for an image of one frame in the engine.

    Attributes:
        window: its place.
        pixels: uint8 (H, W, 3).
        slide_size: (width, height) of the slide, in pixels of level 0.
    """

    window: Window
    pixels: NDArray[np.uint8]
    slide_size: tuple[int, int]

    @property
    def height(self) -> int:
        """Pixels along y."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Pixels along x."""
        return int(self.pixels.shape[1])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The pixels; there is one frame, 0.

        Raises:
            IndexError: for any other.
        """
        if index != 0:
            raise IndexError(f"a patch has one frame, 0, and no frame {index}")
        return self.pixels

    def key(self, index: int) -> Hashable:
        """Of the frame: nothing but the content matters."""
        return index

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of size and pixels: the same patch has the same one, from whatever file."""
        digest = hashlib.sha256(f"patch {self.pixels.shape}".encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()

    @property
    def steps(self) -> NDArray[np.float64]:
        """Pixels of level 0 for each of the patch, (2,) along x and y: the scale, but for rounding."""
        window = self.window
        return np.array([window.width / self.width, window.height / self.height])

    def inside(self, points: ArrayLike) -> NDArray[np.float32]:
        """Points (N, 2) on the slide, each naming a pixel of level 0 by its index, as points on the patch."""
        corner = np.array([self.window.x, self.window.y], float)
        places = np.asarray(points, dtype=float).reshape(-1, 2) + 0.5
        return np.asarray((places - corner) / self.steps - 0.5, dtype=np.float32)

    def box_inside(self, corners: ArrayLike) -> NDArray[np.float32]:
        """A box x0, y0, x1, y1 (4,) of edges on the slide as one on the patch."""
        corner = np.array([self.window.x, self.window.y], float)
        places = np.asarray(corners, dtype=float).reshape(2, 2)
        return np.asarray((places - corner) / self.steps, dtype=np.float32).ravel()

    def to_slide(self, area: BaseGeometry) -> BaseGeometry:
        """An area on the patch as one on the slide."""
        step_x, step_y = self.steps
        return affine_transform(area, [step_x, 0, 0, step_y, self.window.x, self.window.y])

    @property
    def area(self) -> Polygon:
        """Its place on the slide."""
        window = self.window
        return box(window.x, window.y, window.x + window.width, window.y + window.height)

    def cuts(self, area: BaseGeometry, margin: float) -> bool:
        """Whether an area of the slide comes near an edge of the patch that is not the slide's own.

        Args:
            area: on the slide.
            margin: what counts as near, in pixels of the patch.
        """
        if area.is_empty:
            return False
        near_x, near_y = self.steps * margin
        x0, y0, x1, y1 = area.bounds
        left, top, right, bottom = self.area.bounds
        return bool(
            (left > 0 and x0 < left + near_x)
            or (top > 0 and y0 < top + near_y)
            or (right < self.slide_size[0] and x1 > right - near_x)
            or (bottom < self.slide_size[1] and y1 > bottom - near_y)
        )


def read_patch(slide: Slide, window: Window) -> Patch:
    """Reads a window of a slide.

    Raises:
        ImageError: the slide is damaged, or has no level to read so large a window from.
    """
    pixels = slide.read(window.x, window.y, window.width, window.height, window.scale)
    return Patch(window, pixels, (slide.width, slide.height))


def window_around(slide: Slide, x: float, y: float, side: int, scale: float) -> Window:
    """The window whose middle is near a place, moved so that it lies on the slide.

    Args:
        slide: of which it is a part; where it is smaller than the window, so is the window.
        x: of the place, in pixels of level 0.
        y: of the place.
        side: of the patch, in its own pixels.
        scale: pixels of level 0 for each of those.
    """
    length = round(side * scale)
    step = max(1, length // PLACES)
    corner = []
    sizes = []
    for place, size in ((x, slide.width), (y, slide.height)):
        start = round((place - length / 2) / step) * step
        start = max(0, min(start, size - length))
        corner.append(start)
        sizes.append(min(length, size - start))
    return Window(corner[0], corner[1], sizes[0], sizes[1], scale)
