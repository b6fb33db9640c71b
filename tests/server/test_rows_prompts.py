"""Defects of MONAI Label's own SAM 2 tasks that concern prompts: rows 2, 3, 4, 8, 10, 18 and 19."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.support import studies
from tests.support.client import Client
from tests.support.phantoms import FROM_BOX, FROM_CLICK, THROUGH_VOLUME, dice

CT = studies.phantom("ct")
LESION = CT.click("lesion")
ORGAN = CT.click("organ")
K = LESION[2]
NRRD = {"result_extension": ".nrrd"}


def _ask(client: Client, model: str, **params: Any) -> np.ndarray:
    return client.segment(model, "ct", {**NRRD, **params}).mask


def _rois(roi: list[int]) -> list[list[int]]:
    """The same region with each of its three pairs in either order."""
    pairs = [roi[0:2], roi[2:4], roi[4:6]]
    return [
        [value for pair, turn in zip(pairs, turns, strict=True) for value in (pair[::-1] if turn else pair)]
        for turns in product((False, True), repeat=3)
    ]


def test_row_02_a_roi_of_six_is_pairs_per_axis(client: Client) -> None:
    x0, y0, x1, y1 = CT.box("lesion")
    as_corners = _ask(client, "biosam2_box", roi=[x0, y0, x1, y1], slice=K)
    as_pairs = _ask(client, "biosam2_box", roi=[x0, x1, y0, y1, K, K + 1], slice=K)
    np.testing.assert_array_equal(as_pairs, as_corners)
    assert dice(as_pairs[:, :, K], CT.objects["lesion"][:, :, K]) > FROM_BOX


def test_row_02_the_order_within_a_pair_means_nothing(client: Client) -> None:
    masks = [_ask(client, "biosam2_box", roi=roi) for roi in _rois(CT.roi("lesion"))]
    assert all((mask == masks[0]).all() for mask in masks)
    assert dice(masks[0][:, :, K], CT.objects["lesion"][:, :, K]) > FROM_BOX


def test_row_03_the_slices_of_a_roi_bound_the_volume(client: Client) -> None:
    i0, i1, j0, j1, _, _ = CT.roi("lesion")
    mask = _ask(client, "biosam2_propagate", roi=[i0, i1, j0, j1, K + 2, K - 2])
    slices = set(np.nonzero(mask)[2])
    assert {K - 1, K, K + 1} <= slices <= set(range(K - 2, K + 3))


def test_row_03_the_box_is_on_the_middle_slice_alone(client: Client) -> None:
    # The lesion is a third as wide at its ends: a box forced on all of them would be filled or near it.
    roi = CT.roi("lesion", margin=0)
    mask = _ask(client, "biosam2_propagate", roi=roi)
    assert dice(mask, CT.objects["lesion"]) > THROUGH_VOLUME
    areas = (mask > 0).sum(axis=(0, 1))
    assert areas[roi[4]] < 0.7 * areas[K]
    assert areas[roi[5] - 1] < 0.7 * areas[K]


def test_row_04_points_of_other_slices_are_left_out(client: Client) -> None:
    on_its_own = _ask(client, "biosam2_point", foreground=[LESION])
    i, j, _ = ORGAN
    among_others = _ask(
        client,
        "biosam2_point",
        foreground=[[i, j, K + 4], [70, 24, K - 2], LESION],
        background=[[48, 40, K + 3]],
    )
    np.testing.assert_array_equal(among_others, on_its_own)
    assert set(np.nonzero(among_others)[2]) == {K}


def test_row_04_points_of_the_same_slice_count(client: Client) -> None:
    one = _ask(client, "biosam2_point", foreground=[LESION])
    # Another client, since a click that confirms an earlier answer changes nothing.
    two = _ask(client, "biosam2_point", foreground=[[64, 25, K], LESION], client_id="another")
    less = _ask(client, "biosam2_point", foreground=[LESION], background=[[66, 25, K]])
    assert (two != one).any()
    assert (less != one).any()


def test_row_04_points_on_several_slices_guide_a_volume(client: Client) -> None:
    points = [CT.click("lesion", k) for k in (K - 3, K, K + 3)]
    mask = _ask(client, "biosam2_propagate", foreground=points)
    assert all(mask[tuple(point)] > 0 for point in points)
    assert dice(mask, CT.objects["lesion"]) > THROUGH_VOLUME


def test_row_08_prompts_do_not_pile_up(client: Client) -> None:
    first = _ask(client, "biosam2_point", foreground=[ORGAN], label="organ")
    alone = _ask(client, "biosam2_point", foreground=[LESION], label="lesion")
    _ask(client, "biosam2_point", foreground=[ORGAN, [30, 50, ORGAN[2]]], label="organ")
    again = _ask(client, "biosam2_point", foreground=[LESION], label="lesion")
    np.testing.assert_array_equal(again, alone)
    assert not ((alone > 0) & (first > 0)).any()
    assert dice(alone[:, :, K], CT.objects["lesion"][:, :, K]) > FROM_CLICK


def test_row_08_fewer_points_are_an_undo(client: Client) -> None:
    one = _ask(client, "biosam2_propagate", foreground=[LESION])
    _ask(
        client, "biosam2_propagate", foreground=[LESION, CT.click("lesion", K - 2)], background=[[48, 40, K]]
    )
    np.testing.assert_array_equal(_ask(client, "biosam2_propagate", foreground=[LESION]), one)


def test_row_08_several_objects_in_one_request(client: Client) -> None:
    mask = _ask(client, "biosam2_multi", lesion=[LESION], organ=[ORGAN])
    assert dice(mask == 1, CT.objects["lesion"]) > THROUGH_VOLUME
    assert dice(mask == 2, CT.objects["organ"]) > THROUGH_VOLUME


def test_row_08_the_label_of_the_request_is_in_the_answer(client: Client) -> None:
    for label in ("lesion", "organ", "something else"):
        params = {"foreground": [LESION], "label": label}
        assert client.segment("biosam2_point", "ct", params).params["label_names"] == {label: 1}


@pytest.mark.parametrize("model", ["biosam2_point", "biosam2_propagate", "biosam2_multi"])
def test_row_10_the_task_s_config_stands_for_what_is_not_sent(client: Client, model: str) -> None:
    config = client.info()["models"][model]["config"]
    values = {key: value[0] if isinstance(value, list) else value for key, value in config.items()}
    prompts = {"lesion": [LESION]} if model == "biosam2_multi" else {"foreground": [LESION]}
    np.testing.assert_array_equal(_ask(client, model, **prompts), _ask(client, model, **prompts, **values))


def test_row_18_a_bad_prompt_gets_a_reason(client: Client) -> None:
    # All the other ways are in test_bad_requests.py; these are the peer's.
    for params, word in (
        ({"foreground": [[72, 25, 99]]}, "99"),
        ({}, "point"),
        ({"foreground": [], "background": []}, "point"),
    ):
        answer = client.infer("sam_2d", "ct", params)
        assert answer.status == 400
        assert word in answer.detail


@pytest.mark.parametrize("model", ["biosam2_point", "biosam2_box", "biosam2_propagate", "sam_2d", "sam_3d"])
def test_row_19_score_names_and_latencies_are_in_the_answer(client: Client, model: str) -> None:
    params = client.segment(model, "ct", {"foreground": [LESION], "label": "lesion", **NRRD}).params
    assert 0.0 < params["score"] <= 1.0
    assert params["scores"].keys() == {"lesion"}
    assert params["label_names"] == {"lesion": 1}
    assert params["latencies"]["total"] > 0
    assert params["model"]
    assert len(params["window"]) == 2


def test_row_19_each_object_has_a_score(client: Client) -> None:
    params = client.segment("biosam2_multi", "ct", {"lesion": [LESION], "organ": [ORGAN], **NRRD}).params
    assert params["label_names"] == {"lesion": 1, "organ": 2}
    assert all(0.0 < params["scores"][name] <= 1.0 for name in ("lesion", "organ"))
    assert params["score"] == min(params["scores"].values())


def test_row_19_a_propagation_says_where_to_look_and_keeps_to_its_slices(client: Client) -> None:
    request = {"foreground": [LESION], "label": "x", "slice_range": [K - 3, K + 4], **NRRD}
    answer = client.segment("biosam2_propagate", "ct", request)
    scores, checked = (answer.params[name]["x"] for name in ("slice_scores", "slices_to_check"))
    assert {str(K)} < set(scores) <= {str(k) for k in range(K - 3, K + 4)}
    assert all(0.0 <= score <= 1.0 for score in scores.values())
    assert set(np.nonzero(answer.mask)[2]) <= {int(k) for k in scores}
    # Neither the clicked slice nor its neighbours, nor neighbours of each other.
    assert checked
    assert all(abs(k - other) > 1 for k in checked for other in [K, *checked] if other != k)


def test_row_19_the_slice_is_named(client: Client) -> None:
    assert client.segment("biosam2_point", "ct", {"foreground": [LESION], **NRRD}).params["slice"] == K
