"""A training, seconds long: repeatable, resumable, and it moves every part of the network."""

import torch

from pretraining import checkpoint
from pretraining.train import Training, options


def _training(tmp_path, *more: str) -> Training:
    flags = ["--steps", "4", "--batch", "1", "--objects", "2", "--size", "64", "--frames", "3"]
    return Training(options(["--out", str(tmp_path), "--device", "cpu", *flags, *more]))


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path):
    whole = _training(tmp_path, "--warm-steps", "1")
    for _ in range(2):
        whole.advance()
    first = _training(tmp_path, "--warm-steps", "1")
    first.advance()
    second = _training(tmp_path, "--warm-steps", "1")
    second.restore(first.state())
    second.advance()
    assert second.step == whole.step == 2
    expected = whole.model.state_dict()
    assert all(torch.allclose(v, expected[k], atol=1e-5) for k, v in second.model.state_dict().items())


def test_clips_train_the_memory(tmp_path):
    training = _training(tmp_path, "--clip-every", "1")
    before = {k: v.clone() for k, v in training.model.named_parameters()}
    outcome, _ = training.advance()
    assert 0 <= outcome.dice["tracked"] <= 1
    moved = {k.split(".")[0] for k, v in training.model.named_parameters() if not torch.equal(v, before[k])}
    assert {"image_encoder", "memory_attention", "memory_encoder", "sam_mask_decoder"} <= moved


def test_the_rate_rises_stays_and_falls_at_the_end(tmp_path):
    training = _training(tmp_path, "--steps", "1000", "--anneal", "200", "--warm-steps", "10")
    rates = {}
    for step in (10, 300, 700, 900, 999):
        training.step = step
        rates[step] = training.rate()
    assert 0 < rates[10] < rates[300] == rates[700] == 3e-4
    assert rates[700] > rates[900] > rates[999] > 0


def test_an_anneal_starts_where_a_training_without_an_end_stands(tmp_path):
    endless = Training(options(["--out", str(tmp_path), "--device", "cpu", "--size", "64", "--batch", "1"]))
    assert endless.end == float("inf")
    endless.step = 500
    anneal = Training(options(["--out", str(tmp_path), "--device", "cpu", "--size", "64", "--anneal", "50"]))
    anneal.restore(endless.state())
    assert anneal.end == 550
    assert anneal.rate() == 3e-4
    anneal.step = 549
    assert anneal.rate() == 3e-4 / 50


def test_exported_weights_start_another_training_as_far_as_they_fit(tmp_path):
    first = _training(tmp_path)
    state = first.model.state_dict()
    state["no_mem_embed"] = state["no_mem_embed"] + 1
    del state["maskmem_tpos_enc"]
    checkpoint.export(state, tmp_path / "exported.pt")
    second = _training(tmp_path, "--seed", "8", "--start-from", str(tmp_path / "exported.pt"))
    assert torch.allclose(second.model.no_mem_embed, state["no_mem_embed"], atol=1e-3)


def test_aligning_brings_the_encoder_nearer_to_the_teachers(tmp_path):
    teacher = _training(tmp_path)
    checkpoint.export(teacher.model.state_dict(), tmp_path / "teacher.pt")
    flags = ["--align", "4", "--teacher", str(tmp_path / "teacher.pt"), "--seed", "8"]
    training = _training(tmp_path, *flags)
    distances = [training.advance()[0].dice["aligned"] for _ in range(4)]
    assert distances[-1] < distances[0]


def test_the_averaged_weights_start_anew_with_the_anneal(tmp_path):
    training = _training(tmp_path, "--anneal", "2", "--warm-steps", "4")
    training.average.state["no_mem_embed"].fill_(1e9)
    for _ in range(2):
        training.advance()
    assert float(training.average.state["no_mem_embed"].min()) > 1e6
    training.advance()
    assert float(training.average.state["no_mem_embed"].abs().max()) < 10
