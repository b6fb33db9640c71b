import numpy as np

from benchmarks.one_prompt import Collection, columns, divided, registered, report, report_fine_tuned
from lib.metrics.segmentation import dice


def disc(x, y):
    rows, places = np.mgrid[:96, :96]
    mask = (rows - y) ** 2 + (places - x) ** 2 < 20**2
    noise = np.random.default_rng(x).normal(0, 3, mask.shape)
    levels = np.clip(60 + 120 * mask + 0.3 * places + noise, 0, 255).astype(np.uint8)
    return levels, mask


def test_the_baseline_moves_the_mask_to_where_the_object_is(tmp_path):
    work = Collection(tmp_path)
    labelled, test = (work.picture(*disc(*place), seen=False) for place in ((40, 44), (52, 50)))
    assert dice(labelled.truth, test.truth) < 0.75
    assert registered([labelled], [test])[1] > 0.85


def test_what_is_segmented_is_never_labelled_and_was_seen_as_little_as_can_be(tmp_path):
    work = Collection(tmp_path)
    pictures = [work.picture(*disc(40, 44), seen=number % 2 == 0) for number in range(20)]
    labelled, tests = divided(pictures, np.random.default_rng(0))
    assert (len(labelled), len(tests)) == (12, 8)
    assert not any(one is other for one in labelled for other in tests)
    assert not any(item.seen for item in tests)
    crops = [work.picture(*disc(40, 44), False, group=f"image {number // 10}") for number in range(20)]
    labelled, tests = divided(crops, np.random.default_rng(0))
    assert ({item.group for item in labelled}, {item.group for item in tests}) == ({"image 0"}, {"image 1"})


def test_the_report_compares_case_by_case():
    means = {name: [0.5, 0.25] for name in columns()}
    means["confidence 1"] = [0.75, 0.0]
    text = report([["a", "8 (8)", *["0.500"] * 14]], means, "biosam2_mini, 256 px")
    # Of two kinds and four numbers of labelled images one is worse.
    assert "confidence is at least as good as fifo in 7 of 8 cases" in text
    assert text.count("| mean |") == 1


def test_the_report_of_fine_tuned_weights_has_both_weights_side_by_side():
    row = ["nuclei", "8 (4)", "4", "no", "0.761", "0.761", "0.757", "0.757"]
    text = report_fine_tuned([row], "biosam2_mini, 256 px", 3.0)
    assert "| labelled | published | fifo, bundled | fifo, fine-tuned | confidence, bundled |" in text
    assert "at most 3 minutes" in text
    assert "| nuclei | 8 (4) | 4 | no | 0.761 | 0.761 | 0.757 | 0.757 |" in text
