"""Automatic segmentation: every nucleus of a region, from classical proposals that the network outlines."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.special import expit
from shapely.geometry import Polygon
from skimage.measure import regionprops

from lib.engine.runtime import report_progress
from lib.errors import ImageTooLargeError
from lib.pathology.interactive import NEAR_BORDER, Outline, SlidePredictor, distinct
from lib.pathology.nuclei import RADIUS_RANGE, Proposals, propose_nuclei
from lib.pathology.outlines import outline
from lib.pathology.patch import Patch, TileRectangle, read_patch
from lib.prompts.types import FramePrompts

logger = logging.getLogger(__name__)

Region = tuple[int, int, int, int]
"""x, y, width, height in level-0 pixels."""

# Side of the squares that nuclei are proposed in, and the margin in which neighbours see the same nuclei, in
# pixels at the working resolution.
FIELD_SIDE, FIELD_MARGIN = 1024, 64
# Working resolution in micrometres per pixel where a slide is scanned finer. On 172 nuclei of haematoxylin
# and eosin, 0.25 found 35 % and 0.4 found 19 %.
FIELD_MPP = 0.25
# Largest area of one request in pixels at the working resolution: about ten minutes on two cores.
MOST_PIXELS = 1 << 26
# Range of a nucleus's radius in micrometres.
RADIUS_UM = (2.0, 8.0)
# Radius of a typical nucleus in a patch, in patch pixels. With 14 instead of 9 as many nuclei were found, in
# twice the time (biosam2_mini).
PATCH_RADIUS = 9.0
# Distance of two patches as a share of their side: nuclei smaller than the rest lie whole on one of them.
PATCH_STEP = 0.75
# Difference between the darkest and the lightest block (pixels) of a field below which it is empty glass: the
# noise of single pixels is averaged away.
FLAT, BLOCK = 12.0, 8
# Logistic regression of "IoU with a labelled nucleus above 0.5" on what is known of a mask: constant, IoU
# with its proposal, contrast of the stain to the surroundings, solidity, logarithm of area / radius squared,
# mean logit. Fitted by `python -m benchmarks.nuclei --fit`; predicted IoU and stability added
# nothing.
WEIGHTS = (-15.7, 7.0, 5.5, 4.6, 0.6, 1.0)
# Quality from which on a mask counts as a nucleus.
LEAST_QUALITY = 0.3


@dataclass(frozen=True)
class Field:
    """A part of a region.

    Attributes:
        core: Region whose nuclei are taken from this field.
        x: Left edge of what is read, in level-0 pixels.
        y: Upper edge of what is read, in level-0 pixels.
        pixels: uint8 (H, W, 3) at the working resolution, core and margin.
        step: Level-0 pixels per pixel, (2,) along x and y.
    """

    core: Region
    x: int
    y: int
    pixels: NDArray[np.uint8]
    step: NDArray[np.float64]

    def to_slide(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Converts edges (N, 2) in pixels of the field to level-0 pixels."""
        return np.asarray(points * self.step + (self.x, self.y))


@dataclass(frozen=True)
class MaskMeasurements:
    """Measurements of a mask that tell nuclei from other objects; ``WEIGHTS`` explains them."""

    agreement: float
    contrast: float
    solidity: float
    relative_area: float
    logit: float

    @property
    def quality(self) -> float:
        """Estimated probability of being a nucleus, 0 to 1."""
        constant, *weights = WEIGHTS
        values = (self.agreement, self.contrast, self.solidity, self.relative_area, self.logit)
        return float(expit(constant + np.dot(weights, values)))


def segment_nuclei(predictor: SlidePredictor, regions: Sequence[Region]) -> list[Outline]:
    """Segments every nucleus whose centre lies in one of the regions; outlines do not overlap.

    Args:
        predictor: Predictor of the slide.
        regions: Rectangles in level-0 pixels.

    Raises:
        ImageTooLargeError: The regions are larger than ``MOST_PIXELS``.
        Cancelled: The client has gone.
    """
    scale = working_scale(predictor)
    cores = list(_cores(regions, scale))
    found: list[Outline] = []
    for number, core in enumerate(cores, start=1):
        report_progress((number - 1) / len(cores))
        found += [item for item, _ in candidates(predictor, core, scale) if item.score >= LEAST_QUALITY]
        logger.info("Automatic segmentation: part %d of %d, %d objects", number, len(cores), len(found))
    return _without_overlaps(distinct(found))


