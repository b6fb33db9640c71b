"""What a person says beside clicks and boxes, and what happens to an answer: over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests

from tests.support import studies
from tests.support.client import LIMIT_S, Answer, Client, read_mask
from tests.support.phantoms import FROM_CLICK, THROUGH_VOLUME, dice
from tests.support.server import Server
from tests.support.studies import write_nifti

CT = studies.phantom("ct")
LESION, ORGAN = CT.click("lesion"), CT.click("organ")
K = LESION[2]
TRUTH = CT.objects["lesion"]
NRRD = {"result_extension": ".nrrd"}


def _with_label(client: Client, model: str, params: dict[str, Any], label: Path) -> Answer:
    """A request with a label map, as 3D Slicer sends scribbles."""
    fields = {
        "params": (None, json.dumps({**NRRD, **params})),
        "label": (label.name, label.read_bytes(), "application/octet-stream"),
    }
    address = f"{client.url}/infer/{model}"
    answer = requests.post(address, params={"image": "ct"}, files=fields, timeout=LIMIT_S)
    return Answer(answer.status_code, answer.headers, answer.content)


def test_every_clicked_voxel_has_its_label_and_undo_gives_the_earlier_answer(client: Client) -> None:
    i, j, _ = LESION
    foreground, background = [LESION], [[i + 3, j, K], [0, 0, K]]
    asked = {**NRRD, "foreground": foreground, "client_id": "corrections"}
    for model in ("biosam2_point", "biosam2_propagate"):
        first = client.segment(model, "ct", asked).mask
        before = client.segment(model, "ct", {**asked, "background": background[:1]}).mask
        corrected = client.segment(model, "ct", {**asked, "background": background}).mask
        assert corrected[tuple(LESION)] > 0, model
        assert all(corrected[tuple(point)] == 0 for point in background), model
        for earlier, later in ((first, before), (before, corrected)):
            assert not later[:, :, K][earlier[:, :, K] == 0].any(), "a negative click adds nothing"
        assert (client.segment(model, "ct", asked).mask == first).all(), model
        filled = client.segment(model, "ct", {**asked, "background": background, "fill_holes": True}).mask
        assert filled[i + 3, j, K] == 0, "holes are filled but for those that were clicked"


def test_scribbles_lassos_and_boxes_on_several_slices(client: Client) -> None:
    i0, i1, j0, j1, _, _ = CT.roi("lesion")
    i, j, _ = LESION
    stroke = [[i - 2, j], [i, j + 1], [i + 2, j]]
    lasso = [[i0, j0], [i1, j0], [i1, j1], [i0, j1]]
    requests_ = {
        "scribbles": [
            {"slice": K, "points": stroke, "positive": True},
            {"slice": K, "points": [[2, 2], [20, 2]], "positive": False},
        ],
        "lassos": [{"slice": k, "points": lasso} for k in (K - 2, K + 2)],
        "boxes": [{"slice": k, "box": [i0, j0, i1, j1]} for k in (K - 2, K + 2)],
    }
    for field, value in requests_.items():
        mask = client.segment("biosam2_propagate", "ct", {**NRRD, field: value}).mask
        assert dice(mask, TRUTH) > THROUGH_VOLUME - 0.15, (field, dice(mask, TRUTH))
    mask = client.segment("biosam2_propagate", "ct", {**NRRD, "scribbles": requests_["scribbles"]}).mask
    assert all(mask[x, y, K] > 0 for x, y in stroke)
    assert not mask[2:21, 2, K].any()
    excluded = {"lassos": [{"slice": K, "points": [[i, j0], [i1, j0], [i1, j1], [i, j1]], "positive": False}]}
    mask = client.segment("biosam2_point", "ct", {**NRRD, "foreground": [[i - 3, j, K]], **excluded}).mask
    assert not mask[i : i1 + 1, j0 : j1 + 1, K].any()
    refused = client.infer("biosam2_point", "ct", {"lassos": [{"slice": K, "points": [[1, 1]]}]})
    assert (refused.status, "an outline needs 3" in refused.detail) == (400, True)


def test_scribbles_of_3d_slicer(client: Client, tmp_path: Path) -> None:
    assert client.info()["models"]["biosam2_scribbles"]["type"] == "scribbles"
    painted = np.zeros(CT.image.shape, np.uint8)
    i, j, _ = LESION
    painted[i - 2 : i + 3, j, K] = 2
    painted[3:20, 3, K] = 1
    file = write_nifti(tmp_path / "scribbles.nii.gz", painted, CT.affine)
    info = [{"name": "background_scribbles", "id": 1}, {"name": "foreground_scribbles", "id": 2}]
    answer = _with_label(
        client, "biosam2_scribbles", {"label_info": info, "selected_label_name": "lesion"}, file
    )
    assert answer.status == 200, answer.body
    assert answer.params["label_names"] == {"lesion": 1}
    assert (answer.mask[i - 2 : i + 3, j, K] > 0).all()
    assert not answer.mask[3:20, 3, K].any()
    assert dice(answer.mask, TRUTH) > THROUGH_VOLUME - 0.15


def test_an_uploaded_label_is_where_clicks_start(client: Client, tmp_path: Path) -> None:
    start = TRUTH.astype(np.uint8)
    i, j, _ = LESION
    start[i, j, K] = 0
    file = write_nifti(tmp_path / "label.nii.gz", start, CT.affine)
    answer = _with_label(client, "biosam2_point", {"foreground": [LESION]}, file)
    assert answer.status == 200, answer.body
    assert answer.mask[i, j, K] > 0
    assert (answer.mask[:, :, K][start[:, :, K] > 0] > 0).all(), "a positive click takes nothing away"
    whole = _with_label(client, "biosam2_propagate", {"foreground": [LESION]}, file)
    others = [k for k in range(start.shape[2]) if k != K]
    assert ((whole.mask[:, :, others] > 0) == (start[:, :, others] > 0)).all()
    for name in ("label_file", "image"):
        refused = client.infer("biosam2_point", "ct", {"foreground": [LESION], name: "/etc/passwd"})
        assert refused.status == 400
    named = client.segment("biosam2_point", "ct", {"foreground": [LESION], "label": "/etc/passwd"})
    assert named.params["label_names"] == {"/etc/passwd": 1}, "a label is a name and never a file"


def test_answers_are_merged_into_the_label_of_their_tag(scratch: Server) -> None:
    client = Client(scratch.url)

    def saved(model: str, label: str, point: list[int]) -> Answer:
        params = {**NRRD, "label": label, "foreground": [point], "save_label": True, "label_tag": "draft"}
        return client.segment(model, "ct", params)

    def stored() -> np.ndarray:
        query = {"label": "ct", "tag": "draft"}
        answer = requests.get(f"{scratch.url}/datastore/label", params=query, timeout=LIMIT_S)
        assert answer.status_code == 200, answer.text
        return read_mask(answer.content)[0]

    volume = saved("biosam2_propagate", "lesion", LESION).mask
    assert ((stored() == 1) == (volume > 0)).all()
    with ThreadPoolExecutor(2) as pool:
        twice = [
            pool.submit(saved, "biosam2_point", *asked) for asked in (("organ", ORGAN), ("other", [5, 5, K]))
        ]
        organ, _ = (future.result() for future in twice)
    after = stored()
    assert ((after == 1) == (volume > 0)).all(), "other objects are kept"
    info = requests.get(
        f"{scratch.url}/datastore/label/info", params={"label": "ct", "tag": "draft"}, timeout=LIMIT_S
    )
    names = {item["name"]: item["idx"] for item in info.json()["label_info"]}
    assert set(names) >= {"lesion", "organ"}
    assert ((after == names["organ"]) == ((organ.mask > 0) & (volume == 0))).all()
    corrected = saved("biosam2_point", "lesion", [LESION[0] + 1, LESION[1], K]).mask
    again = stored()
    assert (again[:, :, K] == 1)[(corrected[:, :, K] > 0) & (after[:, :, K] <= 1)].all()
    other = [k for k in range(again.shape[2]) if k != K]
    assert (again[:, :, other] == after[:, :, other]).all(), "an answer on a slice touches that slice alone"


def test_an_answer_on_an_oblique_view_is_merged_into_the_voxels_that_it_cuts(scratch: Server) -> None:
    client, query = Client(scratch.url), {"label": "ct", "tag": "oblique"}
    # A plane through the lesion, tilted by 25 degrees about i, as thick as the voxels that it cuts.
    spacing, middle = np.abs(np.diag(CT.affine)[:3]), np.array(LESION, float)
    angle = np.deg2rad(25)
    up, across = (0, np.cos(angle), np.sin(angle)), np.array((0, -np.sin(angle), np.cos(angle)))
    thickness = np.abs(across) @ spacing
    axes = np.array([(1, 0, 0), up, across * thickness]) / spacing
    origin = middle - 60 * (axes[0] + axes[1])
    view = {"origin": origin.tolist(), "axes": axes.tolist(), "size": [120, 120, 1]}
    places = (np.moveaxis(np.indices(CT.image.shape), 0, -1) - middle) * spacing @ across
    cut = (places >= -thickness / 2) & (places < thickness / 2)

    def saved(model: str, label: str, **prompts: Any) -> np.ndarray:
        params = {**NRRD, "label": label, **prompts, "save_label": True, "label_tag": "oblique"}
        return client.segment(model, "ct", params).mask > 0

    def stored() -> dict[str, np.ndarray]:
        answer = requests.get(f"{scratch.url}/datastore/label", params=query, timeout=LIMIT_S)
        info = requests.get(f"{scratch.url}/datastore/label/info", params=query, timeout=LIMIT_S).json()
        voxels = read_mask(answer.content)[0]
        return {item["name"]: voxels == item["idx"] for item in info["label_info"]}

    organ = saved("biosam2_propagate", "organ", foreground=[ORGAN])
    lesion = saved("biosam2_propagate", "lesion", foreground=[LESION])
    before = stored()
    drawn = saved("biosam2_point", "lesion", foreground=[[60, 60, 0]], background=[[64, 60, 0]], view=view)
    after = stored()
    assert np.array_equal(after["organ"], organ)
    assert np.array_equal(before["lesion"][~cut], after["lesion"][~cut])
    assert np.array_equal(after["lesion"][cut], (drawn & ~organ)[cut])
    assert (drawn & ~cut).sum() == 0
    assert (lesion & cut).any()
    assert not np.array_equal(before["lesion"], after["lesion"])


def test_a_label_may_be_called_like_a_field_of_requests(
    start_server: Callable[[Mapping[str, str]], Server],
) -> None:
    """MONAI Label's own keys among them; the unit test of the settings has those that are refused."""
    names = [
        "background",
        "foreground",
        "model",
        "slice",
        "size",
        "name",
        "image",
        "label",
        "session",
        "window",
    ]
    client = Client(start_server({"labels": ",".join(names)}).url)
    for name in names[1:]:
        one = client.segment("biosam2_point", "ct", {**NRRD, name: [LESION]})
        assert list(one.params["label_names"]) == [name]
        assert dice(one.mask[:, :, K], TRUTH[:, :, K]) > FROM_CLICK
    both = client.segment(
        "biosam2_multi", "ct", {**NRRD, "slice": [LESION], "model": [ORGAN], "background": [[1, 1, K]]}
    )
    for name, k, truth in (("slice", K, TRUTH), ("model", ORGAN[2], CT.objects["organ"])):
        found = both.mask[:, :, k] == both.params["label_names"][name]
        assert dice(found, truth[:, :, k]) > FROM_CLICK


def test_large_answers_are_compressed_for_clients_that_take_gzip(client: Client, tmp_path: Path) -> None:
    """A browser takes gzip; 3D Slicer's client does not."""
    volume = np.random.default_rng(0).normal(0, 10, (80, 80, 36)).astype(np.float32)
    volume[30:50, 30:50, 16:20] += 500
    file = write_nifti(tmp_path / "large.nii.gz", volume, np.eye(4))
    asked = {"foreground": [[40, 40, 18]], "result_extension": ".nrrd", "result_compress": False}
    for query in ({"output": "image"}, {}):
        plain, compressed = (
            client.segment(
                "biosam2_point", None, asked, file=file, query=query, headers={"Accept-Encoding": encoding}
            )
            for encoding in ("identity", "gzip")
        )
        assert "Content-Encoding" not in plain.headers
        assert compressed.headers["Content-Encoding"] == "gzip"
        assert int(compressed.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 20
        assert plain.mask.any()
        assert (plain.mask == compressed.mask).all()
