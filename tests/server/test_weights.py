"""A server whose weights or caches are not what they should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import studies
from tests.support.client import Client
from tests.support.server import APP, Server

CT = studies.phantom("ct")
PROMPTS = {"foreground": [CT.click("lesion")], "background": [], "result_extension": ".nrrd"}


@pytest.fixture(scope="module")
def truncated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of which the second half is missing, as after a broken download."""
    path = tmp_path_factory.mktemp("weights") / "my_weights.pt"
    torch.save({"model": {"layer.weight": torch.zeros(256, 256)}}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.fixture(scope="module")
def bare(start_server: Callable[[Mapping[str, str]], Server], truncated: Path) -> Server:
    """A server with broken weights named first, without caches, and with an option switched on."""
    conf = {
        "model": str(truncated),
        "embedding_cache_mb": "0",
        "image_cache_mb": "0",
        "largest_component": "true",
    }
    return start_server(conf)


def test_broken_weights_are_refused_and_the_next_in_order_answer(bare: Server) -> None:
    answer = Client(bare.url).segment("biosam2_point", "ct", PROMPTS)
    assert answer.params["model"] == "biosam2_mini"
    assert answer.mask[tuple(CT.click("lesion"))] > 0


def test_the_log_and_info_say_so(bare: Server, truncated: Path) -> None:
    Client(bare.url).segment("biosam2_point", "ct", PROMPTS)
    lines = [line for line in bare.log.splitlines() if re.search("refused|cannot|not", line)]
    assert any(truncated.stem in line for line in lines), bare.log[-4000:]
    assert "biosam2_mini" in bare.log
    model = str(Client(bare.url).info()["models"]["biosam2_point"])
    assert "biosam2_mini" in model
    assert truncated.stem in model


def test_without_caches_the_masks_are_the_same(bare: Server, client: Client) -> None:
    params = {**PROMPTS, "largest_component": True}
    for model in ("biosam2_point", "biosam2_propagate"):
        with_caches = client.segment(model, "ct", params).mask
        without = Client(bare.url).segment(model, "ct", params).mask
        np.testing.assert_array_equal(without, with_caches)


def test_an_option_of_conf_is_the_default_of_the_tasks(bare: Server, client: Client) -> None:
    served = Client(bare.url)
    assert served.info()["models"]["biosam2_point"]["config"]["largest_component"] is True
    assert client.info()["models"]["biosam2_point"]["config"]["largest_component"] is False
    unsaid = served.segment("biosam2_propagate", "ct", PROMPTS).mask
    said = client.segment("biosam2_propagate", "ct", {**PROMPTS, "largest_component": True}).mask
    np.testing.assert_array_equal(unsaid, said)


def test_without_labels_there_is_one_to_click_on(bare: Server) -> None:
    # OHIF lists nothing to click on without a label.
    info = Client(bare.url).info()
    assert info["labels"]
    assert all(isinstance(label, str) for label in info["labels"])


def test_the_bundled_weights_lie_in_the_app() -> None:
    size = (APP / "model" / "biosam2_mini.pt").stat().st_size
    assert 1 << 20 < size <= 30 << 20


def test_a_wrong_option_ends_the_start_and_is_named(
    start_server: Callable[[Mapping[str, str]], Server],
) -> None:
    with pytest.raises(RuntimeError, match=r"image_size.*77") as caught:
        start_server({"image_size": "77", "precision": "half"})
    assert re.search(r"precision.*half", str(caught.value))