def working_scale(predictor: SlidePredictor) -> float:
    """Level-0 pixels per pixel that nuclei are proposed in."""
    mpp = predictor.slide.mpp
    return max(1.0, FIELD_MPP / mpp) if mpp else max(1.0, predictor.scale)


def candidates(
    predictor: SlidePredictor, core: Region, scale: float
) -> list[tuple[Outline, MaskMeasurements]]:
    """Masks of all proposals of a part of a slide, each with its quality as score.

    Args:
        predictor: Predictor of the slide.
        core: Rectangle of the proposals' centres.
        scale: Level-0 pixels per pixel that nuclei are proposed in.
    """
    field = _read_field(predictor, core, scale)
    if _is_blank(field.pixels):
        return []
    mpp = predictor.slide.mpp
    low, high = (radius / (mpp * scale) for radius in RADIUS_UM) if mpp else RADIUS_RANGE
    proposals = propose_nuclei(field.pixels, (low, high))
    patches = _patches(predictor, field, proposals)
    return [item for place in patches.items() for item in _on_patch(predictor, field, proposals, *place)]


def _on_patch(
    predictor: SlidePredictor,
    field: Field,
    proposals: Proposals,
    rectangle: TileRectangle,
    numbers: list[int],
) -> list[tuple[Outline, MaskMeasurements]]:
    """Masks of some proposals, from a click and a box each, on one patch."""
    patch = read_patch(predictor.slide, rectangle)
    clicks = field.to_slide(proposals.centres[numbers] + 0.5) - 0.5
    corners = field.to_slide(proposals.boxes[numbers].reshape(-1, 2)).reshape(-1, 4)
    one = np.ones(1, dtype=np.int32)
    prompts = [
        FramePrompts(patch.inside(click), one, patch.box_inside(corner))
        for click, corner in zip(clicks, corners, strict=True)
    ]
    logits = predictor.predictor.outputs(patch, 0, prompts).logits
    measured = (
        _measured(patch, field, proposals, number + 1, mask)
        for number, mask in zip(numbers, logits, strict=True)
    )
    return [item for item in measured if item is not None]


def _cores(regions: Sequence[Region], scale: float) -> Iterator[Region]:
    """Parts of at most ``FIELD_SIDE`` pixels that cover the regions, each part once."""
    pixels = sum(width * height for _, _, width, height in regions) / scale**2
    if pixels > MOST_PIXELS:
        raise ImageTooLargeError(
            f"The regions have {pixels / 1e6:.0f} megapixels at {scale:g} pixels of the slide each; the "
            f"limit of the automatic segmentation is {MOST_PIXELS / 1e6:.0f}. Draw a smaller rectangle "
            "(location and size), click on the objects, or send a coarser level"
        )
    side = round(FIELD_SIDE * scale)
    for x, y, width, height in dict.fromkeys(regions):
        for top in range(y, y + height, side):
            for left in range(x, x + width, side):
                yield left, top, min(side, x + width - left), min(side, y + height - top)


def _read_field(predictor: SlidePredictor, core: Region, scale: float) -> Field:
    """The field around a core, without what lies outside the slide: white is no ground for fluorescence."""
    margin = round(FIELD_MARGIN * scale)
    slide, (x, y, width, height) = predictor.slide, core
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(slide.width, x + width + margin), min(slide.height, y + height + margin)
    pixels = slide.read(left, top, right - left, bottom - top, scale)
    step = np.array([(right - left) / pixels.shape[1], (bottom - top) / pixels.shape[0]])
    return Field(core, left, top, pixels, step)


def _is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether a field shows nothing but glass."""
    rows, columns = (side // BLOCK * BLOCK for side in pixels.shape[:2])
    if not rows or not columns:
        return False
    grey = pixels[:rows, :columns].mean(axis=2)
    blocks = grey.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK).mean(axis=(1, 3))
    return bool(np.ptp(blocks) < FLAT)


def _patches(predictor: SlidePredictor, field: Field, proposals: Proposals) -> dict[TileRectangle, list[int]]:
    """Indices of the core's proposals by patch: of a grid over the field, the nearest one."""
    scale = proposals.radius * float(field.step.mean()) / PATCH_RADIUS
    size = np.array(field.pixels.shape[1::-1]) * field.step
    length = min(round(predictor.side * scale), math.floor(size.max()))
    grid = [_starts(round(extent), length) for extent in size]
    width, height = (int(min(length, extent)) for extent in size)
    left, top, *core_size = field.core
    together: dict[TileRectangle, list[int]] = defaultdict(list)
    for number, middle in enumerate(field.to_slide(proposals.centres + 0.5)):
        if (middle < (left, top)).any() or (middle >= np.add((left, top), core_size)).any():
            continue
        x, y = (
            int(starts[np.argmin(np.abs(starts + length / 2 - place))])
            for starts, place in zip(grid, middle - (field.x, field.y), strict=True)
        )
        together[TileRectangle(field.x + x, field.y + y, width, height, scale)].append(number)
    return together


