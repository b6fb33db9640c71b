"""One fixed colour for each thing that is drawn."""

from __future__ import annotations

Colour = tuple[int, int, int]

# From Okabe and Ito 2008, "Color Universal Design": to be told apart with every kind of colour vision. The
# first three also differ in lightness, so that they can be told apart in a grey print.
YELLOW, VERMILLION, SKY = (240, 228, 66), (213, 94, 0), (86, 180, 233)
ORANGE, GREEN, BLUE, PURPLE = (230, 159, 0), (0, 158, 115), (0, 114, 178), (204, 121, 167)
# On an image.
COLOURS: dict[str, Colour] = {"truth": YELLOW, "before": VERMILLION, "after": SKY}
# On white, where yellow does not show.
INKS: tuple[Colour, ...] = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)


def colour_of(key: str | Colour) -> Colour:
    """RGB levels for a name in COLOURS, or for levels themselves.

    Raises:
        ValueError: there is no such name, or three levels from 0 to 255 are not given.
    """
    if isinstance(key, str):
        if key not in COLOURS:
            raise ValueError(
                f"no colour is called {key!r}: use {', '.join(COLOURS)}, or levels such as {GREEN}"
            )
        return COLOURS[key]
    if len(key) != 3 or not all(0 <= level <= 255 for level in key):
        raise ValueError(f"{key} is no colour: give three levels from 0 to 255")
    return key
