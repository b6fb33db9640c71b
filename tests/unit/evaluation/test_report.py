import json

import pytest

from lib.evaluation.datastore import list_cases
from lib.evaluation.report import write_outputs
from lib.evaluation.runner import EvaluationPlan, FinishedEvaluation, evaluate
from tests.unit.evaluation.conftest import Perfect, stub_model


@pytest.fixture
def written(study, options):
    (study / "labels" / "final" / "gone.nii.gz").touch()
    cases = list_cases(study)
    plan = EvaluationPlan(
        cases, None, title="phantoms", paper=[{"method": "SAM 2", "prompt": "box", "dice": 0.4431}]
    )
    stub = stub_model(Perfect(*(case.open(2) for case in cases if case.id != "gone")))
    outcome = evaluate(plan, [stub], options)
    tables = write_outputs(FinishedEvaluation(plan, [stub], options, outcome))
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
    write_outputs(FinishedEvaluation(plan, [stub], options, evaluate(plan, [stub], options)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
