import numpy as np
import pytest

from lib.datastores.label_entries import AUTOMATIC
from lib.datastores.local import LocalFolder
from lib.errors import ConflictError, LabelError
from lib.images.reading import read_image
from lib.infers import label_merging
from lib.infers.label_merging import merge, save_automatic_label, save_merged, write_label
from lib.labels.values import LabelMap
from tests.support.studies import write_nifti

SHAPE = (4, 5, 3)


def label(names, *slices):
    """A label of 1 x 3 voxels in each slice along the last axis."""
    return LabelMap(np.array(slices, np.uint8).T[None], names)


def values(labels):
    return labels.array[0].T.tolist()


def test_an_image_without_a_label_gets_the_answer():
    merged = merge(None, label({1: "liver"}, [0, 1, 1], [0, 0, 1]), {"liver": 1}, None)
    assert (values(merged), merged.names) == ([[0, 1, 1], [0, 0, 1]], {1: "liver"})


def test_an_object_s_voxels_are_replaced_and_others_stay():
    old = label({1: "spleen", 2: "liver"}, [1, 2, 2], [1, 2, 0])
    merged = merge(old, label({7: "liver"}, [7, 0, 7], [0, 0, 7]), {"liver": 7}, None)
    assert (values(merged), merged.names) == ([[1, 0, 2], [1, 0, 2]], {1: "spleen", 2: "liver"})


def test_a_new_object_gets_the_next_value():
    merged = merge(label({3: "spleen"}, [3, 0, 0]), label({1: "liver"}, [1, 1, 0]), {"liver": 1}, None)
    assert (values(merged), merged.names) == ([[3, 4, 0]], {3: "spleen", 4: "liver"})


def test_an_answer_on_a_slice_touches_that_slice_alone():
    old = label({1: "liver"}, [1, 1, 1], [1, 1, 1])
    merged = merge(old, label({1: "liver"}, [0, 0, 0], [0, 1, 0]), {"liver": 1}, (2, 1))
    assert values(merged) == [[1, 1, 1], [0, 1, 0]]


def test_an_object_that_was_not_found_is_taken_out():
    merged = merge(label({1: "a", 2: "b"}, [1, 2, 2]), label({}, [0, 0, 0]), {"b": 1}, None)
    assert (values(merged), merged.names) == ([[1, 0, 0]], {1: "a"})


def test_more_objects_than_a_byte_holds_are_refused():
    with pytest.raises(LabelError, match="up to 256; at most 255"):
        merge(label({255: "a"}, [255, 0, 0]), label({1: "b"}, [0, 1, 0]), {"b": 1}, None)


def drawn(path, place, value=1):
    """A label file with one voxel."""
    array = np.zeros(SHAPE, np.uint8)
    array[place] = value
    return write_nifti(path, array, np.eye(4))


@pytest.fixture
def folders(tmp_path):
    """One folder as two servers have it, with an image of which a person's label is there."""
    studies = tmp_path / "studies"
    studies.mkdir()
    write_nifti(studies / "ct.nii.gz", np.zeros(SHAPE, np.uint8), np.eye(4))
    return LocalFolder(str(studies)), LocalFolder(str(studies))


def interrupted(monkeypatch, name, meanwhile):
    """Lets something happen once, after a step of the module and before the next one."""
    step, left = getattr(label_merging, name), [meanwhile]

    def slow(*arguments):
        result = step(*arguments)
        if left:
            left.pop()()
        return result

    monkeypatch.setattr(label_merging, name, slow)


def test_what_a_person_saves_while_an_answer_is_merged_is_kept(folders, tmp_path, monkeypatch):
    one, two = folders
    image = read_image(tmp_path / "studies" / "ct.nii.gz", 10**6)
    person = drawn(tmp_path / "person.nii.gz", (0, 0, 0), 7)
    names = {"label_info": [{"name": "person", "idx": 7}]}
    interrupted(monkeypatch, "write_label", lambda: two.save_label("ct", str(person), "final", names))
    answer = drawn(tmp_path / "answer.nii.gz", (3, 4, 2))
    save_merged(one, image, "ct", answer, "final", {"params": {"label_names": {"lesion": 1}}})
    saved = np.asarray(read_image(one.get_label_uri("ct", "final"), 10**6).array)
    info = one.get_label_info("ct", "final")
    assert {item["name"]: item["idx"] for item in info["label_info"]} == {"person": 7, "lesion": 8}
    assert (saved[0, 0, 0], saved[3, 4, 2], np.count_nonzero(saved)) == (7, 8, 2)
    assert info[AUTOMATIC] is False


def test_what_a_person_saves_while_a_models_label_is_made_stays(folders, tmp_path, monkeypatch):
    one, two = folders
    person = drawn(tmp_path / "person.nii.gz", (0, 0, 0))
    interrupted(monkeypatch, "require_replaceable", lambda: two.save_label("ct", str(person), "final", {}))
    with pytest.raises(LabelError, match="a person made"):
        save_automatic_label(one, "ct", drawn(tmp_path / "model.nii.gz", (1, 1, 1)), "final", {})
    assert read_image(one.get_label_uri("ct", "final"), 10**6).array[0, 0, 0] == 1


def test_a_label_that_others_save_again_and_again_is_given_up(folders, tmp_path, monkeypatch):
    one, two = folders
    image = read_image(tmp_path / "studies" / "ct.nii.gz", 10**6)
    person = drawn(tmp_path / "person.nii.gz", (0, 0, 0))
    written = []

    def write_while_others_save(*arguments):
        two.save_label("ct", str(person), "final", {"client_id": "neighbour"})
        written.append(write_label(*arguments))
        return written[-1]

    monkeypatch.setattr(label_merging, "write_label", write_while_others_save)
    answer = drawn(tmp_path / "answer.nii.gz", (3, 4, 2))
    with pytest.raises(ConflictError, match="neighbour"):
        save_merged(one, image, "ct", answer, "final", {"params": {"label_names": {"lesion": 1}}})
    assert len(written) == 20
    assert not any(file.exists() for file in written)
