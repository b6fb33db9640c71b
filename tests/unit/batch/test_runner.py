"""``python -m lib.batch`` in one process; ``tests/faults/test_ray.py`` has the same on a cluster."""

import json

import numpy as np
import pytest

from lib.batch.__main__ import FAILED, main
from lib.datastores.local import open_folder
from lib.errors import REFUSED
from tests.support.phantoms import rimmed
from tests.support.server import APP, copy_model_folder
from tests.support.studies import write_nifti


@pytest.fixture
def studies(tmp_path, monkeypatch):
    """Three images, the first with a person's label, and a file that is no image."""
    monkeypatch.setenv("MONAI_LABEL_RELOAD_APP_LIB", "false")
    folder = tmp_path / "studies"
    folder.mkdir()
    for seed in range(3):
        write_nifti(folder / f"case{seed}.nii.gz", rimmed(seed).image, rimmed(seed).affine)
    (folder / "damaged.nii.gz").write_bytes(b"no image")
    case = rimmed(0)
    labels = sum(value * mask.astype(np.uint8) for value, mask in enumerate(case.objects.values(), 1))
    names = [{"name": name, "idx": value} for value, name in enumerate(case.objects, 1)]
    file = write_nifti(tmp_path / "label.nii.gz", labels, case.affine)
    open_folder(str(folder)).save_label("case0", str(file), "final", {"label_info": names})
    return folder


@pytest.fixture
def run(studies, tmp_path, capsys):
    """Runs the command on the studies; its exit code and what it printed."""
    model_dir = str(copy_model_folder(tmp_path / "model"))

    def command(*arguments, **params):
        conf = ["--conf", "model_dir", model_dir, "--conf", "embedding_disk_gb", "0.1"]
        where = ["--app", str(APP), "--studies", str(studies), *conf]
        code = main([*where, "--params", json.dumps(params), *arguments])
        told = capsys.readouterr()
        return code, told.out.splitlines()[-1:] + told.err.splitlines()

    return command


@pytest.mark.slow
def test_an_archive_is_labelled_encoded_and_scored_and_an_equal_run_goes_on(run, studies):
    assert run("--images", "unlabeled", max_batch_size=1) == (0, ["DONE: 1 done, 0 skipped, 0 failed of 1"])
    assert run("--images", "unlabeled") == (FAILED, ["DONE: 1 done, 1 skipped, 1 failed of 3"])
    store = open_folder(str(studies))
    for image in ("case1", "case2"):
        info = store.get_label_info(image, "auto")
        assert (info["automatic"], info["model"]) == (True, "biosam2_auto")
    assert list(store.get_labels_by_image_id("case0")) == ["final"]
    for model in ("embed", "score"):
        assert run("--model", model) == (FAILED, ["DONE: 3 done, 0 skipped, 1 failed of 4"])
    assert len(list((studies.parent / "model" / "embeddings").glob("*.npz"))) == 3 * rimmed(0).image.shape[2]
    assert 0 <= open_folder(str(studies)).get_image_info("case1")["biosam2_uncertainty"]["score"] <= 1


def test_what_cannot_be_done_is_refused_with_a_reason(run):
    for arguments, params, reason in (
        (["--model", "embed", "--conf", "embedding_disk_gb", "0"], {}, "CONF=embedding_disk_gb=50"),
        (["--model", "other"], {}, "Unknown model 'other'"),
        ([], {"label_tag": "final"}, "'final' is for labels that people submit"),
        ([], {"label_tag": "../up"}, "it must have 1 to 64 letters"),
        ([], {"image": "case1"}, "params must not hold image"),
        (["--model", "score"], {"slices": 0}, "slices"),
    ):
        code, told = run(*arguments, **params)
        assert (code, reason in told[-1]) == (REFUSED, True), told
