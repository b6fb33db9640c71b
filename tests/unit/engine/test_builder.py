import subprocess
import sys

import pytest
import torch

from lib.engine.builder import build_network, load_network
from lib.engine.checkpoints import Weights
from lib.engine.registry import Registry
from lib.errors import CheckpointError
from tests.unit.engine.conftest import SIZE, TINY
from tests.unit.engine.test_registry import MODEL_DIR

REGISTRY = Registry(MODEL_DIR)
MINI = REGISTRY.config_path("biosam2_mini.yaml")


def save(network: torch.nn.Module, path) -> Weights:
    torch.save({"model": network.state_dict()}, path)
    return Weights(path.stem, path, None, None, None, "for a test")


def test_a_file_of_no_known_name_finds_its_configuration_by_its_tensors(tmp_path, tiny):
    loaded = load_network(save(tiny, tmp_path / "mine.pt"), REGISTRY, "cpu")
    assert loaded.image_size == 512
    assert not loaded.rendered_prompts
    assert torch.equal(loaded.no_mem_embed, tiny.no_mem_embed)
    mini = load_network(save(build_network(MINI), tmp_path / "small.pt"), REGISTRY, "cpu")
    assert mini.image_size == 256
    assert mini.rendered_prompts


def test_a_network_is_ready_for_inference(tiny):
    assert not tiny.training
    assert not any(parameter.requires_grad for parameter in tiny.parameters())
    assert tiny.image_size == SIZE
    assert tiny.sam_image_embedding_size == SIZE // 16


def test_another_architecture_is_refused(tmp_path, tiny):
    weights = save(tiny, tmp_path / "mine.pt")
    wrong = Weights("mine", weights.path, MINI, None, None, "")
    with pytest.raises(CheckpointError, match=r"of another architecture than biosam2_mini\.yaml"):
        load_network(wrong, REGISTRY, "cpu")


def test_a_missing_tensor_is_refused(tmp_path, tiny):
    state = tiny.state_dict()
    del state["obj_ptr_proj.layers.0.weight"]
    torch.save({"model": state}, tmp_path / "x.pt")
    weights = Weights("x", tmp_path / "x.pt", TINY, None, None, "")
    with pytest.raises(CheckpointError, match=r"obj_ptr_proj\.layers\.0\.weight"):
        load_network(weights, REGISTRY, "cpu")


def test_an_unknown_architecture_is_refused_with_what_to_do(tmp_path):
    torch.save({"model": {"conv.weight": torch.zeros(3)}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"put its configuration beside it as x\.yaml"):
        load_network(Weights("x", tmp_path / "x.pt", None, None, None, ""), REGISTRY, "cpu")


def test_a_broken_configuration_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("nothing: true")
    with pytest.raises(CheckpointError, match=r"x\.yaml cannot be read"):
        build_network(tmp_path / "x.yaml")


def test_building_leaves_hydras_global_state_alone():
    # The state of a fresh interpreter counts, so a fresh interpreter is asked.
    code = (
        "from pathlib import Path; import sam2; from hydra.core.global_hydra import GlobalHydra\n"
        "before = GlobalHydra.instance().hydra\n"
        f"from lib.engine.builder import build_network; build_network(Path({str(MINI)!r}))\n"
        "assert GlobalHydra.instance().hydra is before\n"
        "GlobalHydra.instance().clear()\n"
        f"build_network(Path({str(MINI)!r}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=MODEL_DIR.parent)


def test_a_network_that_has_run_in_inference_mode_can_still_learn():
    network = build_network(MINI)
    side = network.image_size // 16
    current, memory = (
        torch.randn(side * side, 1, network.hidden_dim),
        torch.randn(side * side, 1, network.mem_dim),
    )

    def attend() -> torch.Tensor:
        return network.memory_attention(curr=current, memory=memory, curr_pos=current, memory_pos=memory)

    with torch.inference_mode():
        attend()
    network.memory_attention.requires_grad_(True)
    attend().sum().backward()
