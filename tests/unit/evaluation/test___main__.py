"""The command with the bundled weights, on phantoms."""

import json
import shutil

from lib.engine.download import MODEL_DIR
from lib.evaluation import __main__ as command
from tests.unit.evaluation.conftest import write_clip, write_study

# Far above what a wrong mask gets on phantoms as plain as these: see tests/support/phantoms.py.
FOUND = 0.5


def run(study, output, *arguments):
    # Half the side that the weights are for, for speed.
    return command.main(["--data", str(study), "--output", str(output), "--image-size", "128", *arguments])


def rows(output):
    return json.loads((output / "results.json").read_text())["rows"]


def test_phantoms_are_found_and_the_numbers_come_again(study, tmp_path, capsys):
    write_clip(study / "clip")
    few = ("--clicks", "3", "--frames", "2", "--objects", "1")
    assert run(study, tmp_path / "one", *few) == 0
    told = capsys.readouterr()
    assert "## volume" in told.out
    assert "## video: J&F" in told.out
    assert "1 images left out" not in told.out
    assert run(study, tmp_path / "two", *few) == 0
    assert rows(tmp_path / "one") == rows(tmp_path / "two")
    found = {row["image"]: row.get("dice", row.get("jf")) for row in rows(tmp_path / "one") if row["object"]}
    assert set(found) == {"ct", "colour", "clip"}
    assert min(found.values()) > FOUND


def test_two_weights_stand_side_by_side_on_the_same_prompts(study, tmp_path, capsys):
    copy = tmp_path / "copy.pt"
    shutil.copy(MODEL_DIR / "biosam2_mini.pt", copy)
    assert run(study, tmp_path / "out", "image", "--clicks", "1", "--weights", "biosam2_mini", str(copy)) == 0
    assert "| 1 click | biosam2_mini |" in capsys.readouterr().out
    found = rows(tmp_path / "out")
    first, second = ([row["dice"] for row in found if row["weights"] == name and row["object"]]
                     for name in ("biosam2_mini", "copy"))  # fmt: skip
    assert first == second


def test_what_cannot_be_done_is_one_line_and_exit_2(study, tmp_path, capsys):
    for arguments, told in [
        (["--clicks", "0"], "--clicks is '0': Input should be greater than or equal to 1"),
        (["--weights", "nothing.pt"], "there is no file"),
        (["--device", "cuda:77"], "Unknown device 'cuda:77'"),
        (["--preset", "flare22"], "does not look like FLARE22"),
    ]:
        assert run(study, tmp_path / "out", *arguments) == 2
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_a_folder_where_nothing_fits_is_one_line_and_exit_2(tmp_path, capsys):
    study = write_study(tmp_path / "study", volumes=(), pictures=("colour",))
    (study / "labels" / "final" / "colour.png").write_bytes(b"no label")
    assert run(study, tmp_path / "out") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("Nothing to evaluate")
    assert "colour.png" in said[-1]


def test_ctrl_c_is_exit_130_and_the_command_goes_on(study, tmp_path, capsys, monkeypatch):
    from lib.engine.predictor import Predictor

    track, steps = Predictor.track, []

    def interrupted(self, *arguments):
        steps.append(arguments)
        if len(steps) > 5:
            raise KeyboardInterrupt
        return track(self, *arguments)

    monkeypatch.setattr(Predictor, "track", interrupted)
    arguments = ("--clicks", "1", "--image-size", "64")
    assert run(study, tmp_path / "out", *arguments) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 1 + 3
    monkeypatch.undo()
    assert run(study, tmp_path / "out", *arguments) == 0
    assert run(study, tmp_path / "whole", *arguments) == 0
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


def test_a_preset_brings_its_rules_and_an_option_overrules_them(study):
    options = command.parse_options(["--data", str(study), "--tolerance-mm", "1"], [])
    assert command.plan_for(options, None).rules.tolerance("liver") == 1.0
