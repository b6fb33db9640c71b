from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.errors import EvaluationError, ImageError, LabelError
from lib.evaluation.cases import (
    FilmFrames,
    FolderFrames,
    content_of,
    frame_number,
    list_cases,
    match_masks,
    natural,
    open_clip,
    open_image,
    stem,
)
from lib.labels.reading import read_labels
from tests.support import phantoms
from tests.support.studies import write_nifti, write_picture
from tests.unit.evaluation.conftest import label_map, write_clip, write_study


@pytest.fixture
def volume(tmp_path):
    phantom = phantoms.ct()
    image = write_nifti(tmp_path / "ct.nii.gz", phantom.image, phantom.affine)
    label = write_nifti(tmp_path / "label.nii.gz", label_map(phantom), phantom.affine)
    return partial(open_image, image, label, read_labels)


def test_frames_and_truth_lie_over_each_other_on_every_axis(volume):
    for axis, count in enumerate((96, 80, 24)):
        sequence = volume(axis)
        assert sequence.kind == "volume"
        assert len(sequence.frames) == len(sequence.truth) == count
        middle = sequence.visible(1)[len(sequence.visible(1)) // 2]
        frame, lesion = sequence.frames[middle], sequence.mask(1, middle)
        assert frame.shape[:2] == lesion.shape
        # The lesion is the brightest of all that is there.
        assert frame[lesion].mean() > 200 > frame[~lesion].mean() + 50


def test_spacing_is_that_of_frames_rows_and_columns(volume):
    assert volume(2).spacing == pytest.approx((3.0, 0.9, 0.8))
    assert volume(0).spacing == pytest.approx((0.8, 3.0, 0.9))


def test_objects_are_told_with_the_frames_they_are_on(volume):
    sequence = volume(2)
    assert sequence.objects == (1, 2)
    # Half axes of 5.5 and 6.5 slices around slices 9 and 14.
    assert sequence.visible(1) == tuple(range(4, 15))
    assert sequence.visible(2) == tuple(range(8, 21))


def test_a_picture_is_one_frame_whatever_the_axis(tmp_path):
    phantom = phantoms.colour_picture()
    image = write_picture(tmp_path / "image.png", phantom.image)
    label = write_picture(tmp_path / "label.png", label_map(phantom))
    sequence = open_image(image, label, read_labels, 0)
    assert (sequence.kind, len(sequence.frames), sequence.truth[0].shape) == ("picture", 1, (88, 120))
    assert (sequence.mask(1, 0) == phantom.objects["nucleus"][:, :, 0].T).all()


def test_a_crop_is_taken_of_image_and_truth_and_of_images_that_have_it(tmp_path):
    phantom = phantoms.colour_picture()
    image = write_picture(tmp_path / "image.png", phantom.image)
    label = write_picture(tmp_path / "label.png", label_map(phantom))
    cut = open_image(image, label, read_labels, 2, crop=(60, 4, 50, 40))
    assert cut.frames[0].shape == (40, 50, 3)
    assert (cut.frames[0] == np.swapaxes(phantom.image[60:110, 4:44, 0], 0, 1)).all()
    assert (cut.mask(1, 0) == phantom.objects["nucleus"][60:110, 4:44, 0].T).all()
    whole = open_image(image, label, read_labels, 2, crop=(60, 4, 100, 40))
    assert whole.frames[0].shape == (88, 120, 3)
    assert whole.frames.digest != cut.frames.digest


def test_a_crop_without_an_object_is_refused(tmp_path):
    phantom = phantoms.colour_picture()
    image = write_picture(tmp_path / "image.png", phantom.image)
    label = write_picture(tmp_path / "label.png", label_map(phantom))
    with pytest.raises(LabelError, match=r"label\.png is empty: draw an object of image\.png"):
        open_image(image, label, read_labels, 2, crop=(0, 0, 10, 10))


def test_the_content_is_of_image_and_truth():
    truth = [np.array([[0, 1], [2, 0]])]
    assert content_of("a", truth) == content_of("a", [frame.astype(np.uint16) for frame in truth])
    assert content_of("a", truth) != content_of("b", truth)
    assert content_of("a", truth) != content_of("a", [frame.T for frame in truth])


def files(folder):
    return sorted((folder / "frames").iterdir()), sorted((folder / "masks").iterdir())


def test_a_clip_has_truth_on_some_of_its_frames(tmp_path):
    frames, masks = files(write_clip(tmp_path, annotated=(1, 4)))
    sequence = open_clip(frames, dict(zip((1, 4), masks, strict=True)), read_labels, 2)
    assert (sequence.kind, len(sequence.frames), sequence.annotated) == ("clip", 6, (1, 4))
    for index in sequence.annotated:
        disc = sequence.mask(1, index)
        assert sequence.frames[index][disc].mean() > 200 > 70 > sequence.frames[index][~disc].mean()
    assert sequence.visible(1) == (1, 4)


def test_another_frame_makes_another_digest(tmp_path):
    frames, masks = files(write_clip(tmp_path))
    before = open_clip(frames, {0: masks[0]}, read_labels, 2)
    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(frames[5])
    after = open_clip(frames, {0: masks[0]}, read_labels, 2)
    assert before.frames.digest != after.frames.digest
    assert before.content != after.content


def test_frames_of_another_size_are_refused_when_they_are_read(tmp_path):
    frames, _ = files(write_clip(tmp_path))
    Image.fromarray(np.zeros((50, 90, 3), np.uint8)).save(frames[3])
    with pytest.raises(ImageError, match=r"003\.png has 90 x 50 pixels and the first frame 90 x 70"):
        FolderFrames(frames)[3]


def test_a_mask_beyond_the_last_frame_is_refused(tmp_path):
    frames, masks = files(write_clip(tmp_path))
    with pytest.raises(LabelError, match=r"The clip has 6 frames, but masks of later ones: 005\.png"):
        open_clip(frames, {6: masks[5]}, read_labels, 2)


def test_a_film_is_read_like_its_frames(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="opencv writes the film")
    frames, masks = files(write_clip(tmp_path / "clip"))
    film = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 10, (90, 70))
    for path in frames:
        writer.write(np.asarray(Image.open(path))[:, :, ::-1])
    writer.release()
    sequence = open_clip(film, {2: masks[2]}, read_labels, 2)
    assert len(sequence.frames) == 6
    difference = np.abs(sequence.frames[2].astype(int) - FolderFrames(frames)[2].astype(int))
    assert difference.mean() < 5
    assert sequence.frames[2][sequence.mask(1, 2)].mean() > 200


def test_a_film_that_cannot_be_decoded_says_so(tmp_path):
    film = tmp_path / "broken.mp4"
    film.write_bytes(b"no film")
    with pytest.raises(ImageError, match=r"broken\.mp4 cannot be read"):
        FilmFrames(film)


def test_names_are_ordered_and_numbered_by_their_numbers():
    names = ["frame10.png", "frame2.png", "frame1.png"]
    assert [path.name for path in sorted(map(Path, names), key=natural)] == names[::-1]
    assert frame_number(Path("clip3_frame012.png")) == 12
    assert frame_number(Path("mask.png")) is None


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
