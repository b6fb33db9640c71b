"""Colours of everything that the app draws or writes: RGB levels, 0 to 255."""

from __future__ import annotations

Colour = tuple[int, int, int]

# Okabe and Ito 2008, "Color Universal Design": distinguishable with every kind of colour vision. Yellow,
# vermillion and sky also differ in lightness, so they remain distinguishable in a grey print.
YELLOW, VERMILLION, SKY = (240, 228, 66), (213, 94, 0), (86, 180, 233)
ORANGE, GREEN, BLUE, PURPLE = (230, 159, 0), (0, 158, 115), (0, 114, 178), (204, 121, 167)
WHITE, BLACK, GREY = (255, 255, 255), (30, 30, 30), (110, 110, 110)

# Outlines on images.
MASK_COLOURS: dict[str, Colour] = {"truth": YELLOW, "before": VERMILLION, "after": SKY}
# Lines on white paper, on which yellow is invisible.
LINE_COLOURS: tuple[Colour, ...] = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
# Classes of a label file without colours of its own, in the order of the classes.
CLASS_COLOURS: tuple[Colour, ...] = (VERMILLION, BLUE, GREEN, YELLOW, PURPLE, SKY, ORANGE)
# Classes on slides, in the order of the classes: without the colours of pink and violet stains.
STAIN_COLOURS: tuple[Colour, ...] = (GREEN, YELLOW, BLUE, VERMILLION, SKY, ORANGE)


def colour_of(key: str | Colour) -> Colour:
    """RGB levels for a name in ``MASK_COLOURS``, or the given levels.

    Raises:
        ValueError: the name is unknown, or the levels are not three numbers from 0 to 255.
    """
    if isinstance(key, str):
        if key not in MASK_COLOURS:
            raise ValueError(f"Unknown colour {key!r} (available: {', '.join(MASK_COLOURS)}, or RGB levels)")
        return MASK_COLOURS[key]
    if len(key) != 3 or not all(0 <= level <= 255 for level in key):
        raise ValueError(f"Invalid colour {key}: use three levels from 0 to 255")
    return key
