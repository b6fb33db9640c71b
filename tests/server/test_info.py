"""GET /info/, under the constraints that each viewer's code puts on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.support import studies
from tests.support.client import LIMIT_S, Client
from tests.support.server import Server
from tests.support.studies import write_nifti

TASKS = {
    "biosam2_point": ("deepgrow", 2),
    "biosam2_box": ("deepgrow", 2),
    "biosam2_propagate": ("deepgrow", 3),
    "biosam2_multi": ("deepedit", 3),
    "biosam2_scribbles": ("scribbles", 3),
    "biosam2_video": ("deepgrow", 3),
    "biosam2_auto": ("segmentation", 3),
    "biosam2_pathology": ("annotation", 2),
    "sam_2d": ("deepgrow", 2),
    "sam_3d": ("deepgrow", 3),
}


@pytest.fixture
def info(client: Client) -> dict[str, Any]:
    return client.info()


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_there_with_its_type_and_dimension(info: dict[str, Any], name: str) -> None:
    model = info["models"][name]
    assert (model["type"], model["dimension"]) == TASKS[name]
    assert model["description"].strip()


def test_labels_is_a_list_of_the_labels_of_conf(info: dict[str, Any]) -> None:
    # OHIF pushes to it, MITK reads it as a vector of strings.
    assert info["labels"] == ["lesion", "organ"]


def test_there_is_no_top_level_config(info: dict[str, Any]) -> None:
    # Slicer takes the key for an old server and refuses to connect.
    assert "config" not in info


def test_no_number_is_nan_or_infinite(info: dict[str, Any]) -> None:
    assert all(math.isfinite(number) for number in _numbers(info))


def test_deepgrow_models_have_no_labels_of_their_own(info: dict[str, Any]) -> None:
    # Else Slicer's Next Sample posts to a model without a name.
    for model in info["models"].values():
        if model["type"] == "deepgrow":
            assert model["labels"] == []


def test_deepedit_labels_are_numbered_from_one_without_background(info: dict[str, Any]) -> None:
    # A background among them makes OHIF draw the wrong label and shifts Slicer's indices.
    assert info["models"]["biosam2_multi"]["labels"] == {"lesion": 1, "organ": 2}


def test_config_holds_scalars_and_lists_of_words(info: dict[str, Any]) -> None:
    # Slicer fills combo boxes with the lists, QuPath calls getClass() on the values.
    for group in ("models", "trainers", "strategies"):
        for name, entry in info[group].items():
            for key, value in entry.get("config", {}).items():
                where = f"{group}.{name}.config.{key} = {value!r}"
                if isinstance(value, list):
                    assert value, where
                    assert all(isinstance(word, str) for word in value), where
                else:
                    assert isinstance(value, (bool, int, float, str)), where


def test_every_model_has_a_config(info: dict[str, Any]) -> None:
    assert all(isinstance(model["config"], dict) for model in info["models"].values())


def test_strategy_random_is_there(info: dict[str, Any]) -> None:
    # OHIF asks for it whatever the drop-down says.
    assert "random" in info["strategies"]


def test_the_weights_in_use_are_named(info: dict[str, Any]) -> None:
    # A person must be able to see which network answers.
    assert "biosam2_mini" in str(info["models"]["biosam2_point"]) + info["description"]


def test_asking_again_gives_the_same(client: Client, info: dict[str, Any]) -> None:
    assert client.info()["models"] == info["models"]


def test_what_is_saved_is_shown_at_once(scratch: Server, tmp_path: Path) -> None:
    # The answer is kept while nothing changes.
    client, ct = Client(scratch.url), studies.phantom("ct")
    mask = write_nifti(tmp_path / "mask.nii.gz", ct.objects["lesion"].astype(np.uint8), ct.affine)
    for tag, params in (("mine", "{}"), ("final", '{"label_info": [{"name": "cyst", "idx": 1}]}')):
        # Another test may have saved one already.
        requests.delete(f"{scratch.url}/datastore/label?id=ct&tag={tag}", timeout=LIMIT_S)
        before = client.info()
        assert client.info() == before
        url = f"{scratch.url}/datastore/label?image=ct&tag={tag}"
        with mask.open("rb") as file:
            files = {"label": ("mask.nii.gz", file)}
            requests.put(url, files=files, data={"params": params}, timeout=LIMIT_S).raise_for_status()
        tags = (before["datastore"]["label_tags"], client.info()["datastore"]["label_tags"])
        assert tags[1] == {**tags[0], tag: tags[0].get(tag, 0) + 1}
    assert "cyst" in client.info()["models"]["biosam2_auto"]["labels"]
