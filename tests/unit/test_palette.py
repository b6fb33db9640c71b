import itertools

import pytest

from lib.palette import CLASS_COLOURS, LINE_COLOURS, MASK_COLOURS, STAIN_COLOURS, colour_of


def lightness(colour):
    """Relative luminance by WCAG 2.1."""
    linear = [
        level / 255 / 12.92 if level <= 10 else ((level / 255 + 0.055) / 1.055) ** 2.4 for level in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_name_or_levels():
    assert colour_of("truth") == MASK_COLOURS["truth"]
    assert colour_of((1, 2, 3)) == (1, 2, 3)


def test_the_colours_on_images_can_be_told_apart_without_hue():
    for first, second in itertools.combinations(MASK_COLOURS.values(), 2):
        low, high = sorted((lightness(first), lightness(second)))
        assert (high + 0.05) / (low + 0.05) > 1.5


def test_no_colour_means_two_things():
    for colours in (list(MASK_COLOURS.values()), LINE_COLOURS, CLASS_COLOURS, STAIN_COLOURS):
        assert len(set(colours)) == len(colours)


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"Unknown colour 'result' \(available: truth, before, after"):
        colour_of("result")


def test_what_is_no_colour_is_refused():
    for levels in [(1, 2), (1, 2, 256), (-1, 2, 3)]:
        with pytest.raises(ValueError, match="use three levels from 0 to 255"):
            colour_of(levels)
