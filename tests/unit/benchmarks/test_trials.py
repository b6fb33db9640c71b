import numpy as np
import pytest

from benchmarks.baselines import Click
from benchmarks.targets import Target
from benchmarks.trials import FILLED, GRABCUT, OURS, WALKER, WALKER_OWN, click_series, levels_of, run_trial


@pytest.fixture
def image(target):
    return np.where(target.voxels, 80, 10).astype(np.int16)


def test_clicks_go_to_the_middle_and_then_to_the_largest_mistake(target):
    answers = iter([np.zeros_like(target.truth), ~target.truth])
    series = click_series(target.truth, lambda clicks: next(answers), count=2)
    first, second = series[1][0]
    assert 21 <= first.x <= 24
    assert 7 <= first.y <= 12
    assert first.positive
    assert second.positive  # nothing was found, so the object is still what is missing
    assert [len(clicks) for clicks, _ in series] == [1, 2]


def test_clicks_end_with_the_last_mistake(target):
    assert len(click_series(target.truth, lambda clicks: target.truth)) == 1


def test_too_much_is_mended_by_a_negative_click(target):
    series = click_series(target.truth, lambda clicks: np.ones_like(target.truth), count=2)
    assert not series[1][0][1].positive


def test_levels_are_the_windows_and_xy():
    image = np.zeros((4, 3, 2), np.int16)
    image[3, 1, 1] = 50
    levels = levels_of(image, 1, (0, 100))
    assert levels.shape == (3, 4, 3)
    assert levels[1, 3].tolist() == [128, 128, 128]
    assert levels_of(np.zeros((4, 3, 1, 3), np.uint8), 0, (0, 255)).shape == (3, 4, 3)


def test_a_perfect_server_has_one_everywhere(target, image, viewer_of):
    viewer = viewer_of(lambda model, params: target.voxels)
    trial = run_trial(viewer, target, image)
    assert {prompt: scores[OURS] for prompt, scores in trial.dice.items()} == {
        "box": 1.0, "1 click": 1.0, "3 clicks": 1.0, "5 clicks": 1.0, "propagation": 1.0,
    }  # fmt: skip
    assert set(trial.dice["box"]) == {OURS, GRABCUT, FILLED}
    assert set(trial.dice["5 clicks"]) == {OURS, WALKER, WALKER_OWN}


def test_harmful_corrections_and_disobeyed_clicks_are_counted(target, image, viewer_of):
    # One missing pixel first, then half of the object however often it is clicked on.
    half = target.voxels.copy()
    half[20:23] = False
    answers = {"biosam2_box": target.voxels, "biosam2_propagate": target.voxels}
    wrong = target.voxels.copy()
    wrong[25, 14, :] = False
    masks = iter([wrong, half, half, half, half])
    viewer = viewer_of(lambda model, params: answers.get(model) if model in answers else next(masks))
    trial = run_trial(viewer, target, image, baselines=False)
    assert (trial.corrections, trial.harmful) == (4, 1)
    assert trial.clicks == 15
    assert trial.disobeyed > 0


def test_requests_are_those_of_a_viewer(target, image, viewer_of):
    viewer = viewer_of(lambda model, params: target.voxels)
    run_trial(viewer, target, image, baselines=False, reach=2)
    (box, _, boxed), (point, _, clicked), (propagate, _, followed) = viewer.asked
    assert (box, point, propagate) == ("biosam2_box", "biosam2_point", "biosam2_propagate")
    assert boxed["boxes"] == [[20, 5, 26, 15, target.index]]
    assert clicked["foreground"][0][2] == target.index
    assert clicked["background"] == []
    assert followed["boxes"] == [[20, 5, 26, 15, 6]]
    assert followed["slice_range"] == [4, 9]


def test_a_picture_is_clicked_in_xy_and_not_propagated(item_of, viewer_of):
    voxels = np.zeros((30, 20, 1), bool)
    voxels[15:25, 4:9] = True
    target = Target(item_of(picture=True), "cell", voxels)
    viewer = viewer_of(lambda model, params: voxels[:, :, 0])
    trial = run_trial(viewer, target, np.where(voxels, 200, 30).astype(np.uint8), baselines=False)
    assert "propagation" not in trial.dice
    assert trial.dice["1 click"][OURS] == 1.0
    assert [len(point) for point in viewer.asked[1][2]["foreground"]] == [2]


def test_both_methods_get_our_clicks(target, image, viewer_of, monkeypatch):
    given = []
    monkeypatch.setattr(
        "benchmarks.trials.random_walk", lambda levels, clicks: given.append(list(clicks)) or target.truth
    )
    empty = np.zeros_like(target.voxels)
    run_trial(viewer_of(lambda model, params: empty), target, image)
    assert max(len(clicks) for clicks in given) == 5
    assert all(isinstance(click, Click) for clicks in given for click in clicks)
