"""Lists of clicks: ``foreground``, ``background``, per-label lists, ``points`` with ``point_labels``."""

from collections.abc import Mapping
from typing import Any

from lib.errors import PromptError
from lib.prompts.parsing.grid import Grid
from lib.prompts.parsing.slices import SliceOption
from lib.prompts.parsing.values import number, sequence, shown, vector
from lib.prompts.types import Point

MAX_POINTS = 1000  # in one list: no person clicks more, and the decoder's time and memory grow with each

_POINT_LABELS = {1.0: True, 0.0: False}
_PADDING = -1.0  # VISTA-3D pads its lists with this label


class PointReader:
    """Reads points on one image.

    Args:
        grid: The image.
        option: The request's slice, for the points that come as [x, y].
    """

    def __init__(self, grid: Grid, option: SliceOption) -> None:
        self._grid = grid
        self._option = option

    def read(self, value: Any, name: str, positive: bool = True) -> list[Point]:
        """A list of points; None is an empty list, and None entries (OHIF sends them) are left out.

        Raises:
            PromptError: It is no list of points inside the image, or it is longer than ``MAX_POINTS``.
        """
        entries = sequence(value, name, "a list of points, [[i, j, k], ...]")
        kept = [(index, entry) for index, entry in enumerate(entries) if entry is not None]
        _check_count(len(kept), name)
        return [self._one(entry, f"{name}[{index}]", positive) for index, entry in kept]

    def read_labelled(self, request: Mapping[str, Any]) -> list[Point]:
        """``points`` with one ``point_labels`` entry for each: 1 positive, 0 negative, -1 padding.

        Raises:
            PromptError: The lists do not match, or an entry is not allowed.
        """
        points = sequence(request.get("points"), "points", "a list of points, [[i, j, k], ...]")
        labels = request.get("point_labels")
        labels = sequence(
            [1] * len(points) if labels is None else labels, "point_labels", "a list of 1 and 0"
        )
        if len(points) != len(labels):
            raise PromptError(
                f"points has {len(points)} entries and point_labels {len(labels)}; "
                "send one label for each point, 1 for positive and 0 for negative."
            )
        _check_count(len(points), "points")
        result = []
        for index, (entry, label) in enumerate(zip(points, labels, strict=True)):
            if entry is None:
                continue
            value = number(label, f"point_labels[{index}]")
            if value == _PADDING:
                continue
            if value not in _POINT_LABELS:
                raise PromptError(
                    f"point_labels[{index}] is {shown(label)}; "
                    "expected 1 (positive), 0 (negative) or -1 (padding)."
                )
            result.append(self._one(entry, f"points[{index}]", _POINT_LABELS[value]))
        return result

    def _one(self, entry: Any, name: str, positive: bool) -> Point:
        values = vector(entry, name, (2, 3), "one point, [i, j, k] in a volume or [x, y] in a 2-D image")
        name = f"{name} = {shown(list(entry))}"
        if len(values) == 2:
            x, y = self._grid.local(*values)
            return self._grid.point(self._grid.ijk(x, y, self._option.index(name)), name, positive)
        shift = self._grid.ijk(*self._grid.offset, 0.0)
        i, j, k = (value - by for value, by in zip(values, shift, strict=True))
        return self._grid.point((i, j, k), name, positive)


def _check_count(count: int, name: str) -> None:
    if count > MAX_POINTS:
        raise PromptError(f"{name} has {count} points; at most {MAX_POINTS} are allowed in one list.")
