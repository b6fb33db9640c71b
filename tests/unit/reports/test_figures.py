"""Figures, by what can be seen in them."""

import io
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from lib.palette import LINE_COLOURS
from lib.reports.figures import CURVES_HEIGHT_IN, DPI, WIDTH_IN, box_plot, curves

LINE = [(step, step / 10) for step in range(11)]


def pixels(png):
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def of_ink(image, number, tolerance=12):
    return (np.abs(image - LINE_COLOURS[number]) <= tolerance).all(axis=2)


def test_curves_have_the_size_that_is_said():
    assert pixels(curves({"loss": LINE}, "step", "loss")).shape[1::-1] == (
        int(WIDTH_IN * DPI),
        int(CURVES_HEIGHT_IN * DPI),
    )


def test_curves_have_their_colours_and_limits():
    drawn = np.argwhere(of_ink(pixels(curves({"Dice": LINE}, "step", "Dice", "Training")), 0))
    left, right = drawn[drawn[:, 1].argmin()], drawn[drawn[:, 1].argmax()]
    assert right[0] < left[0] - 200
    assert right[1] > left[1] + 500

    # Every series has its colour.
    image = pixels(curves({name: [(0, number), (9, number)] for number, name in enumerate("abc")}, "x", "y"))
    for number in range(3):
        assert of_ink(image, number).sum() > 500
    assert not of_ink(image, 3).any()

    # The limits are kept.
    far = [(0, 0.5), (1, 0.5)]
    low = np.argwhere(of_ink(pixels(curves({"a": far}, "x", "y", "t", y_limits=(0.4, 10))), 0))
    high = np.argwhere(of_ink(pixels(curves({"a": far}, "x", "y", "t", y_limits=(-10, 0.6))), 0))
    assert low[:, 0].mean() > high[:, 0].mean() + 200

    # Few values are a figure too.
    for points in ([], [(0, math.nan), (1, 1), (2, math.nan)], [(3, 1)]):
        assert pixels(curves({"a": points}, "step", "loss")).shape[2] == 3
    assert pixels(curves({}, "step", "loss")).shape[2] == 3


def test_a_name_is_only_text():
    for name in ("$x^2", "a $b$ c", "_hidden", "<b>", "nothing\nelse", r"\frac"):
        for png in (
            curves({name: LINE, "other": LINE}, name, name, name),
            box_plot({name: [0.1, 0.2], "other": [0.3]}, name, name),
        ):
            assert (pixels(png).sum(axis=2) < 200).any()

    # Dollars show and begin no formula.
    for draw in (
        lambda name: curves({name: LINE, "other": LINE}, "x", "y"),
        lambda name: curves({"a": LINE}, name, "y", "t"),
        lambda name: curves({"a": LINE}, "x", "y", name),
        lambda name: box_plot({name: [0.1, 0.2]}, "x"),
    ):
        # As a formula, a space between dollars is nothing at all.
        dollars, space = ((pixels(draw(name)).sum(axis=2) < 400).sum() for name in ("$ $", " "))
        assert dollars > space + 20

    # Names that begin with an underscore are in the legend.
    named = pixels(curves({"_aaaaaaaaaa": LINE, "b": LINE}, "x", "y"))
    short = pixels(curves({"_": LINE, "b": LINE}, "x", "y"))
    assert (named != short).any()


def test_a_box_lies_at_its_values():
    low, high = [0.1, 0.12, 0.14, 0.16], [0.8, 0.84, 0.88, 0.9]
    image = pixels(box_plot({"a": low, "b": high}, "Dice", limits=(0, 1)))
    first, second = np.argwhere(of_ink(image, 0)), np.argwhere(of_ink(image, 1))
    assert first[:, 0].max() < second[:, 0].min()
    assert first[:, 1].max() < second[:, 1].min() - 200

    # A plot grows with its groups and not with its values.
    one, six = (pixels(box_plot({str(n): [0.5] * 500 for n in range(count)}, "Dice")) for count in (1, 6))
    assert six.shape[0] > one.shape[0] + 150
    assert six.shape[1] == one.shape[1]

    # Values that cannot be drawn are left out.
    for groups in ({}, {"a": []}, {"a": [math.inf, math.nan]}, {"a": [1.0, math.inf]}):
        assert pixels(box_plot(groups, "mm")).shape[2] == 3


def test_a_figure_is_the_same_each_time_and_in_every_thread():
    series = [{f"series {number}": [(0, number), (1, number + 1)], "b": LINE} for number in range(6)]
    expected = [curves(one, "step", "loss", "t") for one in series]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda one: curves(one, "step", "loss", "t"), series)) == expected


def test_pyplot_is_not_needed():
    code = (
        "import sys; from lib.reports.figures import box_plot, curves; "
        "curves({'a': [(0, 1)], 'b': []}, 'x', 'y', 't'); box_plot({'a': [1]}, 'x'); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
