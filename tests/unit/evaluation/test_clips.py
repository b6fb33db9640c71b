from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.errors import ImageError, LabelError
from lib.evaluation.clips import FilmFrames, FolderFrames, frame_number, natural, open_clip
from lib.labels.reading import read_labels
from tests.unit.evaluation.conftest import write_clip


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
    cv2 = pytest.importorskip("cv2", reason="opencv decodes films, and the server does without it")
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
    pytest.importorskip("cv2", reason="opencv decodes films, and the server does without it")
    film = tmp_path / "broken.mp4"
    film.write_bytes(b"no film")
    with pytest.raises(ImageError, match=r"broken\.mp4 has no decodable frame"):
        FilmFrames(film)


def test_names_are_ordered_and_numbered_by_their_numbers():
    names = ["frame10.png", "frame2.png", "frame1.png"]
    assert [path.name for path in sorted(map(Path, names), key=natural)] == names[::-1]
    assert frame_number(Path("clip3_frame012.png")) == 12
    assert frame_number(Path("mask.png")) is None
