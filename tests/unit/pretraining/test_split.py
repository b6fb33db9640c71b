"""The held-out part of a data folder: whole patients, some of every kind, the same every time."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from pretraining import APP
from pretraining.split import HELD_OUT, NEVER, TRAINED, patient_of, read_manifest, split_of, with_true_masks


def _items(*ids: str, kind: str = "CT", allowed: bool = True) -> list[dict]:
    return [{"id": name, "modality": kind, "may_train_shipped_weights": allowed} for name in ids]


def test_patients_are_held_out_whole():
    items = _items(*(f"hvsmr_1000{p}_{n}" for p in range(4) for n in range(5)))
    split = split_of(items)
    sides = defaultdict(set)
    for item in items:
        sides[patient_of(item)].add(split[item["id"]])
    assert all(len(found) == 1 for found in sides.values())
    assert Counter(split.values()) == {TRAINED: 15, HELD_OUT: 5}


def test_a_patient_of_two_kinds_is_on_one_side():
    items = _items(*(f"sts{n:03}_ct" for n in range(8))) + _items(
        *(f"sts{n:03}_pet" for n in range(2, 10)), kind="PET"
    )
    split = split_of(items)
    for number in range(2, 8):
        assert split[f"sts{number:03}_ct"] == split[f"sts{number:03}_pet"]


def test_kinds_with_fewer_than_four_train_and_forbidden_ones_never():
    split = split_of(_items("a", "b", "c") + _items(*"defgh", kind="MR", allowed=False))
    assert Counter(split.values()) == {TRAINED: 3, NEVER: 5}


def test_the_split_does_not_depend_on_the_order():
    items = _items(*(f"image{n}" for n in range(9)))
    assert split_of(items) == split_of(items[::-1])


def test_images_whose_masks_lie_elsewhere_neither_train_nor_count():
    assert [item["id"] for item in with_true_masks(_items("chd68_1_2", "pulmav_1018_130", "a"))] == [
        "chd68_1_2",
        "a",
    ]


def test_every_kind_of_the_data_is_measured():
    items, split = _data()
    kinds = Counter(item["modality"] for item in items if item["may_train_shipped_weights"])
    held = Counter(item["modality"] for item in items if split[item["id"]] == HELD_OUT)
    assert all(held[kind] >= 4 for kind, count in kinds.items() if count >= 4)


def test_every_data_set_that_trains_is_attributed():
    attribution = (APP / "model" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for item in _data()[0]:
        if item["may_train_shipped_weights"]:
            title = item["source_dataset"].split(",")[0].split(" stage 1")[0].split(" (same")[0]
            assert all(word in attribution for word in title.replace(" / ", " ").split()), title


def _data() -> tuple[list[dict], dict[str, str]]:
    """The items of the training data and their split, else a skip."""
    folder = Path(os.environ.get("BIOSAM2_DATA", "../shared/data")).parent / "training_data"
    if not (folder / "manifest.json").exists():
        pytest.skip(f"no data in {folder}: BIOSAM2_DATA names the folder beside it")
    return read_manifest(folder)
