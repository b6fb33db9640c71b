from __future__ import annotations

from pathlib import Path

import pytest

from lib.errors import EvaluationError
from lib.evaluation.active_learning.options import SimulationOptions, parse_simulation_options


def test_what_is_not_said_is_the_default(tmp_path: Path) -> None:
    assert parse_simulation_options(["--data", str(tmp_path)]) == SimulationOptions(data=tmp_path)


def test_every_option_is_read(tmp_path: Path) -> None:
    words = "--strategies diversity,hybrid --seeds 3 --start 4 --step 5 --rounds 6 --unit slice --test t*"
    words += " --objects 7 --steps 8 --batch 9 --learning-rate 1e-4 --weights w --device cpu --image-size 96"
    options = parse_simulation_options(
        ["--data", str(tmp_path), "--output", str(tmp_path / "o"), *words.split()]
    )
    assert options == SimulationOptions(
        data=tmp_path,
        output=tmp_path / "o",
        strategies=("random", "diversity", "hybrid"),
        seeds=3,
        start=4,
        step=5,
        rounds=6,
        unit="slice",
        test="t*",
        objects=7,
        steps=8,
        batch=9,
        learning_rate=1e-4,
        weights="w",
        device="cpu",
        image_size=96,
    )


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    for words, complaint in [
        ("--strategies best", "'best' must be names of random, first, last, diversity, uncertainty, hybrid"),
        ("--seeds 0", "--seeds: '0' must be a whole number, 1 or more"),
        ("--rounds many", "--rounds"),
        ("--image-size 100", "a multiple of 32"),
        ("--unit voxel", "--unit"),
        ("--learning-rate 0", "--learning-rate"),
        ("--budget 3", "--budget"),
    ]:
        with pytest.raises(EvaluationError) as raised:
            parse_simulation_options(["--data", str(tmp_path), *words.split()])
        assert complaint in str(raised.value)


def test_folders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="nowhere is not a folder"):
        parse_simulation_options(["--data", str(tmp_path / "nowhere")])
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="file is a file"):
        parse_simulation_options(["--data", str(tmp_path), "--output", str(tmp_path / "file")])


def test_how_many_rounds_and_seeds_decides_no_value(tmp_path: Path) -> None:
    assert not {"seeds", "rounds", "strategies"} & set(SimulationOptions(data=tmp_path).deciding())
