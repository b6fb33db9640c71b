import json

import pytest

from lib.errors import TrainingError
from lib.trainers.data_split import split

NAMES = [f"image{number}" for number in range(200)]


def test_a_share_of_the_images_measures(tmp_path):
    sides = split(NAMES, 0.2, tmp_path / "split.json")
    assert 25 <= list(sides.values()).count("val") <= 55


def test_sides_depend_on_the_name_alone(tmp_path):
    together = split(NAMES, 0.2, tmp_path / "a.json")
    part = split(NAMES[50:90], 0.2, tmp_path / "b.json")
    assert all(together[name] == side for name, side in part.items())


def test_a_case_never_changes_sides(tmp_path):
    record = tmp_path / "split.json"
    first = split(NAMES[:2], 0.2, record)
    for count in (3, 10, 200):
        sides = split(NAMES[:count], 0.2, record)
        assert {name: sides[name] for name in first} == first
    assert split(NAMES, 0.9, record) == sides


def test_two_images_are_one_of_each(tmp_path):
    for names in (["a", "b"], ["p", "q"], ["x1", "x2"], ["1", "2"]):
        assert sorted(split(names, 0.2, tmp_path / names[0]).values()) == ["train", "val"]


def test_fewer_than_two_say_what_to_do(tmp_path):
    for names in ([], ["only"], ["same", "same"]):
        with pytest.raises(TrainingError, match=r"at least 2.*Label more"):
            split(names, 0.2, tmp_path / "split.json")
    assert not (tmp_path / "split.json").exists()


def test_known_images_of_one_side_alone_ask_for_another(tmp_path):
    record = tmp_path / "split.json"
    record.write_text(json.dumps({"a": "train", "b": "train"}))
    with pytest.raises(TrainingError, match="label one more"):
        split(["a", "b"], 0.2, record)


def test_a_damaged_record_is_no_obstacle(tmp_path):
    record = tmp_path / "split.json"
    record.write_text("{not json")
    assert len(split(NAMES, 0.2, record)) == 200
