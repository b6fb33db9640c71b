"""Defects of MONAI Label's own SAM 2 tasks that concern state: rows 6, 7, 9, 12, 13, 14, 15 and 17.

What HTTP cannot show is looked at in a process of its own: see ``probe.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import studies
from tests.support.client import Client
from tests.support.launcher import APP, run_script
from tests.support.phantoms import THROUGH_VOLUME, dice
from tests.support.server import environment

CT = studies.phantom("ct")
LESION = CT.click("lesion")
K = LESION[2]


def test_row_06_the_volume_grows_to_both_sides_and_ends(client: Client) -> None:
    params = {"foreground": [LESION], "result_extension": ".nrrd"}
    mask = client.segment("biosam2_propagate", "ct", params).mask
    first, last = CT.roi("lesion", margin=0)[4:]
    truth = CT.objects["lesion"]
    assert dice(mask[:, :, :K], truth[:, :, :K]) > THROUGH_VOLUME
    assert dice(mask[:, :, K + 1 :], truth[:, :, K + 1 :]) > THROUGH_VOLUME
    # One slice to spare at each end, where a partial volume may pass for the object.
    beyond = np.concatenate([mask[:, :, : first - 1], mask[:, :, last + 1 :]], axis=2)
    assert not beyond.any()


@pytest.mark.parametrize("k", [0, 23])
def test_row_06_a_prompt_on_the_first_or_the_last_slice(client: Client, k: int) -> None:
    # A propagation with nothing before it, and one with nothing after it.
    params = {"boxes": [[3, 3, 93, 77]], "slice": k, "result_extension": ".nrrd"}
    mask = client.segment("biosam2_propagate", "ct", params).mask
    assert mask[48, 40, k] > 0


def test_row_07_images_and_tasks_do_not_disturb_each_other(client: Client) -> None:
    requests = [
        ("biosam2_point", "ct", {"foreground": [LESION]}),
        ("biosam2_propagate", "lung", {"foreground": [studies.phantom("lung").click("nodule")]}),
        ("biosam2_point", "mr", {"foreground": [studies.phantom("mr").click("tumour")]}),
        ("biosam2_box", "ct", {"roi": CT.box("lesion"), "slice": K}),
        ("biosam2_point", "grey", {"foreground": [studies.phantom("grey").click("cell")[:2]]}),
    ]
    first = [client.segment(*request).mask for request in requests]
    for request, mask in reversed(list(zip(requests, first, strict=True))):
        np.testing.assert_array_equal(client.segment(*request).mask, mask)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``probe.py`` saw of the app, loaded beside a stranger's settings and asked without HTTP."""
    workdir = tmp_path_factory.mktemp("probe")
    folder = studies.write_datastore(workdir / "studies", workdir / "outside")
    sentinel = workdir / "home" / ".cache" / "monailabel" / "sam2" / "frames" / "0001.jpg"
    sentinel.parent.mkdir(parents=True)
    sentinel.write_bytes(b"a frame of a running server")
    script = Path(__file__).with_name("probe.py")
    run_script(
        script, [APP, folder, workdir], {**environment(workdir), "PYTHONDONTWRITEBYTECODE": "1"}, workdir
    )
    assert sentinel.exists(), "the frame cache of a running server was deleted"
    return json.loads((workdir / "facts.json").read_text())


def test_row_09_a_second_click_encodes_nothing(facts: dict[str, Any]) -> None:
    encoded = facts["encoded"]
    assert encoded["a click"] == 1
    assert encoded["a second click"] == 0
    assert encoded["a click on another slice"] == 1


def test_row_09_embeddings_are_shared_by_tasks_and_known_by_content(facts: dict[str, Any]) -> None:
    encoded = facts["encoded"]
    assert encoded["a box from another task"] == 0
    assert encoded["under another name"] == 0
    assert encoded["a copy in another file type"] == 0


def test_row_09_a_propagation_encodes_each_slice_once(facts: dict[str, Any]) -> None:
    encoded = facts["encoded"]
    assert 1 <= encoded["a propagation"] <= CT.image.shape[2]
    assert encoded["the propagation again"] == 0
    assert encoded["a click on a slice of the propagation"] == 0


def test_row_12_an_import_starts_no_thread_and_touches_no_file(facts: dict[str, Any]) -> None:
    changed = facts["after import"]
    assert changed["threads"] == []
    assert changed["files"] == []


@pytest.mark.parametrize("moment", ["after import", "after construction", "after requests"])
def test_row_13_no_setting_of_the_process_is_changed(facts: dict[str, Any], moment: str) -> None:
    # Autocast, gradients, default dtype, matmul precision: another model of the process relies on them.
    assert facts[moment]["torch"] == {}


def test_row_14_threads_of_one_process_get_the_right_masks(facts: dict[str, Any]) -> None:
    assert facts["together"] == facts["alone"]
    assert len(set(facts["alone"])) == len(facts["alone"])


def test_row_15_one_network_for_a_device_and_no_other_device_instead(facts: dict[str, Any]) -> None:
    assert facts["weights loaded"] == 1, "all tasks share the network of a device"
    assert facts["cpu in words"] == facts["cpu by default"]
    assert "cuda:99" in facts["refused device"]


def test_row_15_a_request_for_a_device_is_answered_alike(client: Client) -> None:
    params = {"foreground": [LESION], "result_extension": ".nrrd"}
    devices = client.info()["models"]["biosam2_point"]["config"]["device"]
    masks = [client.segment("biosam2_point", "ct", {**params, "device": device}).mask for device in devices]
    # Number formats differ between devices, the object does not.
    assert all(dice(mask, masks[0]) > 0.95 for mask in masks)


@pytest.mark.parametrize("moment", ["after import", "after construction", "after requests"])
def test_row_17_nothing_is_asked_of_the_network(facts: dict[str, Any], moment: str) -> None:
    assert facts[moment]["connections"] == []


def test_row_17_construction_loads_no_weights(facts: dict[str, Any]) -> None:
    # Every training and every scoring starts a process that constructs the app anew.
    assert facts["weights loaded by construction"] == 0


@pytest.mark.parametrize("moment", ["after import", "after construction", "after requests"])
def test_row_17_hydra_s_global_state_is_left_alone(facts: dict[str, Any], moment: str) -> None:
    assert facts[moment]["hydra"] is True
