"""One step after the other: what changes, what does not, and what happens when memory or numbers run out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.engine.builder import build_network, load_network
from lib.engine.network import EmbeddingCache
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime
from lib.errors import TrainingError
from lib.trainers.config import TrainOptions
from lib.trainers.optimizer import (
    AVERAGED_STEPS,
    HOPELESS_STEPS,
    SHARES,
    NetworkOptimizer,
    interpolate_weights,
    parameter_groups,
    prepare,
    trained_parameters,
    trains,
)
from lib.trainers.sampler import Sampler
from lib.trainers.training_step import TrainingStep
from tests.support.server import APP
from tests.unit.trainers.conftest import SIZE

CPU = torch.device("cpu")


@pytest.fixture
def make_optimizer(images, make_plan):
    def make(**options):
        plan = make_plan(**options)
        weights = replace(plan.weights, image_size=SIZE)
        network = load_network(weights, Registry(plan.model_dir), "cpu")
        chosen = plan.options
        sampler = Sampler(images, SIZE, chosen)
        return NetworkOptimizer(network, chosen, sampler, Runtime(CPU, "fp32"), EmbeddingCache(1 << 28))

    return make


def tensors(optimizer):
    return {name: value.clone() for name, value in optimizer.network.state_dict().items()}


@pytest.mark.parametrize("preset", ["paper", "decoder", "video"])
def test_only_what_should_train_changes(make_optimizer, preset):
    optimizer = make_optimizer(preset=preset, clip_share=0.5, clip_frames=2, learning_rate=1e-3)
    before = tensors(optimizer)
    for _ in range(4):
        optimizer.advance(0.0)
    after = tensors(optimizer)
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
def test_the_loss_of_one_batch_falls(make_optimizer, preset, monkeypatch):
    draw = Sampler.draw
    monkeypatch.setattr(Sampler, "draw", lambda self, number: draw(self, 0))
    small = {"batch_size": 2, "clip_frames": 3, "empty_frames": 0.0}
    optimizer = make_optimizer(preset=preset, learning_rate=5e-4, **small)
    losses = [optimizer.advance(0.0)["total"] for _ in range(10)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_two_trainings_of_one_seed_are_equal(make_optimizer):
    one, other = make_optimizer(seed=5), make_optimizer(seed=5)
    for _ in range(3):
        one.advance(0.0)
        other.advance(0.0)
    assert all(torch.equal(a, b) for a, b in zip(tensors(one).values(), tensors(other).values(), strict=True))


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(make_optimizer, tmp_path):
    whole = make_optimizer(preset="paper")
    for _ in range(4):
        whole.advance(0.0)
    first = make_optimizer(preset="paper")
    for _ in range(2):
        first.advance(0.0)
    torch.save(first.state(), tmp_path / "state.pt")
    second = make_optimizer(preset="paper")
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        second.advance(0.0)
    for a, b in zip(tensors(whole).values(), tensors(second).values(), strict=True):
        assert torch.equal(a, b)


def test_out_of_memory_halves_the_batch_and_learns_the_same(make_optimizer, monkeypatch):
    # A CPU does not run out as a GPU does: the step raises what CUDA raises for more than two frames.
    original = TrainingStep.image_losses
    sizes = []

    def small(self, batch, rng):
        sizes.append(len(batch.clips))
        if len(batch.clips) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, batch, rng)

    monkeypatch.setattr(TrainingStep, "image_losses", small)
    optimizer = make_optimizer(batch_size=6, clip_share=0.0)
    before = tensors(optimizer)
    first = optimizer.advance(0.0)
    second = optimizer.advance(0.0)
    assert sizes == [6, 3, 2, 2, 1, 1, 2, 2, 1, 1]
    assert np.isfinite([first["total"], second["total"]]).all()
    assert any(not torch.equal(before[name], value) for name, value in tensors(optimizer).items())


def test_accumulated_gradients_are_those_of_the_whole_batch(make_optimizer, monkeypatch):
    # No corrections: they are drawn anew for each part. One object a frame: each part weighs the same.
    monkeypatch.setattr("lib.trainers.training_step.CORRECTED", 0.0)
    same = {"batch_size": 4, "objects_per_frame": 1, "clip_share": 0.0, "empty_frames": 0.0}
    gradients = []
    for parts in (1, 2, 4):
        optimizer = make_optimizer(**same, accumulation=parts)
        optimizer.advance(0.0)
        gradients.append([p.grad for p in optimizer.network.parameters() if p.grad is not None])
    for whole, *others in zip(*gradients, strict=True):
        for other in others:
            assert torch.allclose(whole, other, rtol=1e-3, atol=1e-5)


def test_one_frame_that_does_not_fit_says_what_to_do(make_optimizer, monkeypatch):
    def never(self, batch, rng):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TrainingStep, "image_losses", never)
    with pytest.raises(TrainingError, match=r"single frame.*smaller image_size"):
        make_optimizer(clip_share=0.0).advance(0.0)


def test_losses_that_are_no_numbers_leave_the_weights_alone_and_end_the_training(make_optimizer):
    optimizer = make_optimizer(clip_share=0.0)
    with torch.no_grad():
        optimizer.network.sam_mask_decoder.iou_token.weight.fill_(float("nan"))
    before = tensors(optimizer)
    for _ in range(HOPELESS_STEPS - 1):
        optimizer.advance(0.0)
    with pytest.raises(TrainingError, match=r"diverged.*learning_rate"):
        optimizer.advance(0.0)
    for name, value in tensors(optimizer).items():
        assert torch.equal(torch.nan_to_num(before[name]), torch.nan_to_num(value))


def test_the_rate_warms_up_and_falls_to_a_tenth(make_optimizer):
    optimizer = make_optimizer(warmup_steps=4, learning_rate=1e-3, clip_share=0.0)
    warming = [optimizer.advance(0.0)["learning_rate"] for _ in range(5)]
    assert warming == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    assert optimizer.advance(1.0)["learning_rate"] == pytest.approx(1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("preset", ["paper", "decoder", "video"])
def test_a_step_on_a_gpu(images, make_plan, preset):
    plan = make_plan(preset=preset)
    network = load_network(replace(plan.weights, image_size=SIZE), Registry(plan.model_dir), "cuda")
    sampler = Sampler(images, SIZE, plan.options)
    optimizer = NetworkOptimizer(
        network, plan.options, sampler, Runtime(torch.device("cuda:0"), "auto"), EmbeddingCache(1 << 28)
    )
    assert np.isfinite([optimizer.advance(0.0)["total"] for _ in range(3)]).all()


MODULES = {
    "paper": {"image_encoder", "sam_mask_decoder"},
    "decoder": {"sam_mask_decoder"},
    "video": {"image_encoder", "sam_mask_decoder", "memory_attention", "memory_encoder"},
}


@pytest.fixture(scope="module")
def network():
    return build_network(APP / "model" / "biosam2_mini.yaml", 64)


def test_a_preset_trains_its_modules_and_nothing_else(network):
    for preset in MODULES:
        prepare(network, preset)
        trained = {name for name, _ in trained_parameters(network)}
        assert {name.split(".")[0] for name in trained} == MODULES[preset]
        for name, _ in network.named_parameters():
            lent = preset == "decoder" and name.startswith(
                ("sam_mask_decoder.conv_s0", "sam_mask_decoder.conv_s1")
            )
            assert (name in trained) == (name.split(".")[0] in MODULES[preset] and not lent), name
        assert not network.training


def test_the_rate_falls_with_the_depth_of_the_encoder(network):
    prepare(network, "paper")
    options = TrainOptions(learning_rate=1e-4, layer_decay=0.9)
    rate = {
        id(parameter): group["lr"]
        for group in parameter_groups(network, options)
        for parameter in group["params"]
    }
    rates = {name: rate[id(parameter)] for name, parameter in trained_parameters(network)}
    # Twelve blocks: layer 0 is the patch embedding, 13 what stands above the blocks (TinyViT.get_layer_id).
    assert rates["image_encoder.trunk.patch_embed.proj.weight"] == pytest.approx(1e-4 * 0.9**13)
    assert rates["image_encoder.trunk.blocks.0.expand.weight"] == pytest.approx(1e-4 * 0.9**12)
    assert rates["image_encoder.trunk.blocks.11.widen.weight"] == pytest.approx(1e-4 * 0.9)
    assert rates["image_encoder.neck.convs.0.conv.weight"] == 1e-4
    assert rates["sam_mask_decoder.iou_token.weight"] == 1e-4


def test_every_trained_parameter_is_in_one_group(network):
    prepare(network, "video")
    grouped = [id(p) for group in parameter_groups(network, TrainOptions()) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for _, p in trained_parameters(network))


def test_biases_norms_and_embeddings_do_not_decay(network):
    prepare(network, "paper")
    names = {id(parameter): name for name, parameter in trained_parameters(network)}
    for group in parameter_groups(network, TrainOptions(weight_decay=0.01)):
        for parameter in group["params"]:
            name = names[id(parameter)]
            plain = parameter.ndim <= 1 or "pos_embed" in name or "token" in name
            assert group["weight_decay"] == (0.0 if plain else 0.01), name


NAME = "sam_mask_decoder.iou_token.weight"


def test_the_average_follows_the_network_soon_at_first_and_slowly_later(make_optimizer, monkeypatch):
    optimizer = make_optimizer()
    weight = optimizer.network.sam_mask_decoder.iou_token.weight
    average = optimizer.average
    with torch.no_grad():
        weight.zero_()
        average.update_parameters(optimizer.network)  # the first one is a copy
        weight.fill_(1.0)
        # (1 + 1) / (10 + 1) of the old is kept at the second step, and 1 - 1 / AVERAGED_STEPS in the end.
        average.update_parameters(optimizer.network)
        assert float(optimizer.averaged_parameters()[NAME].mean()) == pytest.approx(9 / 11)
        optimizer.averaged_parameters()[NAME].zero_()
        average.n_averaged.fill_(100_000)
        average.update_parameters(optimizer.network)
        assert float(optimizer.averaged_parameters()[NAME].mean()) == pytest.approx(1 / AVERAGED_STEPS)
    # The network that learns stays its own.
    assert float(weight.detach().mean()) == 1.0


def test_only_trained_parameters_are_published(make_optimizer):
    names = make_optimizer(preset="decoder").averaged_parameters()
    assert all(name.startswith("sam_mask_decoder.") for name in names)


def ends(network):
    shape = network.sam_mask_decoder.iou_token.weight.shape
    return {NAME: torch.zeros(shape)}, {NAME: torch.ones(shape)}


def test_the_best_on_the_way_is_put_in(network):
    def mean(mixed):
        return float(mixed.sam_mask_decoder.iou_token.weight.detach().mean())

    for best in SHARES:
        found = interpolate_weights(
            network, *ends(network), lambda mixed, best=best: -abs(mean(mixed) - best)
        )
        assert found == best
        assert mean(network) == pytest.approx(best)


def test_what_would_be_published_goes_before_what_scores_more(network):
    def worth(mixed):
        share = float(mixed.sam_mask_decoder.iou_token.weight.detach().mean())
        return share < 0.5, share

    assert interpolate_weights(network, *ends(network), worth) == min(SHARES)


def test_of_equals_the_one_that_learned_most(network):
    assert interpolate_weights(network, *ends(network), lambda mixed: (True, 0.5)) == 1.0
