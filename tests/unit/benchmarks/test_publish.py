import pytest

from benchmarks.publish import publish, replace_section

README = """\
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
    text = replace_section(README, "accuracy", "\nDice \\1 0.9\n")
    assert "(make bench-accuracy) -->\nDice \\1 0.9\n<!-- accuracy: end -->" in text
    assert text.count("Not measured yet.") == 1
    assert text.endswith("## More\n")


def test_a_text_without_markers_is_refused():
    with pytest.raises(ValueError, match="no lines '<!-- speed: begin -->'"):
        replace_section("# Name\n", "speed", "x")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "latency.md").write_text("all numbers")
    (tmp_path / "latency_short.md").write_text("some numbers")
    return tmp_path


def test_the_short_report_goes_to_the_readme_and_the_whole_one_to_results(folder):
    readme, results = folder / "README.md", folder / "RESULTS.md"
    assert publish(folder, readme, results) == ["speed"]
    assert "some numbers\nMore numbers: [benchmarks/RESULTS.md]" in readme.read_text()
    assert "all numbers" in results.read_text()


def test_what_was_not_run_again_stays(folder):
    readme, results = folder / "README.md", folder / "RESULTS.md"
    publish(folder, readme, results)
    (folder / "latency.md").unlink()
    (folder / "accuracy.md").write_text("objects")
    (folder / "accuracy_short.md").write_text("means")
    assert publish(folder, readme, results) == ["accuracy"]
    assert "all numbers" in results.read_text()
    assert "objects" in results.read_text()
