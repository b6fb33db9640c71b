"""The shipped configuration and how training calls it."""

import torch

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
    """Numbers from SAM2Base.track_step on the same prompt and the same memory."""
    torch.manual_seed(0)
    model = build().eval()
    set_image_size(model, 64)
    images = torch.rand(2, 3, 64, 64, generator=gen)
    prompts = Prompts(torch.tensor([[[10.0, 40.0]]]), torch.tensor([[1]], dtype=torch.int32))
    first, second = (encode(model, image[None]) for image in images)
    ours = decode(model, first, prompts)
    seen = ours.presence[:, 0] > 0
    bank = {0: remember(model, first, ours, seen)}
    tracked = track(model, second, 1, bank, 16)
    theirs = [
        _track_step(model, images[:1], prompts, 0, {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}})
    ]
    outputs = {"cond_frame_outputs": {0: theirs[0]}, "non_cond_frame_outputs": {}}
    theirs.append(_track_step(model, images[1:], None, 1, outputs))
    for mine, other in zip((ours, tracked), theirs, strict=True):
        present = bool(mine.presence > 0)
        expected = mine.logits if present else torch.full_like(mine.logits, -1024.0)
        assert torch.allclose(other["pred_masks"], expected, atol=1e-4)
    assert torch.allclose(theirs[0]["maskmem_features"], bank[0]["maskmem_features"], atol=1e-4)


def _track_step(model, image, prompts, frame, outputs) -> dict:
    from lib.prompts.rendering import make_guide, render_prompts

    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
    encoded = model.forward_image((image - mean) / std)
    _, features, places, sizes = model._prepare_backbone_features(encoded)
    points = rendered = None
    if prompts is not None:
        points = {"point_coords": prompts.coords, "point_labels": prompts.labels}
        rendered = render_prompts(prompts.coords, prompts.labels, make_guide(image))
    return model.track_step(
        frame_idx=frame,
        is_init_cond_frame=prompts is not None,
        current_vision_feats=features,
        current_vision_pos_embeds=places,
        feat_sizes=sizes,
        point_inputs=points,
        mask_inputs=None,
        output_dict=outputs,
        num_frames=16,
        prev_sam_mask_logits=rendered,
    )
