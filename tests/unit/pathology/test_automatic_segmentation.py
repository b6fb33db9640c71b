"""Every nucleus of a region: each once, whole, and nothing that is no nucleus."""

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import Point, box

from lib.engine.runtime import Cancellation
from lib.errors import Cancelled, ImageTooLargeError
from lib.pathology.automatic_segmentation import (
    FIELD_SIDE,
    QUALITY,
    MaskMeasurements,
    candidates,
    nested,
    segment_nuclei,
)
from lib.pathology.interactive import SlidePredictor
from lib.pathology.nuclei import detections, propose_nuclei, stain_of
from tests.support.slides import GLASS, Cell, iou, paint, scatter
from tests.unit.pathology.test_interactive import DarkObjects, dark_cells, slide
from tests.unit.pathology.test_slide import Endless, picture


def segmented(on, *regions, network=None, scale=0.5):
    return segment_nuclei(SlidePredictor(on, network or DarkObjects(), scale), list(regions))


def found_in(region, *cells):
    return segmented(slide(*cells), region)


def require_each_once(found, cells, least=0.85):
    assert len(found) == len(cells)
    assert all(max(iou(item.area, cell.outline) for item in found) > least for cell in cells)


def test_nuclei_of_a_region_are_found_once_wherever_patches_meet():
    cells = scatter(700, 500, 60, seed=5, gap=4)
    found = segmented(picture(dark_cells(cells, 700, 500)), (0, 0, 700, 500))
    require_each_once(found, cells, least=0.85)
    assert all(item.score > 0.5 for item in found)


def test_a_nucleus_on_the_border_of_two_parts_is_found_once_and_whole():
    # Parts of a region, and rectangles side by side, meet at x = 600.
    cell = Cell(600.5, 300, 14, 11, 0)
    found = segmented(slide(cell, Cell(300, 300, 13, 12, 0)), (200, 200, 400, 200), (600, 200, 200, 200))
    require_each_once(found, [cell, Cell(300, 300, 13, 12, 0)])


def test_touching_neighbours_are_two():
    cells = [Cell(470, 440, 12, 14, 0), Cell(496, 440, 12, 14, 0)]
    found = found_in((400, 380, 200, 120), *cells)
    assert len(found) == 2
    assert found[0].area.intersection(found[1].area).area < 1e-6


def test_an_object_elsewhere_is_not_included():
    assert found_in((420, 400, 60, 60), Cell(500, 430, 12, 12, 0)) == []


def test_glass_is_not_segmented():
    network = DarkObjects()
    assert segmented(slide(), (300, 300, 500, 500), network=network) == []
    assert network.asked == []
    glass = np.full((300, 300, 3), GLASS, np.uint8)
    assert segmented(picture(glass), (0, 0, 300, 300), network=network) == []


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_the_work_depends_on_micrometres_and_not_on_pixels(mpp):
    step = round(mpp / 0.25)
    cells = scatter(512, 384, 20, seed=8)
    pixels = dark_cells(cells, 512, 384)[::step, ::step]
    network = DarkObjects()
    on = picture(np.ascontiguousarray(pixels))
    on.mpp = mpp
    found = segmented(on, (0, 0, on.width, on.height), network=network, scale=0.125 / mpp)
    smaller = [Cell(c.x / step, c.y / step, c.a / step, c.b / step, c.angle) for c in cells]
    require_each_once(found, smaller, least=0.7)
    sides = {asked.width * mpp for asked, _ in network.asked}
    assert max(sides) < 100


