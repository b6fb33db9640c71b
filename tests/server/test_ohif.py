"""The requests that OHIF v3 was recorded sending, and the answer that it copies into its labelmap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import requests

from tests.support import studies
from tests.support.client import LIMIT_S, OHIF, Client, read_nrrd
from tests.support.phantoms import FROM_CLICK, THROUGH_VOLUME, dice

CT = studies.phantom("ct")
LESION = CT.click("lesion")
ORGAN = CT.click("organ")
# In the body on the lesion's slice, outside of every object.
BODY = [48, 40, LESION[2]]


def test_the_body_is_a_raw_nrrd_of_the_whole_volume(client: Client) -> None:
    answer = client.ohif("biosam2_point", "ct", {"foreground": [LESION], "background": []})
    head, _, data = answer.body.partition(b"\n\n")
    array, fields = read_nrrd(answer.body)
    assert head.startswith(b"NRRD000")
    assert fields["encoding"] == "raw"
    assert fields["type"] == "unsigned char"
    assert [int(size) for size in fields["sizes"].split()] == list(CT.image.shape)
    assert len(data) == CT.image.size
    assert array[tuple(LESION)] > 0


def test_x_is_fastest_in_the_body(client: Client) -> None:
    answer = client.ohif("biosam2_point", "ct", {"foreground": [LESION], "background": []})
    data = answer.body.partition(b"\n\n")[2]
    i, j, k = LESION
    width, height, _ = CT.image.shape
    assert data[i + width * (j + height * k)] > 0


def test_the_header_carries_the_geometry_of_the_image(client: Client) -> None:
    _, fields = read_nrrd(client.ohif("biosam2_point", "ct", {"foreground": [LESION]}).body)
    assert fields["space"] == "left-posterior-superior"
    vectors = [
        [float(value) for value in vector.strip("()").split(",")]
        for vector in fields["space directions"].split()
    ]
    origin = [float(value) for value in fields["space origin"].strip("()").split(",")]
    np.testing.assert_allclose(vectors, np.diag([0.8, 0.9, 3.0]), atol=1e-5)
    np.testing.assert_allclose(origin, [-38.0, -36.0, -30.0], atol=1e-4)


def test_deepgrow_2d_marks_the_slice_of_the_click_only(client: Client) -> None:
    mask = client.ohif("biosam2_point", "ct", {"foreground": [LESION], "background": [BODY]}).mask
    assert set(np.nonzero(mask)[2]) == {LESION[2]}
    assert dice(mask[:, :, LESION[2]], CT.objects["lesion"][:, :, LESION[2]]) > FROM_CLICK


def test_the_other_side_of_an_oblique_image_stays_empty(client: Client) -> None:
    mr = studies.phantom("mr")
    i, j, k = mr.click("tumour")
    mask = client.ohif("biosam2_point", "mr", {"foreground": [[i, j, k]], "background": []}).mask
    assert mask.shape == mr.image.shape
    assert dice(mask[:, :, k], mr.objects["tumour"][:, :, k]) > FROM_CLICK


@pytest.mark.parametrize(
    "prompts",
    [
        {"foreground": [LESION]},
        {"foreground": [LESION], "background": None},
        {"foreground": [LESION, None], "background": [None]},
        {"foreground": [LESION], "background": [], "label": "lesion"},
        {"foreground": [LESION], "background": [], "slice": None},
    ],
    ids=["background absent", "background null", "null entries", "label named", "slice null"],
)
def test_absent_and_null_lists_mean_no_points(client: Client, prompts: dict[str, Any]) -> None:
    plain = client.ohif("biosam2_point", "ct", {"foreground": [LESION], "background": []})
    assert client.ohif("biosam2_point", "ct", prompts).body == plain.body


def test_a_foreground_that_is_absent_is_refused_in_words(client: Client) -> None:
    # OHIF leaves it out when no point is held for the label.
    answer = client.infer("biosam2_point", "ct", {"background": [BODY], **OHIF}, query={"output": "image"})
    assert answer.status == 400
    assert "point" in answer.detail


def test_deepgrow_3d_gives_the_volume(client: Client) -> None:
    mask = client.ohif("biosam2_propagate", "ct", {"foreground": [LESION], "background": [BODY]}).mask
    assert mask.shape == CT.image.shape
    assert dice(mask, CT.objects["lesion"]) > THROUGH_VOLUME


def test_a_negative_point_beside_the_object_on_another_slice_takes_nothing_from_it(client: Client) -> None:
    for step in (-2, 3):
        prompts = {"foreground": [LESION], "background": [[BODY[0], BODY[1], LESION[2] + step]]}
        assert dice(client.ohif("biosam2_propagate", "ct", prompts).mask, CT.objects["lesion"]) > 0.9


def test_a_negative_point_inside_the_mask_on_another_slice_takes_its_place_out(client: Client) -> None:
    i, j, k = LESION
    prompts = {"foreground": [LESION], "background": [[i + 6, j, k + 2]]}
    assert not client.ohif("biosam2_propagate", "ct", prompts).mask[i + 6, j, k + 2]


def test_deepedit_sends_a_list_for_each_label(client: Client) -> None:
    prompts = {"background": [BODY], "lesion": [LESION], "organ": [ORGAN]}
    mask = client.ohif("biosam2_multi", "ct", prompts).mask
    assert set(np.unique(mask)) == {0, 1, 2}
    assert dice(mask == 1, CT.objects["lesion"]) > THROUGH_VOLUME
    assert dice(mask == 2, CT.objects["organ"]) > THROUGH_VOLUME


def test_deepedit_with_one_label_clicked_leaves_the_other_out(client: Client) -> None:
    mask = client.ohif("biosam2_multi", "ct", {"background": [], "organ": [ORGAN]}).mask
    assert set(np.unique(mask)) == {0, 2}


def test_vista3d_points_with_point_labels_are_the_same_clicks(client: Client) -> None:
    as_lists = client.ohif("biosam2_point", "ct", {"foreground": [LESION], "background": [BODY]})
    as_vista = client.ohif(
        "biosam2_point", "ct", {"points": [LESION, BODY], "point_labels": [1, 0], "label_prompt": [1]}
    )
    assert as_vista.body == as_lists.body


def test_options_of_the_dialog_come_along_as_numbers(client: Client) -> None:
    prompts = {"radius_mm": 45, "foreground": [LESION], "background": []}
    plain = client.ohif("biosam2_point", "ct", {"foreground": [LESION], "background": []})
    assert client.ohif("biosam2_point", "ct", prompts).body == plain.body


def test_a_refusal_keeps_the_cors_header(client: Client) -> None:
    # Without it a viewer of another origin sees a network error and no reason.
    answer = client.infer("biosam2_point", "ct", {}, headers={"Origin": "http://viewer.example"})
    assert 400 <= answer.status < 500
    assert answer.headers["access-control-allow-origin"] == "http://viewer.example"


def test_the_other_calls_of_the_panel(client: Client) -> None:
    sample = requests.post(f"{client.url}/activelearning/random", json={}, timeout=LIMIT_S)
    assert sample.status_code == 200
    assert "id" in sample.json()
    # Idle, with or without a trainer: MONAI Label's own way of saying that nothing runs.
    running = requests.get(f"{client.url}/train/?check_if_running=true", timeout=LIMIT_S)
    assert running.status_code == 404
