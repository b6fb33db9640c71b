from __future__ import annotations

from benchmarks.client import Answer
from benchmarks.scoring_load import AGAIN, ALONE, CLICKS_AGAIN, FIRST, SCORING, clicks, report


class Sees:
    """A viewer that keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def infer(self, model, image, params):
        self.asked.append((image, tuple(params["foreground"][0])))
        return Answer(0.01, b"", "mask.nrrd")


def test_the_first_click_on_a_slice_is_told_from_those_after_it():
    viewer = Sees()
    kinds = [kind for kind, _ in clicks(viewer, "bench_003", 7)]
    assert kinds == [FIRST, *[AGAIN] * CLICKS_AGAIN]
    assert len(set(viewer.asked)) == 1 + CLICKS_AGAIN
    assert {point[2] for _, point in viewer.asked} == {7}


def test_the_report_has_medians_and_their_ratio():
    seconds = {
        (FIRST, SCORING): [0.1, 0.3, 0.2],
        (FIRST, ALONE): [0.1, 0.1],
        (AGAIN, SCORING): [0.03],
        (AGAIN, ALONE): [0.02],
    }
    text = report(seconds, 12, "processor x")
    assert f"| {FIRST} | 200 | 100 | 2.00 | 3, 2 |" in text
    assert f"| {AGAIN} | 30 | 20 | 1.50 | 1, 1 |" in text
    assert "12 volumes were scored during the turns" in text
