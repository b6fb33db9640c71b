"""Figures as PNG files.

Drawn with matplotlib's objects instead of pyplot, whose figures are global, so that threads can draw at once.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.text import Text

from lib.palette import LINE_COLOURS

Ink = tuple[float, float, float]

DPI = 110
WIDTH_IN, CURVES_HEIGHT_IN = 7.2, 3.6
_BOX_HEIGHT_IN, _BOX_MARGIN_IN = 0.42, 1.0
# More points would hide the box.
_SHOWN_POINTS = 60
_STROKES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P")
# Longest curve with a marker at every point; on longer ones markers hide the line.
_MARKED_POINTS = 40


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    title: str = "",
    *,
    y_limits: tuple[float, float] | None = None,
) -> bytes:
    """Draws one line per series; content of a PNG file.

    Args:
        series: Pairs of x and y by name, in the order of x. A NaN y leaves a gap in the line.
        x_label: Label with unit.
        y_label: Label with unit.
        title: Text above the figure.
        y_limits: Lowest and highest visible y; default: from the values.
    """
    figure, axes = _figure(CURVES_HEIGHT_IN, title)
    lines = []
    for number, points in enumerate(series.values()):
        across, up = np.asarray(points, np.float64).reshape(-1, 2).T
        marker = _MARKERS[number % len(_MARKERS)] if len(across) <= _MARKED_POINTS else ""
        lines += axes.plot(
            across,
            up,
            color=_ink(number),
            linestyle=_STROKES[number // len(LINE_COLOURS) % len(_STROKES)],
            linewidth=1.6,
            marker=marker,
            markersize=4,
        )
    _label(axes, x_label, y_label)
    axes.grid(alpha=0.3)
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    if len(series) > 1 or (lines and not title):
        # Names are set afterwards: matplotlib omits labels with a leading underscore.
        legend = axes.legend(lines, [str(number) for number in range(len(lines))], fontsize=9, frameon=False)
        _write(legend.get_texts(), series)
    return _png(figure)


def box_plot(
    groups: Mapping[str, Sequence[float]],
    value_label: str,
    title: str = "",
    *,
    limits: tuple[float, float] | None = None,
) -> bytes:
    """Draws one horizontal box per group, from top to bottom; content of a PNG file.

    A box spans the quartiles and marks the median; whiskers reach the farthest value within 1.5 box lengths.
    Groups of up to 60 values also show every value as a point.

    Args:
        groups: Values by group name. Values that are not finite are omitted and counted in the group's label.
        value_label: Label with unit.
        title: Text above the figure.
        limits: Lowest and highest visible value; default: from the values.
    """
    figure, axes = _figure(_BOX_MARGIN_IN + _BOX_HEIGHT_IN * max(len(groups), 1), title)
    places = range(len(groups), 0, -1)
    for number, (place, values) in enumerate(zip(places, groups.values(), strict=True)):
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            _draw_box(axes, place, finite, _ink(number))
    axes.set_ylim(0.4, len(groups) + 0.6)
    labels = [_group_label(name, values) for name, values in groups.items()]
    axes.set_yticks(list(places), labels, parse_math=False)
    _label(axes, value_label, "")
    axes.grid(alpha=0.3, axis="x")
    if limits is not None:
        axes.set_xlim(*limits)
    return _png(figure)


def _draw_box(axes: Axes, place: float, values: Sequence[float], ink: Ink) -> None:
    """Draws one box. ``Axes.bxp`` is not used: it reads the backend setting and so imports pyplot."""
    (found,) = boxplot_stats(values)
    low, high = found["q1"], found["q3"]
    for start, end in ((found["whislo"], low), (high, found["whishi"])):
        axes.hlines(place, start, end, colors=[ink], linewidth=1.2)
    axes.vlines([found["whislo"], found["whishi"]], place - 0.12, place + 0.12, colors=[ink], linewidth=1.2)
    axes.barh(place, high - low, height=0.6, left=low, facecolor=(*ink, 0.3), edgecolor=ink)
    if len(values) <= _SHOWN_POINTS:
        axes.scatter(values, _spread(place, len(values)), s=9, color=[ink], alpha=0.8, zorder=3)
    axes.vlines(found["med"], place - 0.3, place + 0.3, colors="black", linewidth=1.8, zorder=4)


def _figure(height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if title:
        axes.set_title(title, fontsize=11, loc="left", parse_math=False)
    return figure, axes


def _label(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=10, parse_math=False)
    axes.set_ylabel(y_label, fontsize=10, parse_math=False)
    axes.tick_params(labelsize=9)


def _write(texts: Sequence[Text], names: Mapping[str, Any]) -> None:
    """Sets texts literally: a dollar sign starts no formula, half a surrogate pair becomes ``?``."""
    for text, name in zip(texts, names, strict=True):
        text.set_parse_math(False)
        text.set_text(name.encode("utf-8", errors="replace").decode("utf-8"))


def _group_label(name: str, values: Sequence[float]) -> str:
    finite = sum(math.isfinite(value) for value in values)
    left_out = f", {len(values) - finite} not finite" if finite < len(values) else ""
    return f"{name}\n(n = {finite}{left_out})"


def _spread(place: float, count: int) -> list[float]:
    """Deterministic heights around a box's middle, so that equal values do not hide each other."""
    return [place + 0.2 * ((number * 7 % 11) / 5 - 1) for number in range(count)]


def _ink(number: int) -> Ink:
    red, green, blue = LINE_COLOURS[number % len(LINE_COLOURS)]
    return red / 255, green / 255, blue / 255


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
