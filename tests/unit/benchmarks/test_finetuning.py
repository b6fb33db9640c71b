import numpy as np
import pytest

from benchmarks.finetuning import PatientResult, arguments, patient_of, prompts_for, report, table
from benchmarks.items import Item


def outcome(patient, before, after):
    kinds = ("1 click", "box")
    return PatientResult(
        patient, ["a", "b"], dict.fromkeys(kinds, before), dict.fromkeys(kinds, after), 7.5, "kept"
    )


def test_the_table_has_a_row_for_each_patient_and_their_mean():
    lines = table([outcome("0003", 0.2, 0.4), outcome("0005", 0.4, 0.5)]).splitlines()
    assert lines[0].startswith("| held out | 1 click, before | 1 click, after | box, before")
    assert lines[2] == "| 0003 | 0.200 | 0.400 | 0.200 | 0.400 | 7.5 |"
    assert lines[4] == "| mean | 0.300 | 0.450 | 0.300 | 0.450 | 7.5 |"


def test_the_report_names_its_command_and_what_was_learned_from():
    text = report([outcome("0003", 0.2, 0.4)], arguments(["--minutes", "8"]))
    assert "`python -m benchmarks.finetuning --preset decoder --minutes 8`" in text
    assert "0003: trained on a, b. kept." in text


@pytest.mark.parametrize("name", ["brats_0005_flair", "brats_0005_t1c"])
def test_two_sequences_are_of_one_patient(name, tmp_path):
    assert patient_of(Item(name, "MR", tmp_path, tmp_path, {}, "union", False)) == "0005"


def test_prompts_lie_on_the_tumour_and_are_the_same_for_equal_seeds():
    truth = np.zeros((40, 60), bool)
    truth[5:15, 30:50] = True
    first, again = (prompts_for(truth, 7, np.random.default_rng(3)) for _ in range(2))
    assert first == again
    for x, y, k in first[1][2]["foreground"]:
        assert truth[y, x]
        assert k == 7
    x0, x1, y0, y1, k0, k1 = first[2][2]["roi"]
    assert truth[int(y0) : int(y1), int(x0) : int(x1)].sum() > 0.6 * truth.sum()
    assert (k0, k1) == (7, 8)
