"""Automatic segmentation: every nucleus of a region, from classical proposals that the network outlines."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.special import expit, logit
from shapely.geometry import Polygon

from lib.engine.runtime import report_progress
from lib.errors import ImageTooLargeError
from lib.pathology.interactive import NEAR_BORDER, PATCH_MPP, Outline, SlidePredictor, distinct
from lib.pathology.nuclei import RADIUS_RANGE, Proposal, Stain, fill, propose_nuclei, surroundings
from lib.pathology.outlines import outline
from lib.pathology.patch import Patch, TileRectangle, read_patch
from lib.prompts.types import FramePrompts

logger = logging.getLogger(__name__)

Region = tuple[int, int, int, int]
"""x, y, width, height in level-0 pixels."""

# Side of the squares that nuclei are proposed in, and the margin in which neighbours see the same nuclei, in
# pixels at the working resolution.
FIELD_SIDE, FIELD_MARGIN = 1024, 64
# Working resolution in micrometres per pixel where a slide is scanned finer.
FIELD_MPP = 0.25
# Largest area of one request in pixels at the working resolution: about ten minutes on two cores.
MOST_PIXELS = 1 << 26
# Limits of the radius in micrometres of the nuclei that are looked for.
RADIUS_UM = (0.9, 4.0)
# Limits of a nucleus's radius in its patch, in patch pixels: between them outlines from a click and a box
# are as good (biosam2_mini). Encoding a patch takes as long as the masks of eight nuclei: fewer small ones
# lie on a coarser patch.
PATCH_RADII, LEAST_ON_FINE_PATCH = (4.5, 24.0), 8
# Distance of two patches as a share of their side: nuclei smaller than the rest lie whole on one of them.
# With patches a third longer, and so a third fewer, precision fell from 0.84 to 0.82 (biosam2_mini).
PATCH_STEP = 0.75
# Difference between the darkest and the lightest block (pixels) of a field below which it is empty glass: the
# noise of single pixels is averaged away.
FLAT, BLOCK = 12.0, 8
# Logistic regression of "IoU with a labelled nucleus above 0.5" on what is known of a mask, for coloured and
# for grey pictures: constant, IoU with its proposal, contrast of the stain to the surroundings, logarithm of
# its area in that of the ellipse with its moments, logit of the proposal's score, mean logit, contrast of the
# red and the blue density. Fitted by `python -m benchmarks.nuclei --fit masks`; predicted IoU, stability, the
# number of other masks that are the same object, and roundness added next to nothing.
WEIGHTS = {
    True: (-2.76, 0.03, 2.21, -2.95, 0.8, 0.44, -4.52, 6.45),
    False: (-5.77, 2.48, -0.21, -4.97, 1.06, 0.82, 0.25, 0.25),
}
# Quality from which on a mask counts as a nucleus.
LEAST_QUALITY = 0.25


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
    fill: float
    proposal: float
    logit: float
    red: float
    blue: float

    def quality(self, is_coloured: bool) -> float:
        """Estimated probability of being a nucleus, 0 to 1, in a coloured or a grey picture."""
        constant, *weights = WEIGHTS[is_coloured]
        return float(expit(constant + np.dot(weights, astuple(self))))


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
    return max(1.0, predictor.scale * FIELD_MPP / PATCH_MPP)


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
    patches = _patches(predictor, field, proposals.found)
    return [
        item for place in patches.items() for item in _on_patch(predictor, field, proposals.stain, *place)
    ]


def _on_patch(
    predictor: SlidePredictor,
    field: Field,
    stain: Stain,
    rectangle: TileRectangle,
    proposals: Sequence[Proposal],
) -> list[tuple[Outline, MaskMeasurements]]:
    """Masks of some proposals, from a click and a box each, on one patch."""
    patch = read_patch(predictor.slide, rectangle)
    clicks = field.to_slide(np.array([item.centre for item in proposals]) + 0.5) - 0.5
    corners = field.to_slide(np.reshape([item.box for item in proposals], (-1, 2))).reshape(-1, 4)
    one = np.ones(1, dtype=np.int32)
    prompts = [
        FramePrompts(patch.inside(click), one, patch.box_inside(corner))
        for click, corner in zip(clicks, corners, strict=True)
    ]
    logits = predictor.predictor.outputs(patch, 0, prompts).logits
    measured = (
        _measured(patch, field, stain, item, mask) for item, mask in zip(proposals, logits, strict=True)
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


def _patches(
    predictor: SlidePredictor, field: Field, proposals: Sequence[Proposal]
) -> dict[TileRectangle, list[Proposal]]:
    """The core's proposals by patch, at the scale that suits their size where it is worth a patch."""
    low = np.array(field.core[:2])
    high = low + field.core[2:]
    doublings: dict[int, list[Proposal]] = defaultdict(list)
    for item in proposals:
        middle = field.to_slide(np.array([item.centre]) + 0.5)[0]
        if (middle >= low).all() and (middle < high).all():
            doublings[_doublings(item.radius)].append(item)
    found: dict[TileRectangle, list[Proposal]] = {}
    for number in range(min([0, *doublings]), max([0, *doublings]) + 1):
        scale = 2.0**number * float(field.step.mean())
        for rectangle, items in _on_grid(predictor, field, doublings[number], scale).items():
            if number < 0 and len(items) < LEAST_ON_FINE_PATCH:
                doublings[number + 1] += items
            else:
                found[rectangle] = items
    return found


