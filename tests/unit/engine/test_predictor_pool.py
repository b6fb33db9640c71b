import logging
import shutil
import threading

import pytest
import torch

from lib.engine import predictor_pool as engines_module
from lib.engine.builder import build_network, load_network
from lib.engine.checkpoints import sha256_of
from lib.engine.model_versions import CONFIG_FILE, WEIGHTS_FILE
from lib.engine.predictor_pool import PredictorPool
from lib.errors import CheckpointError, DeviceError
from lib.settings import Settings
from tests.unit.engine.test_registry import MODEL_DIR


@pytest.fixture
def model_dir(tmp_path):
    for name in ("registry.yaml", "biosam2_mini.yaml", "biosam2_mini.pt"):
        shutil.copy(MODEL_DIR / name, tmp_path)
    return tmp_path


def test_constructing_reads_nothing(tmp_path):
    PredictorPool(Settings(), tmp_path / "does not exist")


def test_the_bundled_weights_are_served_and_said(model_dir):
    engines = PredictorPool(Settings(precision="fp32"), model_dir)
    assert engines.get("cpu").name == "biosam2_mini"
    assert engines.status() == {
        "served": {"cpu": "biosam2_mini (bundled with the app), 256 px, float32"},
        "refused": {},
    }


@pytest.mark.parametrize("damage", ["truncated", "hash", "absent", "architecture"])
def test_refused_weights_give_way_to_the_next_and_are_named(model_dir, caplog, damage):
    path = model_dir / "mine.pt"
    if damage == "truncated":
        torch.save({"model": {"a": torch.zeros(10_000)}}, path)
        path.write_bytes(path.read_bytes()[:15_000])
    elif damage == "architecture":
        torch.save({"model": {"a": torch.zeros(10)}}, path)
    elif damage == "hash":
        path = model_dir / "sam2.1_hiera_tiny.pt"
        torch.save({"model": {"a": torch.zeros(10)}}, path)
    engines = PredictorPool(Settings(model=str(path) if damage != "hash" else "sam2.1_hiera_tiny"), model_dir)
    with caplog.at_level(logging.ERROR):
        assert engines.get("cpu").name == "biosam2_mini"
    (name,) = engines.status()["refused"]
    assert name == path.stem
    assert f"going on with the next: {name}" in caplog.text


def test_no_weights_at_all_is_one_error_that_says_why(model_dir):
    (model_dir / "biosam2_mini.pt").unlink()
    with pytest.raises(CheckpointError, match=r"no weights could be loaded: biosam2_mini: there is no file"):
        PredictorPool(Settings(), model_dir).get("cpu")


def test_an_unknown_device_is_refused(model_dir):
    with pytest.raises(DeviceError, match="'tpu'"):
        PredictorPool(Settings(), model_dir).get("tpu")


def test_a_predictor_comes_with_its_own_weights_whatever_is_published_meanwhile(model_dir, monkeypatch):
    engines = PredictorPool(Settings(), model_dir)

    def publish_meanwhile(*arguments):
        network = load_network(*arguments)
        with engines.versions.new_folder() as folder:
            shutil.copy(model_dir / "biosam2_mini.pt", folder / WEIGHTS_FILE)
            shutil.copy(model_dir / "biosam2_mini.yaml", folder / CONFIG_FILE)
            sha256 = sha256_of(folder / WEIGHTS_FILE)
            record = {"base": "biosam2_mini", "parent": None, "image_size": 256, "rendered_prompts": True}
            record |= {"sha256": sha256, "created": "2026-01-02T03:04:05+00:00"}
            engines.versions.switch(engines.versions.add(folder, record).name)
        return network

    with monkeypatch.context() as changed:
        changed.setattr(engines_module, "load_network", publish_meanwhile)
        predictor, weights = engines.served("cpu")
    assert (predictor.name, weights.name) == ("biosam2_mini", "biosam2_mini")
    predictor, weights = engines.served("cpu")
    assert (predictor.name, weights.name) == ("v0001", "v0001")


def test_threads_that_ask_at_once_share_one_network(model_dir):
    engines = PredictorPool(Settings(), model_dir)
    found = []
    threads = [threading.Thread(target=lambda: found.append(engines.get("cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(predictor) for predictor in found}) == 1


def test_weights_of_a_path_are_served_at_the_size_that_the_settings_name(model_dir):
    network = build_network(model_dir / "biosam2_mini.yaml")
    torch.save({"model": network.state_dict()}, model_dir / "mine.pt")
    engines = PredictorPool(Settings(model=str(model_dir / "mine.pt"), image_size=128), model_dir)
    assert engines.get("cpu").image_size == 128
