from pathlib import Path

import numpy as np
import pytest
import torch

from lib.engine.checkpoints import Weights, candidates, load_state_dict, named_weights, sha256_of
from lib.engine.registry import Registry
from lib.errors import CheckpointError
from lib.settings import Settings

MODEL_DIR = Path(__file__).resolve().parents[3] / "apps" / "biosam2" / "model"
TENSORS = {"a": torch.arange(6, dtype=torch.float16), "b": torch.ones(2, 2)}


@pytest.fixture
def registry(tmp_path) -> Registry:
    for name in ("registry.yaml", "biosam2_mini.yaml"):
        (tmp_path / name).write_text((MODEL_DIR / name).read_text())
    return Registry(tmp_path)


def weights(path: Path, sha256: str | None = None) -> Weights:
    return Weights("some", path, None, None, sha256, "for a test")


@pytest.mark.parametrize(
    "wrap", [lambda t: {"model": t}, lambda t: {"model": "sam2", "state_dict": t}, lambda t: t]
)
def test_tensors_are_found_under_any_of_the_keys_in_use(tmp_path, wrap):
    torch.save(wrap(TENSORS), tmp_path / "x.pt")
    loaded = load_state_dict(weights(tmp_path / "x.pt"))
    assert loaded["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert loaded["a"].dtype == torch.float32


def test_an_absent_file_is_refused_with_the_command_that_fetches_it(tmp_path):
    with pytest.raises(CheckpointError, match="make fetch MODEL=some"):
        load_state_dict(weights(tmp_path / "none.pt"))


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": {"a": torch.zeros(10_000)}}, path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(CheckpointError, match=r"truncated or no checkpoint|damaged"):
        load_state_dict(weights(path))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02}q\x00."])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="some: "):
        load_state_dict(weights(path))


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "x": Evil()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load_state_dict(weights(tmp_path / "x.pt"))


def test_what_holds_more_than_tensors_is_refused(tmp_path):
    torch.save({"model": {"a": torch.zeros(1), "b": "text"}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="more than tensors: b"):
        load_state_dict(weights(tmp_path / "x.pt"))


def test_a_wrong_hash_is_refused_and_the_right_one_is_not(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": TENSORS}, path)
    with pytest.raises(CheckpointError, match="it must be 00"):
        load_state_dict(weights(path, sha256="00"))
    assert set(load_state_dict(weights(path, sha256=sha256_of(path)))) == {"a", "b"}


def names(settings: Settings, registry: Registry, device="cpu") -> list[str]:
    return [item.name for item in candidates(settings, registry, device)]


def test_without_any_download_the_bundled_weights_are_served(registry):
    assert names(Settings(), registry) == ["biosam2_mini"]


def test_the_named_come_before_the_present_before_the_bundled(registry):
    for name in ("sam2.1_hiera_tiny", "sam2.1_hiera_large"):
        registry.path(name).touch()
    order = names(Settings(model="sam2_hiera_small"), registry)
    assert order == ["sam2_hiera_small", "sam2.1_hiera_tiny", "sam2.1_hiera_large", "biosam2_mini"]
    assert names(Settings(), registry, "cuda")[0] == "sam2.1_hiera_large"


@pytest.mark.parametrize(("device", "size"), [("cpu", 512), ("cuda", 1024)])
def test_sam2_runs_at_512_pixels_on_a_cpu_and_at_1024_on_a_gpu(registry, device, size):
    found = named_weights("sam2.1_hiera_tiny", Settings(), registry, device, "")
    assert found.image_size == size
    chosen = named_weights("sam2.1_hiera_tiny", Settings(image_size=768), registry, device, "")
    assert chosen.image_size == 768


def test_a_path_takes_the_configuration_beside_it(registry, tmp_path):
    path = tmp_path / "mine.pt"
    assert named_weights(str(path), Settings(), registry, "cpu", "").config is None
    path.with_suffix(".yaml").touch()
    assert named_weights(str(path), Settings(), registry, "cpu", "").config == path.with_suffix(".yaml")


def test_random_bytes_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    rng = np.random.default_rng(0)
    for _ in range(300):
        path.write_bytes(rng.bytes(int(rng.integers(1, 400))))
        with pytest.raises(CheckpointError, match=r"truncated or no checkpoint|damaged"):
            load_state_dict(weights(path))