def _starts(extent: int, length: int) -> NDArray[np.int_]:
    """Evenly spaced positions of patches of a length that cover an extent."""
    last = max(0, extent - length)
    return np.unique(np.rint(np.linspace(0, last, math.ceil(last / (PATCH_STEP * length)) + 1)).astype(int))


def _measured(
    patch: Patch, field: Field, proposals: Proposals, number: int, logits: NDArray[np.float32]
) -> tuple[Outline, MaskMeasurements] | None:
    """The largest piece of a mask on the slide with its measurements; None where it is empty or cut off."""
    pieces = outline(logits, patch.width, patch.height).geoms
    if not pieces:
        return None
    piece = max(pieces, key=lambda part: part.area)
    area = patch.to_slide(piece)
    if not isinstance(area, Polygon) or patch.cuts(area, NEAR_BORDER):
        return None
    mask, top, left = _on_field(patch, field, logits)
    if not mask.any():
        return None
    rows, columns = mask.shape
    stain = proposals.stain[top : top + rows, left : left + columns]
    proposal = proposals.labels[top : top + rows, left : left + columns] == number
    features = MaskMeasurements(
        agreement=float((mask & proposal).sum() / (mask | proposal).sum()),
        contrast=_contrast(mask, stain, proposals.radius),
        solidity=float(piece.area / piece.convex_hull.area),
        relative_area=float(np.log(mask.sum() / proposals.radius**2)),
        logit=float(logits[logits > 0].mean()),
    )
    return Outline(area, features.quality), features


def _on_field(patch: Patch, field: Field, logits: NDArray[np.float32]) -> tuple[NDArray[np.bool_], int, int]:
    """A mask in pixels of the field, with the row and column of its upper left corner there."""
    rectangle = patch.rectangle
    left, top = (
        round((place - start) / step)
        for place, start, step in zip((rectangle.x, rectangle.y), (field.x, field.y), field.step, strict=True)
    )
    width, height = (
        max(1, round(side / step))
        for side, step in zip((rectangle.width, rectangle.height), field.step, strict=True)
    )
    resized = np.asarray(Image.fromarray(logits).resize((width, height), Image.Resampling.BILINEAR)) > 0
    return resized[: field.pixels.shape[0] - top, : field.pixels.shape[1] - left], top, left


def _contrast(mask: NDArray[np.bool_], stain: NDArray[np.float32], radius: float) -> float:
    """Mean stain of a mask less that of a ring of half a radius around it."""
    width = max(2, round(radius / 2))
    box = regionprops(mask.astype(np.uint8))[0].bbox
    rows = slice(max(0, box[0] - width), box[2] + width)
    columns = slice(max(0, box[1] - width), box[3] + width)
    inside, values = mask[rows, columns], stain[rows, columns]
    ring = ndimage.binary_dilation(inside, iterations=width) & ~inside
    return float(values[inside].mean() - (values[ring].mean() if ring.any() else 0.0))


def _without_overlaps(found: Sequence[Outline]) -> list[Outline]:
    """The outlines, best first, each without what a better one covers."""
    order = sorted(found, key=lambda item: -item.score)
    areas = [item.area for item in order]
    tree = shapely.STRtree(areas)
    result = []
    for number, item in enumerate(order):
        better = [areas[other] for other in tree.query(item.area, predicate="intersects") if other < number]
        rest = shapely.make_valid(item.area.difference(shapely.union_all(better))) if better else item.area
        parts = [part for part in getattr(rest, "geoms", [rest]) if isinstance(part, Polygon)]
        if parts:
            result.append(replace(item, area=max(parts, key=lambda part: part.area)))
    return result
