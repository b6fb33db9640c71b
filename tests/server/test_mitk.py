"""MITK: over TLS, the image with every click, and an answer that it takes apart by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import studies
from tests.support.mitk import Mitk, make_certificate
from tests.support.phantoms import FROM_CLICK, THROUGH_VOLUME, dice
from tests.support.server import Server, copy_model_folder

CT = studies.phantom("ct")
LESION = CT.click("lesion")
# Grey levels of the view, to which MITK cuts the image.
LEVEL_WINDOW = (-160, 240)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that speaks TLS and has no image of its own: MITK sends all it asks about."""
    workdir = tmp_path_factory.mktemp("tls")
    (workdir / "studies").mkdir()
    conf = {"model_dir": str(copy_model_folder(workdir / "model")), "labels": "lesion,organ"}
    server = Server(workdir / "studies", workdir, conf, tls=make_certificate(workdir))
    yield server.start()
    server.stop()


@pytest.fixture
def mitk(tls_server: Server, tmp_path: Path) -> Mitk:
    assert tls_server.alive, tls_server.log[-4000:]
    return Mitk(tls_server, tmp_path)


def test_the_tools_find_their_models(mitk: Mitk) -> None:
    models = mitk.info()
    interactive = {(kind, size) for kind, size, _ in models.values() if kind in ("deepgrow", "deepedit")}
    assert {("deepgrow", 2), ("deepgrow", 3), ("deepedit", 3)} <= interactive
    assert models["biosam2_multi"][2] == {"lesion": 1, "organ": 2}


def test_a_slice_of_w_h_1_with_k_0(mitk: Mitk) -> None:
    i, j, k = LESION
    shown = CT.image[:, :, k : k + 1]
    mask, params = mitk.click("biosam2_point", shown, CT.affine, [[i, j, 0]], level_window=LEVEL_WINDOW)
    assert mask.shape == (96, 80, 1)
    assert set(np.unique(mask)) == {0, 1}
    assert dice(mask, CT.objects["lesion"][:, :, k : k + 1]) > FROM_CLICK
    assert params["label_names"]


def test_more_clicks_on_the_same_slice(mitk: Mitk) -> None:
    i, j, k = LESION
    shown = CT.image[:, :, k : k + 1]
    one, _ = mitk.click("biosam2_point", shown, CT.affine, [[i, j, 0]], level_window=LEVEL_WINDOW)
    more, _ = mitk.click(
        "biosam2_point", shown, CT.affine, [[i, j, 0], [i + 5, j, 0]], [[48, 40, 0]], LEVEL_WINDOW
    )
    assert more[i + 5, j, 0] == 1
    assert more[48, 40, 0] == 0
    undone, _ = mitk.click("biosam2_point", shown, CT.affine, [[i, j, 0]], level_window=LEVEL_WINDOW)
    np.testing.assert_array_equal(undone, one)


def test_a_volume_with_a_second_click(mitk: Mitk) -> None:
    first, _ = mitk.click("biosam2_propagate", CT.image, CT.affine, [LESION], level_window=LEVEL_WINDOW)
    clicks = [LESION, CT.click("lesion", 7)]
    mask, _ = mitk.click("biosam2_propagate", CT.image, CT.affine, clicks, [[48, 40, 9]], LEVEL_WINDOW)
    for found in (first, mask):
        assert found.shape == CT.image.shape
        assert set(np.unique(found)) == {0, 1}
        assert dice(found, CT.objects["lesion"]) > THROUGH_VOLUME


def test_a_model_of_type_deepedit_gets_positive_clicks_alone(mitk: Mitk) -> None:
    mask, _ = mitk.click("biosam2_multi", CT.image, CT.affine, [LESION], level_window=LEVEL_WINDOW)
    assert set(np.unique(mask)) == {0, 1}
    assert dice(mask, CT.objects["lesion"]) > THROUGH_VOLUME