@pytest.mark.parametrize(("small", "sides"), [(3, {192}), (20, {192, 96})])
def test_a_few_small_nuclei_need_no_patches_of_their_own(small, sides):
    large = [Cell(x, 100, 12, 12, 0) for x in (60, 140, 220)]
    cells = [Cell(20 + 16 * (number % 5), 170 + 16 * (number // 5), 4, 4, 0) for number in range(small)]
    network = DarkObjects()
    found = segmented(picture(dark_cells(large + cells, 288, 260)), (0, 0, 288, 260), network=network)
    require_each_once(found, large + cells, least=0.5)
    assert {asked.width for asked, _ in network.asked} == sides


MEASURED = MaskMeasurements(
    agreement=0.8,
    contrast=0.3,
    fill=0.0,
    proposal=1.0,
    logit=4.0,
    red=0.25,
    density=0.5,
    unevenness=0.1,
)


def test_masks_know_how_many_larger_ones_they_lie_in():
    areas = [box(0, 0, 40, 40), box(5, 5, 25, 25), box(10, 10, 16, 16), box(1, 0, 41, 40), box(90, 0, 99, 9)]
    found = nested([(area, MEASURED) for area in areas])
    assert [round(np.expm1(item.nesting)) for _, item in found] == [0, 2, 3, 0, 0]
    assert nested([]) == []


@pytest.mark.parametrize("changed", [{"nesting": 0.7}, {"unevenness": 0.3}, {"agreement": 0.3}])
def test_parts_of_nuclei_and_borders_of_tissue_are_worse_than_nuclei(changed):
    model = QUALITY[True]
    assert model.quality(replace(MEASURED, **changed)) < model.quality(MEASURED)


def test_the_border_of_pale_and_dark_tissue_has_uneven_surroundings():
    cells = [Cell(60, 100, 12, 12, 0), Cell(150, 100, 12, 12, 0)]
    pixels = dark_cells(cells, 300, 200)
    pixels[:, 160:] = np.minimum(pixels[:, 160:], (150, 110, 150))
    on = picture(pixels)
    found, _ = candidates(SlidePredictor(on, DarkObjects(), 0.5), (0, 0, 300, 200), 1.0)
    even, uneven = (
        max(found, key=lambda item: iou(item[0].area, cell.outline))[1].unevenness for cell in cells
    )
    assert even < 0.05 < uneven


def test_too_large_a_region_is_refused_before_anything_is_read():
    with pytest.raises(ImageTooLargeError, match="the limit of the automatic segmentation is 67"):
        segmented(Endless(100_000, 80_000), (0, 0, 100_000, 80_000))


def test_a_cancelled_request_stops():
    cancellation = Cancellation()
    cancellation.cancel()
    with cancellation.applied(), pytest.raises(Cancelled):
        found_in((0, 0, FIELD_SIDE, FIELD_SIDE), Cell(500, 430, 12, 12, 0))


def test_a_request_that_is_cancelled_during_the_proposals_stops_at_the_next_radius():
    cancellation = Cancellation()
    with cancellation.applied():
        steps = detections(stain_of(paint(200, 160, [Cell(60, 60, 15, 12, 0.3)], seed=2)))
        next(steps)
        cancellation.cancel()
        with pytest.raises(Cancelled):
            next(steps)


def test_stain_is_bright_whatever_the_microscopy():
    cells = [Cell(60, 60, 15, 12, 0.3), Cell(140, 90, 14, 14, 0)]
    stained = paint(200, 160, cells, seed=2)
    grey = stained.mean(axis=2).astype(np.uint8)[..., None].repeat(3, axis=2)
    fluorescent = 255 - grey
    fluorescent = (fluorescent.astype(float) - fluorescent.min()).astype(np.uint8)
    for pixels, is_dark in ((stained, False), (grey, False), (fluorescent // 2, True)):
        stain = stain_of(pixels)
        assert stain.is_fluorescent == is_dark
        assert stain.is_coloured == (pixels is stained)
        inside, outside = stain.amount[52:68, 52:68].mean(), stain.amount[100:150, 20:100].mean()
        assert inside > 0.7 > 0.5 > outside


def test_proposals_have_the_size_of_the_nuclei():
    cells = scatter(400, 400, 30, seed=1)
    proposals = propose_nuclei(paint(400, 400, cells, seed=1))
    # Pieces of nuclei are proposed as well; the network and the quality of its masks tell.
    for cell in cells:
        item = next(item for item in proposals.found if cell.outline.contains(Point(item.centre)))
        assert item.radius == pytest.approx((cell.a * cell.b) ** 0.5, rel=0.2)
        assert cell.outline.intersection(box(*item.box)).area > 0.95 * cell.outline.area


def test_nuclei_of_several_sizes_and_stains_are_proposed_on_one_slide():
    """Two pieces of tissue, one pale with small nuclei, one dark with large ones, and glass between them."""
    small = [Cell(c.x / 2, c.y / 2, c.a / 2, c.b / 2, c.angle) for c in scatter(560, 560, 30, seed=2)]
    large = scatter(280, 280, 12, seed=3)
    pale = paint(280, 280, small, seed=2)
    dark = np.rint(paint(280, 280, large, seed=3) * 0.4).astype(np.uint8)
    pixels = np.full((300, 640, 3), GLASS, np.uint8)
    pixels[10:290, 10:290], pixels[10:290, 350:630] = pale, dark
    found = propose_nuclei(pixels).found
    cells = [replace(c, x=c.x + 10, y=c.y + 10) for c in small]
    cells += [replace(c, x=c.x + 350, y=c.y + 10) for c in large]
    boxes = [box(*item.box) for item in found]
    seen = [max(iou(one, cell.outline.envelope) for one in boxes) > 0.7 for cell in cells]
    assert np.mean(seen) > 0.9
