import itertools

import pytest

from lib.reports.colours import COLOURS, INKS, colour_of


def lightness(colour):
    """Relative luminance by WCAG 2.1."""
    linear = [
        level / 255 / 12.92 if level <= 10 else ((level / 255 + 0.055) / 1.055) ** 2.4 for level in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_name_or_levels():
    assert colour_of("truth") == COLOURS["truth"]
    assert colour_of((1, 2, 3)) == (1, 2, 3)


def test_the_colours_on_images_can_be_told_apart_without_hue():
    for first, second in itertools.combinations(COLOURS.values(), 2):
        low, high = sorted((lightness(first), lightness(second)))
        assert (high + 0.05) / (low + 0.05) > 1.5


def test_no_colour_means_two_things():
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert len(set(INKS)) == len(INKS)


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no colour is called 'result': use truth, before, after, or levels"):
        colour_of("result")


@pytest.mark.parametrize("levels", [(1, 2), (1, 2, 256), (-1, 2, 3)])
def test_what_is_no_colour_is_refused(levels):
    with pytest.raises(ValueError, match="give three levels from 0 to 255"):
        colour_of(levels)
