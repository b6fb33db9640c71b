"""A training in two processes of torchrun, as on two machines: one result, published once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lib.engine.model_versions import Versions
from lib.engine.predictor_pool import PredictorPool
from lib.settings import Settings
from tests.support.server import APP, REPOSITORY, copy_model_folder, environment
from tests.unit.trainers.conftest import write_labelled_image

OPTIONS = {"model": "biosam2", "preset": "decoder", "image_size": 64, "max_epochs": 2, "steps_per_epoch": 8}
OPTIONS |= {"batch_size": 2, "val_objects": 12, "learning_rate": 5e-4, "clip_share": 0.1, "warmup_steps": 0}
LIMIT_S = 1000


@pytest.mark.timeout(LIMIT_S + 60)
def test_two_processes_learn_together_and_the_first_publishes(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    for seed in range(3):
        write_labelled_image(tmp_path / "studies", f"case{seed}", seed)
    model_dir = copy_model_folder(tmp_path / "model")
    conf = {"model_dir": str(model_dir), "device": "cpu", "precision": "fp32"}
    changes = {"PYTHONPATH": f"{APP}:{REPOSITORY}", "MONAI_LABEL_APP_CONF": json.dumps(conf)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monailabel.interfaces.utils.app", "-a", str(APP), "-s", str(tmp_path / "studies")]
    command += ["-m", "train", "-r", json.dumps(OPTIONS)]
    env = {**environment(tmp_path), **changes, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout.count("Training: Published") == 1, done.stdout[-4000:]
    versions = Versions(model_dir)
    assert versions.names() == ["v0001"]
    assert [path.name for path in (model_dir / "versions").glob(".*")] == []
    metrics = versions.read("v0001").metrics
    assert metrics["after"]["dice"] >= metrics["before"]["dice"] + 0.005
    assert PredictorPool(Settings(precision="fp32", device="cpu"), model_dir).get().name == "v0001"
