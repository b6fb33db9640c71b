"""The shipped configuration and how training calls it."""

import torch

from lib.prompts.rendering import make_guide, render_neighbour, render_prompts
from pretraining.network import build, decode, encode, remember, set_image_size, track
from pretraining.prompts import Prompts


def test_the_configuration_is_small_enough_and_gives_one_mask():
    model = build().eval()
    assert sum(p.numel() for p in model.parameters()) <= 10_000_000
    assert model.image_size == 256
    assert not model.multimask_output_in_sam
    assert not model.multimask_output_for_tracking


@torch.no_grad()
def test_training_decodes_what_sam2base_decodes(gen):
    """Numbers from SAM2Base.track_step on the same prompt, the same memory and the same rendered masks."""
    torch.manual_seed(0)
    model = build().eval()
    set_image_size(model, 64)
    images = torch.rand(2, 3, 64, 64, generator=gen)
    prompts = Prompts(torch.tensor([[[10.0, 40.0]]]), torch.tensor([[1]], dtype=torch.int32))
    first, second = (encode(model, image[None]) for image in images)
    ours = decode(model, first, prompts)
    bank = {0: remember(model, first, ours, ours.presence[:, 0] > 0)}
    tracked = track(model, second, ours, 1, bank, 16)

    rendered = render_prompts(prompts.coords, prompts.labels, make_guide(images[:1]))
    outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    prompted = _track_step(model, images[:1], 0, prompts, rendered, outputs)
    outputs["cond_frame_outputs"][0] = prompted
    nothing = Prompts(torch.zeros(1, 1, 2), -torch.ones(1, 1, dtype=torch.int32))
    neighbour = render_neighbour(prompted["pred_masks"], make_guide(images[:1]), make_guide(images[1:]))
    followed = _track_step(model, images[1:], 1, nothing, neighbour, outputs)
    for mine, theirs in ((ours, prompted), (tracked, followed)):
        present = bool(mine.presence > 0)
        expected = mine.logits if present else torch.full_like(mine.logits, -1024.0)
        assert torch.allclose(theirs["pred_masks"], expected, atol=1e-4)
    assert torch.allclose(prompted["maskmem_features"], bank[0]["maskmem_features"], atol=1e-4)


def _track_step(model, image, frame, prompts, rendered, outputs) -> dict:
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
    encoded = model.forward_image((image - mean) / std)
    _, features, places, sizes = model._prepare_backbone_features(encoded)
    return model.track_step(
        frame_idx=frame,
        is_init_cond_frame=frame == 0,
        current_vision_feats=features,
        current_vision_pos_embeds=places,
        feat_sizes=sizes,
        point_inputs={"point_coords": prompts.coords, "point_labels": prompts.labels},
        mask_inputs=None,
        output_dict=outputs,
        num_frames=16,
        prev_sam_mask_logits=rendered,
    )
