import pytest

from benchmarks.publish import publish, replace_section

RESULTS = """\
# Name

## Accuracy

<!-- accuracy: begin (make bench-accuracy) -->
Not measured yet.
<!-- accuracy: end -->

## Speed

<!-- speed: begin (make bench) -->
Not measured yet.
<!-- speed: end -->

## More
"""


def test_only_what_is_between_the_markers_changes():
    text = replace_section(RESULTS, "accuracy", "\nDice \\1 0.9\n")
    assert "(make bench-accuracy) -->\nDice \\1 0.9\n<!-- accuracy: end -->" in text
    assert text.count("Not measured yet.") == 1
    assert text.endswith("## More\n")


def test_a_text_without_markers_is_refused():
    with pytest.raises(ValueError, match="no lines '<!-- speed: begin -->'"):
        replace_section("# Name\n", "speed", "x")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "latency.md").write_text("all numbers")
    return tmp_path


def test_a_report_goes_into_its_section(folder):
    results = folder / "results.md"
    assert publish(folder, results) == ["speed"]
    assert "<!-- speed: begin -->\nall numbers\n<!-- speed: end -->" in results.read_text()


def test_sections_that_were_not_run_again_stay(folder):
    results = folder / "results.md"
    publish(folder, results)
    (folder / "latency.md").unlink()
    (folder / "accuracy.md").write_text("objects")
    assert publish(folder, results) == ["accuracy"]
    assert "all numbers" in results.read_text()
    assert "objects" in results.read_text()


def test_a_new_benchmark_gets_a_section_at_the_end(folder):
    results = folder / "results.md"
    results.write_text(RESULTS)
    (folder / "clients.md").write_text("many")
    assert publish(folder, results) == ["speed", "clients"]
    assert results.read_text().endswith("<!-- clients: begin -->\nmany\n<!-- clients: end -->\n")
