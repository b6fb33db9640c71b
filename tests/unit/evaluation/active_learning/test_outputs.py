from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from lib.evaluation.active_learning.options import CurveOptions
from lib.evaluation.active_learning.outputs import write_curve
from lib.evaluation.active_learning.rows import Point


def test_everything_is_written_and_what_never_happens_is_null(tmp_path: Path) -> None:
    points = [
        Point("run", strategy, 0, labels, dice, {"box": dice}, ("a",), (), 0.5)
        for strategy, dices in {"random": (0.5, 0.9), "last": (0.4, 0.6)}.items()
        for labels, dice in zip((2, 4), dices, strict=True)
    ]
    options = CurveOptions(tmp_path / "cells $x", tmp_path / "out", unit="slice")
    text = write_curve(points, options, {"pool": 7})
    record = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert record["options"]["data"].endswith("cells $x")
    assert record["facts"] == {"pool": 7}
    assert [point["dice"] for point in record["points"]] == [0.5, 0.9, 0.4, 0.6]
    assert record["strategies"][1]["needed"]["value"] is None
    assert record["strategies"][0]["needed"]["value"] == 1.0
    assert "| last | 0.4000 ± 0.0000 | 0.6000 ± 0.0000 |" in text
    page = (tmp_path / "out" / "curve.md").read_text()
    assert page.startswith("# Active learning: cells $x\n")
    assert text in page
    figure = np.asarray(Image.open(io.BytesIO((tmp_path / "out" / "curve.png").read_bytes())))
    # Two lines of different colours on white.
    assert len(np.unique(figure.reshape(-1, figure.shape[-1]), axis=0)) > 10
