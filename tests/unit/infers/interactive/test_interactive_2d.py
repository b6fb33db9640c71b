"""One object on one slice, as the server's task answers it: what is encoded, and what counts as a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monailabel.interfaces.tasks.infer_v2 import InferTask
from PIL import Image
from scipy.spatial.transform import Rotation

from lib.engine.network import Network
from lib.engine.predictor_pool import PredictorPool
from lib.errors import PromptError
from lib.images.cache import ImageCache
from lib.infers.registry import all_tasks
from lib.infers.task import LABEL_FILE, Services
from lib.infers.templates import Templates
from lib.settings import Settings
from tests.support import phantoms
from tests.support.phantoms import FROM_BOX, THROUGH_VOLUME, dice
from tests.support.server import copy_model_folder
from tests.support.studies import write_nifti, write_picture

CT = phantoms.ct()
LESION = CT.click("lesion")
COLOUR = phantoms.colour_picture()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, InferTask]:
    settings = Settings.from_conf({"device": "cpu"})
    engines = PredictorPool(settings, copy_model_folder(tmp_path_factory.mktemp("weights") / "model"))
    images = ImageCache(1 << 30, settings.max_voxels)
    return all_tasks(Services(settings, engines, images, ()), Templates(lambda: None, images))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each frame that was encoded."""
    count: list[int] = []
    encode = Network.encode

    def encode_and_count(network: Network, levels: Any) -> Any:
        count.extend([1] * len(levels))
        return encode(network, levels)

    monkeypatch.setattr(Network, "encode", encode_and_count)
    return count


def _upload(folder: Path, name: str, image: np.ndarray = CT.image) -> dict[str, Any]:
    """A request as MITK's becomes: the image in a new temporary file each time."""
    file = write_nifti(folder / f"{name}.nii.gz", image, CT.affine)
    return {"image": str(file), "foreground": [LESION], "background": [], "reset_state": True}


def test_an_image_that_is_sent_again_is_not_encoded_again(
    tasks: dict[str, InferTask], encoded: list[int], tmp_path: Path
) -> None:
    tasks["biosam2_point"](_upload(tmp_path, "tmp1"))
    assert len(encoded) == 1
    again = {**_upload(tmp_path, "tmp2"), "background": [[48, 40, LESION[2]]], "reset_state": False}
    tasks["biosam2_point"](again)
    tasks["biosam2_box"]({**again, "image": _upload(tmp_path, "tmp3")["image"]})
    assert len(encoded) == 1
    tasks["biosam2_point"](_upload(tmp_path, "tmp4", CT.image + 1))
    assert len(encoded) == 2


def test_a_volume_that_is_sent_again_is_not_encoded_again(
    tasks: dict[str, InferTask], encoded: list[int], tmp_path: Path
) -> None:
    tasks["biosam2_propagate"](_upload(tmp_path, "tmp1", CT.image - 7))
    slices = len(encoded)
    assert slices > 3
    tasks["biosam2_propagate"](_upload(tmp_path, "tmp2", CT.image - 7))
    tasks["biosam2_point"](_upload(tmp_path, "tmp3", CT.image - 7))
    assert len(encoded) == slices


def _frame(folder: Path, name: str, shift: int = 0) -> dict[str, Any]:
    """A request of CVAT's tracker; frames differ by their place."""
    file = write_picture(folder / f"{name}.jpg", np.roll(COLOUR.image, shift, axis=0), quality=95)
    return {"image": str(file), "output": "json", "roi": COLOUR.box("nucleus"), "client_id": None}


@pytest.mark.parametrize("model", ["sam_2d", "biosam2_point", "biosam2_box"])
def test_every_task_on_a_slice_follows_an_object_for_cvat(
    tasks: dict[str, InferTask], tmp_path: Path, model: str
) -> None:
    first, second = _frame(tmp_path, f"{model}1"), _frame(tmp_path, f"{model}2", shift=2)
    for request in (first, second):
        request["client_id"] = model
    assert tasks[model](first)[1]["tracked"] == 0
    assert tasks[model](second)[1]["tracked"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"output": "mask"},
        {"output": None},
        {"foreground": [COLOUR.click("nucleus")[:2]]},
        {"background": [COLOUR.click("other")[:2]]},
    ],
    ids=["the interactor", "no output", "a click", "a negative click"],
)
def test_what_is_no_tracker_s_is_answered_as_ever(
    tasks: dict[str, InferTask], tmp_path: Path, change: dict[str, Any]
) -> None:
    first, second = _frame(tmp_path, "one"), _frame(tmp_path, "two", shift=2)
    tasks["sam_2d"](first)
    assert "tracked" not in tasks["sam_2d"]({**second, **change})[1]


