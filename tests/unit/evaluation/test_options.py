import re

import pytest

from lib.errors import EvaluationError
from lib.evaluation.options import EvaluationOptions, parse_options


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
        (["--clicks", "1,x"], "--clicks: '1,x' must be whole numbers from 1 to 100 with commas between"),
        (["--clicks", "0"], "--clicks: '0' must be"),
        (["--clicks", "101"], "--clicks: '101' must be"),
        (["--frames", ""], "--frames: '' must be whole numbers from 1 with"),
        (["--limit", "-1"], "--limit: '-1' must be a whole number, 0 or more"),
        (["--batch", "0"], "--batch: '0' must be a whole number, 1 or more"),
        (["--image-size", "250"], "--image-size: '250' must be a multiple of 32 from 64 to 2048"),
        (["--tolerance-mm", "nan"], "--tolerance-mm: 'nan' must be a number, 0 or more"),
        (["--jitter", "2"], "--jitter: '2' must be a number from 0 to 1"),
        (["--axis", "3"], "--axis: '3' must be 0, 1 or 2"),
        (["--slice", "first"], "--slice: 'first' must be one of middle, largest"),
        (["--preset", "flare"], "Unknown --preset 'flare' (available: flare22)"),
        (["pictures"], "pipeline: 'pictures' must be one of image, volume, video, all"),
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
