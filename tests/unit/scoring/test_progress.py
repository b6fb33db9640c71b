import logging

from lib.errors import ImageError
from lib.scoring.progress import Progress


def test_what_is_left_when_enough_was_scored():
    progress = Progress("x", float("inf"))
    visited = []
    for image in progress.over(["a", "b", "c", "d"], most=2):
        visited.append(image)
        if image == "a":
            progress.unchanged += 1
        else:
            progress.scored(image, "0.5", 0)
    assert visited == ["a", "b", "c"]
    assert (progress.done, progress.unchanged, progress.left) == (2, 1, 1)


def test_no_time_no_image():
    progress = Progress("x", -1.0)
    assert list(progress.over(["a", "b"])) == []
    assert progress.summary()["left"] == 2


def test_a_person_sees_how_far_it_is(caplog):
    progress = Progress("dice", float("inf"))
    with caplog.at_level(logging.INFO):
        progress.scored("case0", "0.912", 30)
        progress.failure("case1", ImageError("it is no image"))
    assert "dice: case0: 0.912; 1 scored" in caplog.text
    assert "min to go" in caplog.text
    assert "case1 is left out: it is no image" in caplog.text
    assert progress.summary()["failed"] == {"case1": "it is no image"}
