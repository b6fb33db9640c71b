import math

from benchmarks.tables import number, summarise
from lib.evaluation.results import markdown_table


def test_summary_is_minimum_and_median_of_what_was_measured():
    summary = summarise([3.0, 1.0, math.nan, 10.0])
    assert (summary.least, summary.middle, summary.count) == (1.0, 3.0, 3)


def test_summary_of_nothing_has_no_numbers():
    summary = summarise([])
    assert math.isnan(summary.least)
    assert math.isnan(summary.middle)
    assert summary.count == 0


def test_numbers_have_fixed_decimals_and_a_dash_for_none():
    assert [number(0.12345), number(2.0, 0), number(None), number(math.nan)] == ["0.123", "2", "-", "-"]


def test_table_is_github_markdown():
    table = markdown_table(["what", "n"], [["a|b", "1"]])
    assert table.splitlines() == ["| what | n |", "| :-- | --: |", "| a\\|b | 1 |"]
