"""CVAT's tracker: frames that come one at a time, and an object that is followed through them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.transforms.components import fill_holes, largest_component
from tests.support import videos
from tests.support.client import Client
from tests.support.cvat import Cvat, shapes_of
from tests.support.phantoms import dice
from tests.support.videos import Video

FOLLOWED = 0.9  # Dice on every frame; the bundled weights reach 0.94 and more on these videos
LOST = 0.5  # mean Dice that boxes alone stay below on them: 0.16 to 0.24


@pytest.fixture
def cvat(client: Client, tmp_path: Path) -> Cvat:
    return Cvat(client, tmp_path)


def _dices(masks: list[np.ndarray], video: Video) -> list[float]:
    return [dice(mask, truth) for mask, truth in zip(masks, video.truth, strict=True)]


def _from_boxes(cvat: Cvat, video: Video) -> list[np.ndarray]:
    """Every frame from the box of the last answer and nothing else."""
    box, masks = video.box, []
    for number, frame in enumerate(video.frames):
        masks.append(cvat.interact(frame, roi=box))
        if number:
            box = next(iter(shapes_of(_one_piece(masks[-1]))), box)
    return masks


def _one_piece(mask: np.ndarray) -> np.ndarray:
    return fill_holes(largest_component(mask))


@pytest.mark.parametrize("covered", [False, True], ids=["in sight", "partly covered"])
def test_an_object_that_moves_and_changes_is_followed_where_boxes_lose_it(cvat: Cvat, covered: bool) -> None:
    video = videos.crossing(covered=covered)
    assert len(video) >= 20
    followed = _dices(cvat.follow(video.frames, video.box), video)
    alone = _dices(_from_boxes(cvat, video), video)
    assert min(followed) > FOLLOWED
    assert np.mean(alone) < LOST


def test_a_ventricle_is_followed_through_a_heartbeat(cvat: Cvat) -> None:
    folder = Path(os.environ.get("BIOSAM2_DATA", "")) / "video" / "echo_a4c"
    if not folder.is_dir():
        pytest.skip("the real images are not here; BIOSAM2_DATA names their folder")
    frames = np.array([Image.open(file).convert("RGB") for file in sorted((folder / "frames").iterdir())])
    assert len(frames) >= 20
    # Its truth is known on the first frame, and the beat ends as it begins.
    truth = np.asarray(Image.open(folder / "masks" / "00000.png")) > 0
    video = Video(frames, np.repeat(truth[None], len(frames), axis=0))
    assert dice(cvat.follow(video.frames, video.box)[-1], truth) > 0.8
    assert dice(_from_boxes(cvat, video)[-1], truth) < 0.4


def test_two_objects_of_one_video_go_their_own_ways(cvat: Cvat) -> None:
    left, right = videos.crossing(seed=1), videos.crossing(seed=2, mirrored=True)
    frames = np.concatenate([left.frames, right.frames], axis=2)[:12]
    width = left.frames.shape[2]
    x0, y0, x1, y1 = right.box
    boxes = {"left": left.box, "right": [x0 + width, y0, x1 + width, y1]}
    for number, frame in enumerate(frames):
        for name in boxes:
            shapes, answer = cvat.track(frame, boxes[name])
            boxes[name] = shapes[0] if number else boxes[name]
            assert answer.params["tracked"] == number
            own = slice(0, width) if name == "left" else slice(width, None)
            truth = (left if name == "left" else right).truth[number]
            mask = answer.mask[:, :, 0].T
            assert dice(mask[:, own], truth) > FOLLOWED, (name, number)
            assert mask.sum() == mask[:, own].sum()


def test_two_people_with_the_same_box_on_two_videos_never_get_each_other_s(cvat: Cvat) -> None:
    # One serverless function asks for all of CVAT's people, so nothing but the pictures tells them apart.
    one = videos.crossing(seed=3)
    other = Video(255 - one.frames, one.truth)
    alone = [cvat.follow(video.frames[:8], video.box) for video in (one, other)]
    mixed: list[list[np.ndarray]] = [[], []]
    boxes = [one.box, other.box]
    for number in range(8):
        for person, video in enumerate((one, other)):
            shapes, answer = cvat.track(video.frames[number], boxes[person])
            boxes[person] = shapes[0] if number else boxes[person]
            mixed[person].append(answer.mask[:, :, 0].T)
    for expected, found in zip(alone, mixed, strict=True):
        np.testing.assert_array_equal(np.array(found) > 0, np.array(expected) > 0)


def test_a_known_client_gets_nobody_else_s_object(client: Client, tmp_path: Path) -> None:
    video = videos.crossing(seed=4)
    first, second = (Cvat(client, tmp_path, client_id=name) for name in ("a", "b"))
    shapes, _ = first.track(video.frames[0], video.box)
    assert first.track(video.frames[1], shapes[0])[1].params["tracked"] == 1
    assert second.track(video.frames[1], shapes[0])[1].params["tracked"] == 0


def test_frames_of_another_size_start_anew(cvat: Cvat) -> None:
    video = videos.crossing(seed=5)
    shapes, _ = cvat.track(video.frames[0], video.box)
    assert cvat.track(video.frames[1][:, :-8], shapes[0])[1].params["tracked"] == 0
    assert cvat.track(video.frames[1], shapes[0])[1].params["tracked"] == 1


def test_a_frame_with_another_box_is_answered_from_the_box_alone(cvat: Cvat) -> None:
    video = videos.crossing(seed=6)
    cvat.track(video.frames[0], video.box)
    drawn = videos.outline_box(video.truth[5], margin=2)
    _, answer = cvat.track(video.frames[5], drawn)
    assert answer.params["tracked"] == 0
    # The tracker sees whole frames.
    interacted = _one_piece(cvat.interact(video.frames[5], roi=drawn, zoom="off"))
    np.testing.assert_array_equal(answer.mask[:, :, 0].T > 0, interacted > 0)


def test_a_request_that_is_sent_again_gets_the_same_answer(cvat: Cvat) -> None:
    video = videos.crossing(seed=7)
    shapes, _ = cvat.track(video.frames[0], video.box)
    once, again = (cvat.track(video.frames[1], shapes[0])[1] for _ in range(2))
    assert once.params["tracked"] == again.params["tracked"] == 1
    np.testing.assert_array_equal(once.mask, again.mask)
