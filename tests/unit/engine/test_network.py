import gc
import weakref

import pytest
import torch

from lib.engine.builder import build_network
from lib.engine.network import NetworkPrompts
from tests.support.server import APP
from tests.unit.engine.conftest import SIZE, make_tiny


def prompts(x: float, y: float) -> NetworkPrompts:
    return NetworkPrompts(torch.tensor([[[x, y]]]), torch.ones((1, 1), dtype=torch.int32))


def test_features_come_at_strides_4_8_and_16_and_count_their_bytes(tiny):
    features = tiny.encode(torch.zeros(1, 3, SIZE, SIZE))
    assert [tuple(level.shape) for level in features.maps] == [
        (1, 32, SIZE // 4, SIZE // 4),
        (1, 64, SIZE // 8, SIZE // 8),
        (1, 256, SIZE // 16, SIZE // 16),
    ]
    assert features.nbytes == 4 * (32 * 32**2 + 64 * 16**2 + 256 * 8**2)


def test_the_image_is_normalised_as_sam2_does(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(tiny, "forward_image", lambda image: seen.append(image) or {"backbone_fpn": []})
    tiny.encode(torch.ones(1, 3, SIZE, SIZE))
    # (1 - mean) / std of ImageNet, from torchvision's documentation.
    assert seen[0][0, :, 5, 5].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_weights_that_want_rendered_prompts_get_them():
    network = make_tiny()
    levels = torch.rand(1, 3, SIZE, SIZE)
    plain = network.segment(network.encode(levels), prompts(20, 30))
    network.rendered_prompts = True
    features = network.encode(levels)
    assert features.guide.shape == (1, 1, SIZE // 4, SIZE // 4)
    assert not torch.equal(network.segment(features, prompts(20, 30)).logits, plain.logits)


@pytest.mark.parametrize(("labels", "passes"), [([1], 1), ([1, 0], 2), ([2, 3], 1), ([2, 3, 1], 1)])
def test_several_clicks_are_seen_again_beside_their_first_result(monkeypatch, labels, passes):
    network = make_tiny()
    network.rendered_prompts = True
    features = network.encode(torch.rand(1, 3, SIZE, SIZE))
    steps = []
    step = network._step
    monkeypatch.setattr(network, "_step", lambda *a, **k: steps.append(a) or step(*a, **k))
    places = torch.tensor([[[20.0, 30.0], [90.0, 100.0], [60.0, 60.0]]])[:, : len(labels)]
    network.segment(features, NetworkPrompts(places, torch.tensor([labels], dtype=torch.int32)))
    assert len(steps) == passes


def test_nothing_is_kept_between_two_calls(tiny):
    torch.manual_seed(3)
    features = tiny.encode(torch.randn(1, 3, SIZE, SIZE))
    first = tiny.segment(features, prompts(20, 30))
    tiny.segment(features, prompts(90, 100))
    again = tiny.segment(features, prompts(20, 30))
    assert torch.equal(first.logits, again.logits)
    assert torch.equal(first.ious, again.ious)


def test_the_predicted_iou_and_presence_are_not_thrown_away(tiny):
    decoded = tiny.segment(tiny.encode(torch.zeros(1, 3, SIZE, SIZE)), prompts(20, 30))
    assert 0 <= float(decoded.ious.max()) <= 1
    assert float(decoded.object_logits) > 0
    assert decoded.logits.shape == (1, 1, SIZE // 4, SIZE // 4)
    assert decoded.logits_full.shape == (1, 1, SIZE, SIZE)


def test_a_network_that_sees_no_object_gives_no_mask():
    network = make_tiny()
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-100.0)
    decoded = network.segment(network.encode(torch.zeros(1, 3, SIZE, SIZE)), prompts(20, 30))
    assert float(decoded.object_logits) < 0
    assert (decoded.logits == -1024).all()


def test_a_memory_has_64_channels_at_stride_16_and_a_pointer(tiny):
    features = tiny.encode(torch.zeros(1, 3, SIZE, SIZE))
    memory = tiny.remember(features, tiny.segment(features, prompts(20, 30)), prompted=True)
    assert memory["maskmem_features"].shape == (1, 64, SIZE // 16, SIZE // 16)
    assert memory["obj_ptr"].shape == (1, 256)


def test_a_frozen_network_answers_as_before_and_converts_no_weights_any_more():
    levels = torch.rand(1, 3, SIZE, SIZE)
    network = make_tiny()

    def answer() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return network.segment(network.encode(levels), prompts(20, 30)).logits

    before, names = answer(), list(network.state_dict())
    network.freeze(torch.bfloat16)
    assert torch.equal(answer(), before)
    assert network.sam_mask_decoder.conv_s0.weight.dtype == torch.bfloat16
    assert list(network.state_dict()) == names


def test_a_frozen_network_is_freed_when_the_next_one_is_in_service():
    network = make_tiny()
    network.freeze(torch.bfloat16)
    trunk = weakref.ref(network.image_encoder.trunk)
    gc.disable()
    try:
        del network
        assert trunk() is None
    finally:
        gc.enable()


def test_biases_looked_up_beforehand_change_nothing():
    torch.manual_seed(0)
    network = build_network(APP / "model" / "biosam2_mini.yaml", SIZE).eval()
    image = torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = network.encode(image).maps[-1]
        network.freeze(torch.float32)
        assert torch.equal(network.encode(image).maps[-1], expected)
