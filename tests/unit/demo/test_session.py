import pytest

from benchmarks.baselines import Click
from demo.session import work_through


def test_a_volume_is_asked_as_slicer_asks(volume, viewer_of):
    viewer = viewer_of([volume.truth & False, volume.truth])
    work_through(viewer, volume)
    point, again, box, whole = viewer.asked
    assert [model for model, _, _ in viewer.asked] == ["biosam2_point"] * 2 + [
        "biosam2_box",
        "biosam2_propagate",
    ]
    assert {image for _, image, _ in viewer.asked} == {"abdomen_ct"}
    (x, y, k) = point[2]["foreground"][0]
    assert volume.truth[x, y, k]
    assert k == 6
    assert point[2]["background"] == []
    assert len(again[2]["foreground"]) == 2
    assert box[2]["roi"] == [20, 26, 5, 15, 6, 6]
    assert whole[2]["boxes"] == [[20, 5, 26, 15, 6]]
    assert point[2]["result_extension"] == ".nrrd"


def test_a_picture_is_asked_as_cvat_asks(picture, viewer_of):
    viewer = viewer_of([picture.truth[:, :, 0]])
    session = work_through(viewer, picture)
    point, box = viewer.asked
    assert [len(click) for click in point[2]["foreground"]] == [2]
    assert box[2] == {"roi": [20, 5, 26, 15]}
    assert session.propagated is None
    assert session.boxed.mask.shape == (40, 30, 1)


def test_clicks_go_where_the_answer_is_wrong(volume, viewer_of):
    too_much = volume.truth.copy()
    too_much[30:40, 5:25] = True
    too_little = volume.truth.copy()
    too_little[20:26, 5:11] = False
    session = work_through(viewer_of([too_much, too_little, volume.truth]), volume)
    first, second, third = session.clicks
    assert first.positive
    assert second == Click(second.x, second.y, False)
    assert 30 <= second.x < 40
    assert third.positive
    assert 5 <= third.y < 11
    assert [answer.dice for answer in session.clicked] == sorted(answer.dice for answer in session.clicked)


def test_nothing_is_clicked_once_the_answer_is_right(volume, viewer_of):
    session = work_through(viewer_of([volume.truth]), volume)
    assert len(session.clicks) == len(session.clicked) == 1
    assert session.clicked[-1].dice == 1.0


def test_a_slice_is_measured_on_the_slice_and_a_propagation_on_the_volume(volume, viewer_of):
    below = volume.truth.copy()
    below[:, :, 6:] = False
    below[:, :, 6] = volume.truth[:, :, 6]
    session = work_through(viewer_of([below]), volume)
    assert session.boxed.dice == 1.0
    assert session.propagated.dice == pytest.approx(2 * 3 / (3 + 5))
