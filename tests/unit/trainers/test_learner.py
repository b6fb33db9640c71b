"""One step after the other: what changes, what does not, and what happens when memory or numbers run out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.engine.builder import load_network
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime
from lib.errors import TrainingError
from lib.trainers.learner import HOPELESS_STEPS, Learner
from lib.trainers.parameters import trains
from lib.trainers.sampler import Sampler
from lib.trainers.training_step import Teacher
from tests.unit.trainers.conftest import SIZE

CPU = torch.device("cpu")


@pytest.fixture
def make_learner(images, make_plan):
    def make(**options):
        plan = make_plan(**options)
        weights = replace(plan.weights, image_size=SIZE)
        network = load_network(weights, Registry(plan.model_dir), "cpu")
        chosen = plan.options
        sampler = Sampler(images, SIZE, chosen.objects_per_frame, chosen.empty_frames, True, chosen.seed)
        return Learner(network, chosen, sampler, Runtime(CPU, "fp32"), 1 << 28)

    return make


def tensors(learner):
    return {name: value.clone() for name, value in learner.network.state_dict().items()}


@pytest.mark.parametrize("preset", ["paper", "decoder", "video"])
def test_only_what_should_train_changes(make_learner, preset):
    learner = make_learner(preset=preset, clip_share=0.5, learning_rate=1e-3)
    before = tensors(learner)
    for _ in range(4):
        learner.advance(0.0)
    after = tensors(learner)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(trains(name, preset) for name in changed)
    assert not any(name.startswith("sam_prompt_encoder") for name in changed)
    parts = {name.split(".")[0] for name in changed}
    expected = {
        "paper": {"image_encoder", "sam_mask_decoder"},
        "decoder": {"sam_mask_decoder"},
        "video": {"image_encoder", "sam_mask_decoder", "memory_attention", "memory_encoder"},
    }
    assert parts == expected[preset]


@pytest.mark.parametrize("preset", ["paper", "decoder", "video"])
def test_the_loss_falls(make_learner, preset):
    learner = make_learner(preset=preset, learning_rate=5e-4, batch_size=3, empty_frames=0.0)
    losses = [learner.advance(0.0)["total"] for _ in range(16)]
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


def test_two_trainings_of_one_seed_are_equal(make_learner):
    one, other = make_learner(seed=5), make_learner(seed=5)
    for _ in range(3):
        one.advance(0.0)
        other.advance(0.0)
    assert all(torch.equal(a, b) for a, b in zip(tensors(one).values(), tensors(other).values(), strict=True))


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(make_learner, tmp_path):
    whole = make_learner(preset="paper")
    for _ in range(4):
        whole.advance(0.0)
    first = make_learner(preset="paper")
    for _ in range(2):
        first.advance(0.0)
    torch.save(first.state(), tmp_path / "state.pt")
    second = make_learner(preset="paper")
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        second.advance(0.0)
    for a, b in zip(tensors(whole).values(), tensors(second).values(), strict=True):
        assert torch.equal(a, b)


def test_out_of_memory_halves_the_batch_and_learns_the_same(make_learner, monkeypatch):
    # A CPU does not run out as a GPU does: the step raises what CUDA raises for more than two frames.
    original = Teacher.image_losses
    sizes = []

    def small(self, batch, rng):
        sizes.append(len(batch.rows))
        if len(batch.rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, batch, rng)

    monkeypatch.setattr(Teacher, "image_losses", small)
    learner = make_learner(batch_size=6, clip_share=0.0)
    before = tensors(learner)
    first = learner.advance(0.0)
    second = learner.advance(0.0)
    assert sizes == [6, 3, 2, 2, 1, 1, 2, 2, 1, 1]
    assert np.isfinite([first["total"], second["total"]]).all()
    assert any(not torch.equal(before[name], value) for name, value in tensors(learner).items())


def test_accumulated_gradients_are_those_of_the_whole_batch(make_learner, monkeypatch):
    # No corrections: they are drawn anew for each part. One object a frame: each part weighs the same.
    monkeypatch.setattr("lib.trainers.training_step.CORRECTED", 0.0)
    same = {"batch_size": 4, "objects_per_frame": 1, "clip_share": 0.0, "empty_frames": 0.0}
    gradients = []
    for parts in (1, 2, 4):
        learner = make_learner(**same, accumulation=parts)
        learner.advance(0.0)
        gradients.append([p.grad for p in learner.network.parameters() if p.grad is not None])
    for whole, *others in zip(*gradients, strict=True):
        for other in others:
            assert torch.allclose(whole, other, rtol=1e-3, atol=1e-5)


def test_one_frame_that_does_not_fit_says_what_to_do(make_learner, monkeypatch):
    def never(self, batch, rng):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Teacher, "image_losses", never)
    with pytest.raises(TrainingError, match=r"one frame at a time.*smaller image_size"):
        make_learner(clip_share=0.0).advance(0.0)


def test_losses_that_are_no_numbers_leave_the_weights_alone_and_end_the_training(make_learner):
    learner = make_learner(clip_share=0.0)
    with torch.no_grad():
        learner.network.sam_mask_decoder.iou_token.weight.fill_(float("nan"))
    before = tensors(learner)
    for _ in range(HOPELESS_STEPS - 1):
        learner.advance(0.0)
    with pytest.raises(TrainingError, match=r"diverged.*learning_rate"):
        learner.advance(0.0)
    for name, value in tensors(learner).items():
        assert torch.equal(torch.nan_to_num(before[name]), torch.nan_to_num(value))


def test_the_rate_warms_up_and_falls_to_a_tenth(make_learner):
    learner = make_learner(warmup_steps=4, learning_rate=1e-3, clip_share=0.0)
    warming = [learner.advance(0.0)["learning_rate"] for _ in range(5)]
    assert warming == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    assert learner.advance(1.0)["learning_rate"] == pytest.approx(1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("preset", ["paper", "decoder", "video"])
def test_a_step_on_a_gpu(images, make_plan, preset):
    plan = make_plan(preset=preset)
    network = load_network(replace(plan.weights, image_size=SIZE), Registry(plan.model_dir), "cuda")
    sampler = Sampler(images, SIZE, 3, 0.0, preset == "decoder", 0)
    learner = Learner(network, plan.options, sampler, Runtime(torch.device("cuda:0"), "auto"), 1 << 28)
    assert np.isfinite([learner.advance(0.0)["total"] for _ in range(3)]).all()
