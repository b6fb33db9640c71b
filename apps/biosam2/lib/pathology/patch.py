"""Patches: rectangles of a slide at the resolution at which the network segments their objects."""

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

# Patches begin at multiples of a quarter of their side, so that a second click nearby uses the same patch and
# its embedding. A click then lies at least three eighths of the side from the patch's border.
PLACES = 4


@dataclass(frozen=True)
class TileRectangle:
    """A rectangle of a slide and its resolution.

    Attributes:
        x: Left edge in level-0 pixels.
        y: Upper edge in level-0 pixels.
        width: Width in level-0 pixels.
        height: Height in level-0 pixels.
        scale: Level-0 pixels per pixel of the patch along one axis; below 1 the patch has fewer pixels, and
        the
            network enlarges them.
    """

    x: int
    y: int
    width: int
    height: int
    scale: float


@dataclass(frozen=True, eq=False)
class Patch:
    """The pixels of a rectangle; for the engine an image of one frame.

    Attributes:
        rectangle: Position and resolution.
        pixels: uint8 (H, W, 3).
        slide_size: (width, height) of the slide in level-0 pixels.
    """

    rectangle: TileRectangle
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
        """Pixels of frame 0, the only one.

        Raises:
            IndexError: ``index`` is not 0.
        """
        if index != 0:
            raise IndexError(f"a patch has one frame, 0, and no frame {index}")
        return self.pixels

    def key(self, index: int) -> Hashable:
        """Cache key of a frame: only its index."""
        return index

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of size and pixels, the same for equal patches of different files."""
        digest = hashlib.sha256(f"patch {self.pixels.shape}".encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()

    @property
    def steps(self) -> NDArray[np.float64]:
        """Level-0 pixels per pixel of the patch, (2,) along x and y."""
        rectangle = self.rectangle
        return np.array([rectangle.width / self.width, rectangle.height / self.height])

    def inside(self, points: ArrayLike) -> NDArray[np.float32]:
        """Converts points (N, 2) from level-0 pixel indices to pixel indices of the patch."""
        corner = np.array([self.rectangle.x, self.rectangle.y], float)
        places = np.asarray(points, dtype=float).reshape(-1, 2) + 0.5
        return np.asarray((places - corner) / self.steps - 0.5, dtype=np.float32)

    def box_inside(self, corners: ArrayLike) -> NDArray[np.float32]:
        """Converts a box of edges x0, y0, x1, y1 (4,) from the slide to the patch."""
        corner = np.array([self.rectangle.x, self.rectangle.y], float)
        places = np.asarray(corners, dtype=float).reshape(2, 2)
        return np.asarray((places - corner) / self.steps, dtype=np.float32).ravel()

    def to_slide(self, area: BaseGeometry) -> BaseGeometry:
        """Converts an area from the patch to the slide."""
        step_x, step_y = self.steps
        return affine_transform(area, [step_x, 0, 0, step_y, self.rectangle.x, self.rectangle.y])

    @property
    def area(self) -> Polygon:
        """The rectangle as a polygon on the slide."""
        rectangle = self.rectangle
        x, y = rectangle.x, rectangle.y
        return box(x, y, x + rectangle.width, y + rectangle.height)

    def cuts(self, area: BaseGeometry, margin: float) -> bool:
        """Whether an area reaches an edge of the patch that is not the slide's own edge.

        Args:
            area: Area on the slide.
            margin: Distance in patch pixels below which it counts as reaching the edge.
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


def read_patch(slide: Slide, rectangle: TileRectangle) -> Patch:
    """Reads a rectangle of a slide.

    Raises:
        ImageTooLargeError: The slide has no level coarse enough for so large a rectangle.
        ImageError: The slide is damaged.
    """
    area = (rectangle.x, rectangle.y, rectangle.width, rectangle.height)
    return Patch(rectangle, slide.read(*area, rectangle.scale), (slide.width, slide.height))


def rectangle_around(slide: Slide, x: float, y: float, side: int, scale: float) -> TileRectangle:
    """The square whose centre is near a point, moved so that it lies on the slide.

    Args:
        slide: Slide; where it is smaller than the square, so is the result.
        x: Column of the point in level-0 pixels.
        y: Row of the point in level-0 pixels.
        side: Side of the patch in its own pixels.
        scale: Level-0 pixels per pixel of the patch.
    """
    length = max(1, round(side * scale))
    step = max(1, length // PLACES)
    corner = []
    sizes = []
    for place, size in ((x, slide.width), (y, slide.height)):
        start = round((place - length / 2) / step) * step
        start = max(0, min(start, size - length))
        corner.append(start)
        sizes.append(min(length, size - start))
    return TileRectangle(corner[0], corner[1], sizes[0], sizes[1], scale)