def _doublings(radius: float) -> int:
    """Times that the pixels of a field are doubled (negative: halved) for a radius within ``PATCH_RADII``."""
    smallest, largest = PATCH_RADII
    return max(0, math.ceil(math.log2(radius / largest))) + min(0, math.floor(math.log2(radius / smallest)))


def _on_grid(
    predictor: SlidePredictor, field: Field, proposals: Sequence[Proposal], scale: float
) -> dict[TileRectangle, list[Proposal]]:
    """Proposals by the patch whose middle is nearest, of a grid of patches of one scale over the field."""
    size = np.array(field.pixels.shape[1::-1]) * field.step
    grids = _grid(size, min(round(predictor.side * scale), math.floor(size.max())))
    found: dict[TileRectangle, list[Proposal]] = defaultdict(list)
    for item in proposals:
        middle = (np.array(item.centre) + 0.5) * field.step
        (x, width), (y, height) = (
            intervals[np.argmin(np.abs(intervals @ (1, 0.5) - place))]
            for intervals, place in zip(grids, middle, strict=True)
        )
        rectangle = TileRectangle(field.x + int(x), field.y + int(y), int(width), int(height), scale)
        found[rectangle].append(item)
    return found


def _grid(size: NDArray[np.float64], length: int) -> list[NDArray[np.int_]]:
    """Starts and lengths (N, 2) of evenly spaced patches along x and along y that cover a field.

    Args:
        size: (2,) of the field in level-0 pixels.
        length: Side of a patch in level-0 pixels.
    """
    found = []
    for extent in np.rint(size).astype(int):
        last = max(0, extent - length)
        count = math.ceil(last / (PATCH_STEP * length)) + 1
        starts = np.unique(np.rint(np.linspace(0, last, count)).astype(int))
        found.append(np.column_stack([starts, np.full(len(starts), min(length, extent))]))
    return found


def _measured(
    patch: Patch, field: Field, stain: Stain, proposal: Proposal, logits: NDArray[np.float32]
) -> tuple[Outline, MaskMeasurements] | None:
    """The largest piece of a mask on the slide with its measurements; None where it is empty or cut off."""
    pieces = outline(logits, patch.width, patch.height).geoms
    if not pieces:
        return None
    piece = max(pieces, key=lambda part: part.area)
    area = patch.to_slide(piece)
    if not isinstance(area, Polygon) or patch.cuts(area, NEAR_BORDER):
        return None
    found = _on_field(patch, field, logits)
    if found is None:
        return None
    contrast, red, _, blue = _contrasts(found, stain)
    features = MaskMeasurements(
        agreement=found.overlap(proposal),
        contrast=contrast,
        fill=float(np.log(fill(found.mask))),
        proposal=float(logit(proposal.score)),
        logit=float(logits[logits > 0].mean()),
        red=red,
        blue=blue,
    )
    return Outline(area, features.quality(stain.is_coloured)), features


def _on_field(patch: Patch, field: Field, logits: NDArray[np.float32]) -> Proposal | None:
    """A mask in pixels of the field, in its own box; None where it is empty there."""
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
    resized = resized[: field.pixels.shape[0] - top, : field.pixels.shape[1] - left]
    boxes = ndimage.find_objects(resized.astype(np.uint8))
    if not boxes:
        return None
    rows, columns = boxes[0]
    return Proposal(top + rows.start, left + columns.start, resized[rows, columns], 0.0)


def _contrasts(found: Proposal, stain: Stain) -> NDArray[np.float64]:
    """Mean stain and densities (4,) of a mask less those of a ring of half a radius around it."""
    width = max(2, round(found.radius / 2))
    inside = np.pad(found.mask, width)
    ring = ndimage.binary_dilation(inside, iterations=width) & ~inside
    rows, columns = (
        np.arange(side) + start - width
        for side, start in zip(inside.shape, (found.top, found.left), strict=True)
    )
    amount, density, is_glass = (
        values.take(rows, axis=0, mode="clip").take(columns, axis=1, mode="clip")
        for values in (stain.amount, stain.density, stain.is_glass)
    )
    values, ring = np.dstack([amount, density]), surroundings(ring, is_glass.astype(bool))
    return np.asarray(values[inside].mean(axis=0) - values[ring].mean(axis=0), dtype=float)


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