def test_a_slice_of_a_volume_is_no_frame(tasks: dict[str, InferTask], tmp_path: Path) -> None:
    request = {**_upload(tmp_path, "tmp1"), "foreground": [], "output": "json"}
    answer = tasks["sam_2d"]({**request, "roi": CT.box("lesion"), "slice": LESION[2]})[1]
    assert "tracked" not in answer


def test_a_refusal_has_a_reason(tasks: dict[str, InferTask], tmp_path: Path) -> None:
    with pytest.raises(PromptError):
        tasks["sam_2d"]({**_frame(tmp_path, "one"), "roi": None})


@pytest.mark.parametrize("shape", [(237, 1501), (1501, 237), (100, 900)])
def test_an_elongated_picture_is_not_squeezed(
    tasks: dict[str, InferTask], tmp_path: Path, shape: tuple[int, int]
) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    short = min(shape)
    for share in (0.1, 0.5, 0.93):
        x, y = (
            (share * columns.shape[1], 0.45 * shape[0]) if shape[1] > shape[0] else (100.0, share * shape[0])
        )
        truth = ((columns - x) / (0.2 * short)) ** 2 + ((rows - y) / (0.15 * short)) ** 2 <= 1
        noise = np.random.default_rng(0).normal(0, 8, shape)
        levels = (np.where(truth, 190, 60) + noise).clip(0, 255).astype(np.uint8)
        file = tmp_path / "long.png"
        Image.fromarray(levels).save(file)
        request = {"image": str(file), "foreground": [[round(x), round(y)]], "result_extension": ".png"}
        answer, _ = tasks["biosam2_point"](request)
        mask = np.asarray(Image.open(answer)) > 0
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.96, (shape, share)


def test_an_oblique_view_is_segmented_on_the_voxels_that_it_cuts(
    tasks: dict[str, InferTask], tmp_path: Path
) -> None:
    """A plane through the lesion, tilted by 25 degrees about i: its voxels, and no others."""
    spacing = np.abs(np.diag(CT.affine)[:3])
    turn = Rotation.from_euler("x", 25, degrees=True).as_matrix()
    across = turn[:, 2]
    pixel = spacing.min() * np.eye(3)
    pixel[2, 2] = thickness = np.abs(across) @ spacing
    axes = (turn @ pixel).T / spacing
    size = [120, 120, 1]
    centre = np.array(LESION, float)
    view = {"origin": (centre - 60 * (axes[0] + axes[1])).tolist(), "axes": axes.tolist(), "size": size}
    voxels = np.moveaxis(np.indices(CT.image.shape), 0, -1)
    height = (voxels - centre) * spacing @ across / thickness
    touched = (height >= -0.5) & (height < 0.5)
    truth = CT.objects["lesion"] & touched
    inside = (voxels[truth] - centre) * spacing @ turn[:, :2] / spacing.min() + 60
    request = {
        "image": str(write_nifti(tmp_path / "ct.nii.gz", CT.image, CT.affine)),
        "view": view,
        "boxes": [[*np.floor(inside.min(0)).tolist(), *np.ceil(inside.max(0) + 1).tolist(), 0]],
        "result_extension": ".nii.gz",
    }
    behind = 9
    whole = {**view, "origin": (view["origin"] - behind * axes[2]).tolist(), "size": [120, 120, 2 * behind]}
    boxes = [[*request["boxes"][0][:4], behind]]
    file, _ = tasks["biosam2_propagate"]({**request, "view": whole, "boxes": boxes})
    assert dice(np.asarray(nib.load(file).dataobj) > 0, CT.objects["lesion"]) >= THROUGH_VOLUME
    for started in (False, True):
        # The same, with the box's answer as an uploaded mask that a click corrects.
        file, params = tasks["biosam2_point"](request)
        mask = np.asarray(nib.load(file).dataobj) > 0
        assert mask.shape == CT.image.shape
        assert not (mask & ~touched).any()
        assert dice(mask, truth) >= FROM_BOX
        assert params["slice"] == 0
        request = (
            {**request, "boxes": [], "foreground": [[60, 60, 0]], LABEL_FILE: file} if not started else {}
        )
