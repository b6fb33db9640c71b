import numpy as np
import pytest

from lib.errors import EvaluationError, LabelError
from lib.evaluation.datastore import list_cases, match_masks, stem
from tests.support.studies import write_nifti
from tests.unit.evaluation.conftest import write_clip, write_study


def opened(folder):
    return {case.id: case.open(2) for case in list_cases(folder)}


def test_every_labelled_image_is_a_case_with_the_names_of_its_classes(tmp_path):
    folder = write_study(tmp_path / "study", volumes=("ct", "ct.b"))
    write_nifti(folder / "unlabelled.nii.gz", np.zeros((4, 4, 4), np.uint8), np.eye(4))
    sequences = opened(folder)
    assert list(sequences) == ["colour", "ct", "ct.b"]
    assert sequences["ct"].names == {1: "lesion", 2: "organ"}
    assert sequences["colour"].names == {1: "nucleus", 2: "other"}
    assert [sequence.kind for sequence in sequences.values()] == ["picture", "volume", "volume"]


def test_names_are_found_where_slicer_puts_them(tmp_path):
    folder = write_study(tmp_path / "study", pictures=())
    (folder / "datastore_v2.json").write_text(
        '{"objects": {"ct": {"labels": {"final": {"info": {"params": {"label_info": '
        '[{"name": "a", "idx": 1}, {"name": "b", "idx": 2}]}}}}}}}'
    )
    assert opened(folder)["ct"].names == {1: "a", 2: "b"}


def test_a_record_of_any_shape_is_accepted(tmp_path):
    folder = write_study(tmp_path / "study", pictures=())
    for record in ("", "[]", '{"objects": 3}', '{"objects": {"ct": {"labels": null}}}'):
        (folder / "datastore_v2.json").write_text(record)
        assert opened(folder)["ct"].objects == (1, 2)


def test_a_label_without_its_image_is_a_case_that_cannot_be_opened(study):
    (study / "ct.nii.gz").unlink()
    (case,) = (case for case in list_cases(study) if case.id == "ct")
    with pytest.raises(LabelError, match=r"ct\.nii\.gz has no image with its name: restore the image"):
        case.open(2)


def test_a_file_wins_over_the_dicom_folder_of_its_name(study):
    (study / "ct").mkdir()
    assert opened(study)["ct"].kind == "volume"


def test_clips_are_found_in_the_folder_and_as_the_folder(tmp_path):
    write_clip(tmp_path / "clips" / "first", annotated=(0, 3))
    (sequence,) = opened(tmp_path / "clips").values()
    assert (sequence.kind, sequence.annotated) == ("clip", (0, 3))
    assert list(opened(tmp_path / "clips" / "first")) == ["first"]


def test_nothing_to_evaluate_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        EvaluationError,
        match=r"nothing to evaluate: no labels in labels/final/, and no masks/ beside frames/",
    ):
        list_cases(tmp_path)


def test_masks_belong_to_the_frames_of_their_names(tmp_path):
    frames = [tmp_path / "a_1.jpg", tmp_path / "a_2.jpg"]
    assert match_masks(frames, [tmp_path / "a_2.png"]) == {1: tmp_path / "a_2.png"}
    assert match_masks(tmp_path / "film.mp4", [tmp_path / "00012.png"]) == {12: tmp_path / "00012.png"}
    with pytest.raises(LabelError, match=r"The mask b_2\.png has no frame with its name"):
        match_masks(frames, [tmp_path / "b_2.png"])
    with pytest.raises(LabelError, match="The clip has no mask"):
        match_masks(frames, [])


def test_an_ending_of_two_parts_is_one_ending(tmp_path):
    names = ["a.nii.gz", "a.b.nii.gz", "a.png", "a.seg.nrrd"]
    assert [stem(tmp_path / name) for name in names] == ["a", "a.b", "a", "a"]
