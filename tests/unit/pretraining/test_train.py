"""A training, seconds long: repeatable, resumable, and it moves every part of the network."""

import pytest
import torch

from pretraining.train import FULL, SMALL, Training, options


def _training(tmp_path, *more: str) -> Training:
    flags = ["--steps", "4", "--warm-steps", "1", "--batch", "1", "--objects", "2", "--small-until", "2"]
    return Training(options(["--out", str(tmp_path), "--device", "cpu", *flags, *more]))


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path):
    whole = _training(tmp_path)
    for _ in range(2):
        whole.advance()
    first = _training(tmp_path)
    first.advance()
    second = _training(tmp_path)
    second.restore(first.state())
    second.advance()
    assert second.step == whole.step == 2
    expected = whole.model.state_dict()
    assert all(torch.allclose(v, expected[k], atol=1e-5) for k, v in second.model.state_dict().items())


def test_clips_train_the_memory(tmp_path):
    training = _training(tmp_path, "--warm-steps", "0", "--clips-from", "0", "--clip-every", "1")
    before = {k: v.clone() for k, v in training.model.named_parameters()}
    outcome, _ = training.advance()
    assert 0 <= outcome.dice["tracked"] <= 1
    moved = {k.split(".")[0] for k, v in training.model.named_parameters() if not torch.equal(v, before[k])}
    assert {"image_encoder", "memory_attention", "memory_encoder", "sam_mask_decoder"} <= moved


def test_the_schedule(tmp_path):
    flags = ["--small-until", "0.3", "--mixed-until", "0.6", "--steps", "1000", "--warm-steps", "10"]
    training = _training(tmp_path, *flags)
    sizes, rates = {}, {}
    for step in (0, 100, 404, 408, 900, 999):
        training.step = step
        sizes[step], rates[step] = training.size, training.rate()
    assert [sizes[s] for s in (0, 404, 408, 900)] == [SMALL, SMALL, FULL, FULL]
    assert rates[100] > rates[404] > rates[900] > rates[999] > 0
    assert training.level == 1.0


def test_a_length_is_needed_in_one_unit(tmp_path, capsys):
    with pytest.raises(SystemExit):
        options(["--out", str(tmp_path)])
    assert "give one of --steps and --minutes" in capsys.readouterr().err
