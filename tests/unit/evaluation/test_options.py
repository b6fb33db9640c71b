from __future__ import annotations

import re
from pathlib import Path

import pytest

from lib.errors import EvaluationError
from lib.evaluation.options import (
    EvaluationOptions,
    SimulationOptions,
    parse_options,
    parse_simulation_options,
)


def parse(folder, *arguments):
    return parse_options(["--data", str(folder), *arguments], ["flare22"])


def test_without_options_it_is_the_protocol_of_the_paper(tmp_path):
    options = parse(tmp_path)
    assert options.pipeline == "all"
    assert options.clicks == (1, 3, 5)
    assert options.frames == (1, 2, 4, 6, 8)
    assert options.weights == ("biosam2_mini",)
    assert options.slice == "middle"


def test_options_are_taken(tmp_path):
    options = parse(
        tmp_path,
        "video",
        "--clicks",
        "5,1,1",
        "--weights",
        "a",
        "b.pt",
        "--objects",
        "3",
        "--tolerance-mm",
        "1.5",
    )
    assert options.pipeline == "video"
    assert options.clicks == (1, 5)
    assert options.weights == ("a", "b.pt")
    assert options.objects == 3
    assert options.tolerance_mm == 1.5


def test_a_wrong_option_is_named_with_what_is_allowed(tmp_path):
    for arguments, told in [
        (["--clicks", "1,x"], "--clicks is '1,x': Value error, whole numbers with commas between are needed"),
        (["--clicks", "0"], "--clicks is '0': Input should be greater than or equal to 1"),
        (["--clicks", "101"], "--clicks is '101': Input should be less than or equal to 100"),
        (["--frames", ""], "--frames is '': Value error, whole numbers with commas"),
        (["--limit", "-1"], "--limit is '-1': Input should be greater than or equal to 0"),
        (["--batch", "0"], "--batch is '0': Input should be greater than or equal to 1"),
        (["--image-size", "250"], "--image-size is '250': Input should be a multiple of 32"),
        (["--tolerance-mm", "nan"], "--tolerance-mm is 'nan': Input should be a finite number"),
        (["--jitter", "2"], "--jitter is '2': Input should be less than or equal to 1"),
        (["--axis", "3"], "--axis is '3': Input should be less than or equal to 2"),
        (["--slice", "first"], "--slice is 'first': Input should be 'middle' or 'largest'"),
        (["--preset", "flare"], "Unknown --preset 'flare' (available: flare22)"),
        (["pictures"], "pipeline is 'pictures': Input should be 'image', 'volume', 'video' or 'all'"),
        (["--speed"], "unrecognized arguments: --speed; --help lists every option"),
    ]:
        with pytest.raises(EvaluationError, match=re.escape(told)):
            parse(tmp_path, *arguments)


def test_help_lists_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--help"], ["flare22"])
    text = capsys.readouterr().out
    for name in EvaluationOptions.model_fields:
        assert name.replace("_", "-") in text
    assert "flare22" in text
    assert "1,3,5" in text


def test_the_data_must_be_a_folder(tmp_path):
    with pytest.raises(EvaluationError, match=r"--data .*nowhere is not a folder: name the folder with"):
        parse(tmp_path / "nowhere")


def test_the_output_must_not_be_a_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EvaluationError, match=r"--output .*file is a file"):
        parse(tmp_path, "--output", str(file))


def test_how_many_rows_there_are_does_not_decide_their_values(tmp_path):
    few = parse(tmp_path, "--limit", "1", "--clicks", "1", "--batch", "2")
    assert few.deciding() == parse(tmp_path).deciding()
    assert parse(tmp_path, "--seed", "1").deciding() != few.deciding()


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
        (
            "--strategies best",
            "is 'best': Input should be 'random', 'first', 'last'",
        ),
        ("--seeds 0", "--seeds is '0': Input should be greater than or equal to 1"),
        ("--rounds many", "--rounds"),
        ("--image-size 100", "multiple of 32"),
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
