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

Mask = tuple[Polygon, "MaskMeasurements"]
"""Area in level-0 pixels and measurements."""

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
# Share of a mask that lies in another one, and its largest size compared with it, where it is nested in it.
NESTED, SMALLER = 0.7, 0.6


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
    """Measurements of a mask that tell nuclei from other objects.

    Attributes:
        agreement: IoU with its proposal.
        contrast: Stain less that of the surroundings.
        fill: Logarithm of its area in that of the ellipse with its moments.
        proposal: Logit of the proposal's score.
        logit: Mean mask logit.
        red: Density of red less that of the surroundings.
        density: Density of red.
        unevenness: Standard deviation of the surroundings' stain; large where tissue of unlike stain meets.
        nesting: Logarithm of 1 plus the number of larger masks that it lies in.
    """

    agreement: float
    contrast: float
    fill: float
    proposal: float
    logit: float
    red: float
    density: float
    unevenness: float
    nesting: float = 0.0


@dataclass(frozen=True)
class QualityModel:
    """Logistic regression of "IoU with a labelled nucleus above 0.5" on the measurements of a mask.

    Attributes:
        least: Quality from which on a mask counts as a nucleus.
        constant: Logit where all measurements are 0.
        weights: Weight of each measurement that is used.
    """

    least: float
    constant: float
    weights: dict[str, float]

    def quality(self, measurements: MaskMeasurements) -> float:
        """Estimated probability of being a nucleus, 0 to 1."""
        terms = (weight * getattr(measurements, name) for name, weight in self.weights.items())
        return float(expit(self.constant + sum(terms)))


# By whether a picture is coloured; fitted by `python -m benchmarks.nuclei --fit masks`. Predicted IoU,
# stability and roundness added next to nothing. The number of smaller masks in a mask told clusters from
# nuclei, but took large nuclei of coarse chromatin for clusters. In grey pictures unevenness and nesting
# changed neither precision nor recall.
QUALITY = {
    True: QualityModel(
        0.33,
        -3.54,
        {
            "agreement": 0.85,
            "proposal": 0.47,
            "logit": 0.83,
            "red": 3.47,
            "density": -1.38,
            "unevenness": -4.08,
            "nesting": -1.12,
        },
    ),
    False: QualityModel(
        0.25,
        -5.89,
        {"agreement": 2.71, "contrast": -0.24, "fill": -4.73, "proposal": 1.06, "logit": 0.81, "red": 0.49},
    ),
}


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
        masks, model = candidates(predictor, core, scale)
        found += [item for item, _ in masks if item.score >= model.least]
        logger.info("Automatic segmentation: part %d of %d, %d objects", number, len(cores), len(found))
    return _without_overlaps(distinct(found))


def working_scale(predictor: SlidePredictor) -> float:
    """Level-0 pixels per pixel that nuclei are proposed in."""
    return max(1.0, predictor.scale * FIELD_MPP / PATCH_MPP)


def candidates(
    predictor: SlidePredictor, core: Region, scale: float
) -> tuple[list[tuple[Outline, MaskMeasurements]], QualityModel]:
    """Masks of all proposals of a part of a slide, and the model that gives them their quality as score.

    Args:
        predictor: Predictor of the slide.
        core: Rectangle of the proposals' centres.
        scale: Level-0 pixels per pixel that nuclei are proposed in.
    """
    field = _read_field(predictor, core, scale)
    if _is_blank(field.pixels):
        return [], QUALITY[False]
    mpp = predictor.slide.mpp
    low, high = (radius / (mpp * scale) for radius in RADIUS_UM) if mpp else RADIUS_RANGE
    proposals = propose_nuclei(field.pixels, (low, high))
    model = QUALITY[proposals.stain.is_coloured]
    patches = _patches(predictor, field, proposals.found)
    masks = [
        item for place in patches.items() for item in _on_patch(predictor, field, proposals.stain, *place)
    ]
    return [(Outline(area, model.quality(item)), item) for area, item in nested(masks)], model


def _on_patch(
    predictor: SlidePredictor,
    field: Field,
    stain: Stain,
    rectangle: TileRectangle,
    proposals: Sequence[Proposal],
) -> list[Mask]:
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
) -> Mask | None:
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
    features = MaskMeasurements(
        agreement=found.overlap(proposal),
        fill=float(np.log(fill(found.mask))),
        proposal=float(logit(proposal.score)),
        logit=float(logits[logits > 0].mean()),
        **_stained(found, stain),
    )
    return area, features


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


def _stained(found: Proposal, stain: Stain) -> dict[str, float]:
    """Measurements of the stain in a mask and in a ring of half a radius around it."""
    width = max(2, round(found.radius / 2))
    inside = np.pad(found.mask, width)
    ring = ndimage.binary_dilation(inside, iterations=width) & ~inside
    rows, columns = (
        np.arange(side) + start - width
        for side, start in zip(inside.shape, (found.top, found.left), strict=True)
    )
    amount, red, is_glass = (
        values.take(rows, axis=0, mode="clip").take(columns, axis=1, mode="clip")
        for values in (stain.amount, stain.density[..., 0], stain.is_glass)
    )
    tissue = surroundings(ring, is_glass.astype(bool))
    return {
        "contrast": float(amount[inside].mean() - amount[tissue].mean()),
        "red": float(red[inside].mean() - red[tissue].mean()),
        "density": float(red[inside].mean()),
        "unevenness": float(amount[ring].std()),
    }


def nested(masks: Sequence[Mask]) -> list[Mask]:
    """The masks with their nesting in one another."""
    areas = np.array([area for area, _ in masks], dtype=object)
    sizes = shapely.area(areas)
    one, other = shapely.STRtree(areas).query(areas, predicate="intersects")
    is_smaller = sizes[one] < SMALLER * sizes[other]
    one, other = one[is_smaller], other[is_smaller]
    common = shapely.area(shapely.intersection(areas[one], areas[other]))
    counts = np.bincount(one[common > NESTED * sizes[one]], minlength=len(masks))
    return [
        (area, replace(item, nesting=float(np.log1p(count))))
        for count, (area, item) in zip(counts, masks, strict=True)
    ]


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
