from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lib.evaluation.cases import list_cases
from lib.evaluation.report import (
    cut_out,
    frames_figure,
    objects_sheet,
    picked,
    prompt_mask,
    ranking_metric,
    spread_figure,
    write_outputs,
)
from lib.evaluation.runner import EvaluationPlan, evaluate
from lib.palette import MASK_COLOURS, ORANGE
from lib.prompts.types import FramePrompts
from tests.unit.evaluation.conftest import Perfect, changed, stub_model
from tests.unit.evaluation.test_results import row


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_best_median_and_worst_are_by_the_metric():
    rows = [row(value, image=str(value)) for value in (0.3, 0.9, 0.1, 0.5, 0.7)]
    assert {name: found.image for name, found in picked(rows, "dice").items()} == {
        "best": "0.9", "median": "0.5", "worst": "0.1",
    }  # fmt: skip
    distances = [replace(found, values={"hd95": found.values["dice"]}) for found in rows]
    assert picked(distances, "hd95")["best"].image == "0.1"
    assert list(picked(rows[:2], "dice")) == ["best", "median"]
    assert picked([], "dice") == {}


def test_the_metric_that_ranks_is_one_of_objects():
    rows = [row(0.5, metric="nsd"), row(1.0, metric="f1", object=0)]
    assert ranking_metric(rows, ("f1", "dice", "nsd")) == "nsd"
    assert ranking_metric(rows[1:], ("f1", "dice")) is None


def test_figures_are_pictures():
    rows = [row(value, prompt, pipeline="video", metric="jf", frames=frames)
            for prompt in ("1 click", "3 clicks") for frames in (1, 2) for value in (0.2, 0.4)]  # fmt: skip
    assert pixels(spread_figure(rows, "jf", "J&F")).std() > 0
    curves = frames_figure(rows, "jf", "J&F")
    assert curves is not None
    assert pixels(curves).std() > 0
    assert frames_figure([found for found in rows if found.frames == 1], "jf", "") is None


def test_a_cut_out_is_square_and_stays_inside():
    mask = np.zeros((100, 300), bool)
    mask[2:12, 280:300] = True
    rows, columns = cut_out(mask)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 40, 260, 300)
    assert mask[cut_out(np.zeros_like(mask))].shape == mask.shape
    mask[:, :] = True
    assert mask[cut_out(mask)].shape == (100, 300)


def test_prompts_are_drawn_where_they_are():
    click = prompt_mask(FramePrompts([[7, 3]], [1]), (10, 20), reach=1)
    assert np.argwhere(click).tolist() == [[y, x] for y in (2, 3, 4) for x in (6, 7, 8)]
    box = prompt_mask(FramePrompts(np.zeros((0, 2)), [], box=[2, 1, 6, 5]), (10, 20))
    assert box.sum() == 12
    assert not box[2:4, 3:5].any()
    mask = np.zeros((10, 20), bool)
    mask[2:7, 3:9] = True
    drawn = prompt_mask(FramePrompts(np.zeros((0, 2)), [], mask=mask), (10, 20))
    assert drawn[2, 3]
    assert not drawn[4, 5]


@pytest.mark.parametrize("pipeline", ["image", "volume", "video"])
def test_a_sheet_shows_truth_network_and_prompt(study, options, pipeline):
    cases = [case for case in list_cases(study) if case.id == "ct"]

    class Shifted(Perfect):
        def track(self, *arguments):
            result = super().track(*arguments)
            return replace(result, mask=np.roll(result.mask, 5, axis=0))

        def segment(self, *arguments):
            result = super().segment(*arguments)
            return replace(result, mask=np.roll(result.mask, 5, axis=0))

    plan = EvaluationPlan(cases, pipeline)
    options = changed(options, clicks=(3,), frames=(1,), slices=2)
    stub = stub_model(Shifted(cases[0].open(2)))
    done = evaluate(plan, [stub], options)
    sheet = objects_sheet(done, stub, done.rows, "jf" if pipeline == "video" else "dice", "title")
    assert sheet is not None
    # The legend has a square of each colour, and the outlines add to it.
    found = pixels(sheet)[40:]
    for colour in (MASK_COLOURS["truth"], MASK_COLOURS["after"], ORANGE):
        assert (found == colour).all(axis=-1).sum() > 20


@pytest.fixture
def written(study, options):
    (study / "labels" / "final" / "gone.nii.gz").touch()
    cases = list_cases(study)
    plan = EvaluationPlan(
        cases, None, title="phantoms", paper=[{"method": "SAM 2", "prompt": "box", "dice": 0.4431}]
    )
    stub = stub_model(Perfect(*(case.open(2) for case in cases if case.id != "gone")))
    outcome = evaluate(plan, [stub], options)
    tables = write_outputs(outcome)
    return options.output, outcome, tables


def test_json_holds_the_options_the_weights_and_every_row(written):
    folder, outcome, _ = written
    record = json.loads((folder / "results.json").read_text())
    assert record["data"] == "phantoms"
    assert record["options"]["seed"] == 0
    assert record["weights"]["stub"]["sha256"] == "0" * 64
    assert set(record["versions"]) >= {"python", "torch", "numpy", "sam2"}
    assert len(record["rows"]) == len(outcome.rows) == 11
    assert record["rows"][0]["dice"] == 1.0
    assert list(record["left_out"]) == ["gone"]


def test_the_tables_stand_in_markdown_with_what_was_left_out(written):
    folder, _, tables = written
    text = (folder / "table.md").read_text()
    for table in tables:
        assert table.markdown() in text
    assert "| box | stub | 2 | 1.0000 ± 0.0000 |" in text
    assert "| SAM 2 | box | 0.4431 |" in text
    assert "- gone: gone.nii.gz has no image with its name" in text


def test_the_page_has_everything_in_one_file(written):
    folder, _, _ = written
    page = (folder / "report.html").read_text()
    for text in ("Evaluation: phantoms", "Image", "Volume", "gone.nii.gz has no image", "0.4431", "0" * 64):
        assert text in page
    assert page.count("data:image/png;base64,") == 4
    assert '<img src="data:' in page
    assert "http" not in page.replace("http-equiv", "")


def test_pictures_are_files_too(written):
    folder, _, _ = written
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "image_objects_stub.png",
        "image_spread.png",
        "volume_objects_stub.png",
        "volume_spread.png",
    ]


def test_the_same_results_make_the_same_files(written, study, options):
    folder, _, _ = written
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    cases = list_cases(study)
    plan = EvaluationPlan(
        cases, None, title="phantoms", paper=[{"method": "SAM 2", "prompt": "box", "dice": 0.4431}]
    )
    stub = stub_model(Perfect(*(case.open(2) for case in cases if case.id != "gone")))
    write_outputs(evaluate(plan, [stub], options))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
