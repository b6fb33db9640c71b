"""Lines and fills on frames, pixel by pixel."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lib.palette import MASK_COLOURS
from lib.reports.pictures import GAP, Tile, contact_sheet, edge, outlined, png_bytes

GREY = np.full((30, 40, 3), 100, np.uint8)


def box(top, left, bottom, right, shape=(30, 40)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def of_colour(image, name):
    return (image == MASK_COLOURS[name]).all(axis=2)


def test_lines_that_coincide_take_turns():
    mask = box(5, 8, 20, 30)
    drawn = outlined(GREY, {"truth": mask, "before": mask, "after": mask}, fill=0)
    shares = [of_colour(drawn, name)[edge(mask)].mean() for name in MASK_COLOURS]
    assert sum(shares) == 1.0
    assert min(shares) > 0.2

    # Lines that do not coincide are whole.
    truth, after = box(2, 2, 12, 12), box(15, 15, 28, 35)
    drawn = outlined(GREY, {"truth": truth, "after": after})
    assert np.array_equal(of_colour(drawn, "truth"), edge(truth))
    assert np.array_equal(of_colour(drawn, "after"), edge(after))


def test_the_line_is_the_outermost_pixels_and_the_fill_inside():
    drawn = outlined(GREY, {"truth": box(5, 8, 20, 30)}, fill=0)
    expected = box(5, 8, 20, 30) & ~box(6, 9, 19, 29)
    assert np.array_equal(of_colour(drawn, "truth"), expected)
    assert (drawn[~expected] == 100).all()

    # An edge is what an erosion takes away.
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(50, 60)), 3) > 0
    for width in (1, 2, 4):
        assert np.array_equal(edge(mask, width), mask & ~ndimage.binary_erosion(mask, iterations=width))

    # The fill is faint and inside.
    mask = box(5, 8, 20, 30)
    drawn = outlined(GREY, {"after": mask}, fill=0.25)
    inside = mask & ~edge(mask)
    expected = np.rint(100 + 0.25 * (np.asarray(MASK_COLOURS["after"]) - 100.0))
    assert (drawn[inside] == expected).all()
    assert (drawn[~mask] == 100).all()

    # Levels are a colour too.
    mask = box(5, 8, 20, 30)
    assert (outlined(GREY, {(1, 2, 3): mask})[edge(mask)] == (1, 2, 3)).all()


def test_a_frame_is_resized_and_its_lines_stay_thin():
    drawn = outlined(GREY, {"truth": box(5, 10, 20, 30)}, side=400, fill=0)
    assert drawn.shape == (300, 400, 3)
    line = np.argwhere(of_colour(drawn, "truth"))
    assert line.min(axis=0) == pytest.approx([50, 100], abs=2)
    assert line.max(axis=0) == pytest.approx([200, 300], abs=2)
    assert of_colour(drawn, "truth")[150].sum() == 2

    # One pixel still shows on an enlarged frame.
    assert of_colour(outlined(GREY, {"truth": box(7, 7, 8, 8)}, side=400), "truth").any()

    # A large frame is reduced.
    frame = np.full((900, 1200, 3), 50, np.uint8)
    drawn = outlined(frame, {"after": box(300, 300, 600, 900, (900, 1200))}, side=240)
    assert drawn.shape == (180, 240, 3)
    assert of_colour(drawn, "after").any()


def test_an_object_at_the_edge_of_the_image_is_outlined_there():
    assert np.array_equal(edge(np.ones((5, 6), bool)), np.ones((5, 6), bool) & ~box(1, 1, 4, 5, (5, 6)))


def test_nothing_to_draw_is_the_frame_and_the_argument_stays():
    frame = GREY.copy()
    assert np.array_equal(outlined(frame, {}), GREY)
    assert np.array_equal(outlined(frame, {"truth": np.zeros((30, 40), bool)}), GREY)
    outlined(frame, {"truth": np.ones((30, 40), bool)})[:] = 0
    outlined(frame, {})[:] = 0
    assert np.array_equal(frame, GREY)


def test_a_png_is_read_as_it_was():
    drawn = outlined(GREY, {"truth": box(5, 8, 20, 30)})
    read = Image.open(io.BytesIO(png_bytes(drawn)))
    assert read.format == "PNG"
    assert np.array_equal(np.asarray(read), drawn)


def test_threads_draw_side_by_side():
    masks = [box(2, 2, 3 + number % 20, 30) for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda mask: outlined(GREY, {"truth": mask}, side=200), masks))
    for mask, image in zip(masks, drawn, strict=True):
        assert np.array_equal(image, outlined(GREY, {"truth": mask}, side=200))


RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)


def plain(colour, height=40, width=60):
    return np.full((height, width, 3), colour, np.uint8)


def place(sheet, colour):
    """Top, left, bottom and right of what has a colour."""
    found = np.argwhere((sheet == colour).all(axis=2))
    return (*found.min(axis=0).tolist(), *(found.max(axis=0) + 1).tolist())


def ink(sheet, top, bottom, left=0, right=None):
    """Whether there is text."""
    return bool((sheet[top:bottom, left:right] < 128).all(axis=2).any())


def test_tiles_lie_in_rows_and_columns():
    sheet = contact_sheet([[Tile(plain(RED)), Tile(plain(GREEN))], [Tile(plain(BLUE))]])
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == GAP + 2 * (60 + GAP)
    assert place(sheet, RED) == (GAP, GAP, GAP + 40, GAP + 60)
    assert place(sheet, GREEN) == (GAP, 60 + 2 * GAP, GAP + 40, 120 + 2 * GAP)
    top, left, bottom, right = place(sheet, BLUE)
    assert (left, right, bottom - top) == (GAP, GAP + 60, 40)
    assert top > GAP + 40

    # Tiles are as they were given.
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    sheet = contact_sheet([[Tile(noise, "noise")]])
    assert np.array_equal(sheet[GAP : GAP + 40, GAP : GAP + 60], noise)

    # A smaller tile lies in the middle of its cell and no row is higher than it must be.
    rows = [[Tile(plain(RED, 100, 80)), Tile(plain(GREEN, 40, 60))], [Tile(plain(BLUE, 20, 80))]]
    sheet = contact_sheet(rows)
    assert place(sheet, GREEN) == (GAP + 30, 80 + 2 * GAP + 10, GAP + 70, 80 + 2 * GAP + 70)
    assert sheet.shape[0] < 100 + 20 + 6 * GAP

    # An empty cell stays white.
    sheet = contact_sheet([[None, Tile(plain(RED))]])
    assert place(sheet, RED)[1] == 60 + 2 * GAP
    assert (sheet[:, : 60 + 2 * GAP] == 255).all()


def test_captions_lie_below_and_are_cut_to_the_tile():
    sheet = contact_sheet([[Tile(plain(RED), "very long words " * 9 + "\nDice 0.9"), Tile(plain(GREEN))]])
    bottom = place(sheet, RED)[2]
    assert ink(sheet, bottom, sheet.shape[0], 0, GAP + 60)
    assert not ink(sheet, bottom, sheet.shape[0], 2 * GAP + 60)


def test_heading_and_legend_lie_above():
    rows = [[Tile(plain(RED, width=200)), Tile(plain(GREEN, width=200))]]
    sheet = contact_sheet(rows, heading="Head", legend=["truth", "after", ("other", BLUE)])
    top, left = place(sheet, RED)[:2]
    truth, after, other = (
        place(sheet, colour) for colour in (MASK_COLOURS["truth"], MASK_COLOURS["after"], BLUE)
    )
    assert ink(sheet, 0, truth[0])
    assert truth[1] < after[1] < other[1]
    assert truth[0] == after[0] == other[0]
    assert other[2] < top
    assert left == GAP


def test_a_legend_wider_than_the_tiles_is_whole():
    sheet = contact_sheet([[Tile(plain(RED, 9, 9))]], legend=["truth", "before", "after"])
    assert place(sheet, MASK_COLOURS["after"])[3] < sheet.shape[1] - 30


def test_a_name_without_a_colour_is_refused():
    with pytest.raises(ValueError, match="Unknown colour 'other'"):
        contact_sheet([[Tile(plain(RED))]], legend=["other"])
    with pytest.raises(ValueError, match="Unknown colour 'mine'"):
        outlined(GREY, {"mine": np.ones((30, 40), bool)})
