"""Checkpoints and the shipped file."""

import torch

from pretraining import checkpoint


def test_export_is_complete_half_precision_and_safe_to_load(tmp_path):
    model = torch.nn.Linear(3, 2)
    path = tmp_path / "new" / "weights.pt"
    checkpoint.export(model.state_dict(), path)
    state = torch.load(path, weights_only=True)["model"]
    assert {v.dtype for v in state.values()} == {torch.float16}
    other = torch.nn.Linear(3, 2)
    other.load_state_dict({k: v.float() for k, v in state.items()}, strict=True)
    assert torch.allclose(other.weight, model.weight, atol=1e-3)
    assert not list(path.parent.glob("*.part"))


def test_no_checkpoint_yet(tmp_path):
    assert checkpoint.load(tmp_path / "none.pt", "cpu") is None


def test_average_follows_and_lags():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = checkpoint.Average(model)
    torch.nn.init.ones_(model.weight)
    for step in range(200):
        average.update(model, step)
    value = float(average.state["weight"])
    assert 0.9 < value < 1
