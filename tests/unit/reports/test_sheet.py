"""Contact sheets: where tiles, captions and the legend lie."""

import numpy as np
import pytest

from lib.palette import MASK_COLOURS
from lib.reports.sheet import GAP, Tile, contact_sheet

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


def test_tiles_are_as_they_were_given():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    sheet = contact_sheet([[Tile(noise, "noise")]])
    assert np.array_equal(sheet[GAP : GAP + 40, GAP : GAP + 60], noise)


def test_a_smaller_tile_lies_in_the_middle_of_its_cell_and_no_row_is_higher_than_it_must_be():
    rows = [[Tile(plain(RED, 100, 80)), Tile(plain(GREEN, 40, 60))], [Tile(plain(BLUE, 20, 80))]]
    sheet = contact_sheet(rows)
    assert place(sheet, GREEN) == (GAP + 30, 80 + 2 * GAP + 10, GAP + 70, 80 + 2 * GAP + 70)
    assert sheet.shape[0] < 100 + 20 + 6 * GAP


def test_an_empty_cell_stays_white():
    sheet = contact_sheet([[None, Tile(plain(RED))]])
    assert place(sheet, RED)[1] == 60 + 2 * GAP
    assert (sheet[:, : 60 + 2 * GAP] == 255).all()


def test_captions_lie_below_and_are_cut_to_the_tile():
    sheet = contact_sheet([[Tile(plain(RED), "very long words " * 9 + "\nDice 0.9"), Tile(plain(GREEN))]])
    bottom = place(sheet, RED)[2]
    assert ink(sheet, bottom, sheet.shape[0], 0, GAP + 60)
    assert not ink(sheet, bottom, sheet.shape[0], 2 * GAP + 60)


def test_heading_legend_and_titles_lie_above():
    rows = [[Tile(plain(RED, width=200)), Tile(plain(GREEN, width=200))]]
    sheet = contact_sheet(
        rows, heading="Head", columns=("one", "two"), legend=["truth", "after", ("other", BLUE)]
    )
    top, left = place(sheet, RED)[:2]
    truth, after, other = (
        place(sheet, colour) for colour in (MASK_COLOURS["truth"], MASK_COLOURS["after"], BLUE)
    )
    assert ink(sheet, 0, truth[0])
    assert truth[1] < after[1] < other[1]
    assert truth[0] == after[0] == other[0]
    assert ink(sheet, other[2] + 1, top, 0, 200)
    assert ink(sheet, other[2] + 1, top, 200 + 2 * GAP)
    assert left == GAP


def test_a_legend_wider_than_the_tiles_is_whole():
    sheet = contact_sheet([[Tile(plain(RED, 9, 9))]], legend=["truth", "before", "after"])
    assert place(sheet, MASK_COLOURS["after"])[3] < sheet.shape[1] - 30


def test_a_sheet_of_nothing_is_refused():
    for rows in ([], [[]], [[None]]):
        with pytest.raises(ValueError, match="at least one tile"):
            contact_sheet(rows)


def test_more_titles_than_columns_are_refused():
    with pytest.raises(ValueError, match="2 titles for 1 columns"):
        contact_sheet([[Tile(plain(RED))]], columns=("one", "two"))


def test_a_name_without_a_colour_is_refused():
    with pytest.raises(ValueError, match="Unknown colour 'other'"):
        contact_sheet([[Tile(plain(RED))]], legend=["other"])
