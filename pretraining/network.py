"""The network in training: SAM 2's own parts, called so that many prompts share one encoded image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from lib.engine.network import IMAGE_MEAN, IMAGE_STD
from lib.prompts.rendering import make_guide, render_neighbour, render_prompts
from pretraining import APP
from pretraining.prompts import Prompts

__all__ = [
    "CONFIG",
    "Decoded",
    "Features",
    "build",
    "decode",
    "encode",
    "half_precision",
    "plain_attention",
    "quick_depthwise",
    "remember",
    "set_image_size",
    "track",
]

CONFIG = APP / "model" / "biosam2_mini.yaml"


def build(image_size: int | None = None, config: Path = CONFIG) -> SAM2Base:
    """A freshly initialised network of a configuration, prepared to learn sooner.

    The key projections of the cross-attentions start equal to their query projections, so that
    attention starts out between equal positions and not at random. The mask head starts as a fixed
    sum of the upscaled features, so that these get a gradient before the tokens mean anything.
    """
    settings = OmegaConf.load(config).model
    if image_size is not None:
        settings.image_size = image_size
    model = instantiate(settings)
    decoder = model.sam_mask_decoder.transformer
    attentions = [decoder.final_attn_token_to_image]
    for layer in decoder.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in attentions:
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.k_proj.bias.copy_(attention.q_proj.bias)
        for head in model.sam_mask_decoder.output_hypernetworks_mlps:
            bias = head.layers[-1].bias
            bias.copy_(torch.tensor([1.0, -1.0]).repeat(len(bias) // 2))
        for layer in model.memory_attention.layers:
            # With rotary codes, equal constant biases make attention prefer equal places.
            layer.cross_attn_image.q_proj.bias.fill_(1.0)
            layer.cross_attn_image.k_proj.bias.fill_(1.0)
    return model


def plain_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
) -> torch.Tensor:
    """Attention as two matrix products: on a CPU its backward pass is 2.5 times that of the fused one."""
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(weights if attn_mask is None else weights + attn_mask, -1) @ v


class _DepthwiseConvolution(torch.autograd.Function):
    """Convolution whose backward pass is in single precision."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int,
        padding: int,
        groups: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = ([stride] * 2, [padding] * 2, groups)
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.geometry
        wanted = [ctx.needs_input_grad[0], True, True]
        tensors = grad.float(), x.float(), weight.float(), [len(weight)]
        grads = torch.ops.aten.convolution_backward(
            *tensors, stride, padding, [1, 1], False, [0, 0], groups, wanted
        )
        to_x = None if grads[0] is None else grads[0].to(x.dtype)
        return to_x, grads[1].to(weight.dtype), grads[2].to(weight.dtype), None, None, None


def half_precision(device: str) -> bool:
    """Whether bfloat16 is faster than float32: on a CPU, with its own instructions for it alone."""
    return torch.device(device).type != "cpu" or (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def quick_depthwise(model: nn.Module) -> None:
    """Let depthwise convolutions learn quickly on a CPU: bf16 takes up to 7 times as long backwards."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            setattr(module, "_conv_forward", partial(_depthwise, module))  # noqa: B010


def _depthwise(
    module: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        x, weight = x.to(kind), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
    stride, padding = module.stride[0], int(module.padding[0])
    result: torch.Tensor = _DepthwiseConvolution.apply(x, weight, bias, stride, padding, module.groups)
    return result


@dataclass
class Features:
    """Encoded images: features (B, C, h, w) from fine to coarse, the codes of their places, their guides."""

    levels: list[torch.Tensor]
    places: list[torch.Tensor]
    guide: torch.Tensor

    def take(self, index: torch.Tensor) -> Features:
        """Features of the images `index`, one row for each object."""
        return Features([t[index] for t in self.levels], [t[index] for t in self.places], self.guide[index])


@dataclass
class Decoded:
    """For N objects: logits (N, 1, s, s), IoU (N, 1), presence (N, 1), token (N, C), and image guides."""

    logits: torch.Tensor
    iou: torch.Tensor
    presence: torch.Tensor
    token: torch.Tensor
    guide: torch.Tensor


def encode(model: SAM2Base, images: torch.Tensor) -> Features:
    """Encode (B, 3, S, S) images in [0, 1]."""
    mean = torch.tensor(IMAGE_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=images.device).view(1, 3, 1, 1)
    out = model.forward_image((images - mean) / std)
    return Features(out["backbone_fpn"], out["vision_pos_enc"], make_guide(images))


def decode(
    model: SAM2Base,
    features: Features,
    prompts: Prompts | None,
    previous: torch.Tensor | None = None,
    conditioned: torch.Tensor | None = None,
    rendered: torch.Tensor | None = None,
) -> Decoded:
    """Decode one mask for each row of `features`; `conditioned` replaces the coarsest level after memory.

    `previous` are logits of the mask that the prompts correct; without prompts `rendered` is the mask
    prompt.
    """
    fine = features.levels
    coarse = fine[-1] + model.no_mem_embed.view(1, -1, 1, 1) if conditioned is None else conditioned
    n, device = coarse.shape[0], coarse.device
    if prompts is None:
        coords = torch.zeros((n, 1, 2), device=device)
        labels = -torch.ones((n, 1), dtype=torch.int32, device=device)
    else:
        coords, labels = prompts.coords, prompts.labels
        rendered = render_prompts(coords, labels, features.guide, previous)
    sparse, dense = model.sam_prompt_encoder(points=(coords, labels), boxes=None, masks=rendered)
    logits, iou, tokens, presence = model.sam_mask_decoder(
        image_embeddings=coarse,
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
        repeat_image=False,
        high_res_features=list(fine[:-1]),
    )
    return Decoded(logits.float(), iou.float(), presence.float(), tokens[:, 0], features.guide)


def remember(model: SAM2Base, features: Features, decoded: Decoded, present: torch.Tensor) -> dict:
    """The memory of a decoded frame, as SAM2Base.track_step would store it.

    Args:
        model: the network.
        features: of the frame, a row for each object.
        decoded: what was found there.
        present: (N,) bool, whether the object counts as seen.
    """
    logits = torch.where(
        present[:, None, None, None], decoded.logits, torch.full_like(decoded.logits, -1024.0)
    )
    size = (model.image_size, model.image_size)
    high = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    coarse = features.levels[-1]
    memory, places = model._encode_new_memory(
        [coarse.flatten(2).permute(2, 0, 1)],
        [tuple(coarse.shape[-2:])],
        high,
        torch.where(present, 10.0, -10.0)[:, None],
        is_mask_from_pts=False,
    )
    seen = present[:, None].float()
    pointer = seen * model.obj_ptr_proj(decoded.token) + (1 - seen) * model.no_obj_ptr
    return {"maskmem_features": memory, "maskmem_pos_enc": places, "obj_ptr": pointer}


def track(
    model: SAM2Base,
    features: Features,
    before: Decoded,
    frame: int,
    bank: dict[int, dict],
    frames: int,
) -> Decoded:
    """Decode `frame` without a prompt, from the memories of frame 0 (prompted) and of those between.

    `before` is what was found on the frame before: its mask is rendered, empty where the object is absent.
    """
    coarse, place = features.levels[-1], features.places[-1]
    conditioned = model._prepare_memory_conditioned_features(
        frame_idx=frame,
        is_init_cond_frame=False,
        current_vision_feats=[coarse.flatten(2).permute(2, 0, 1)],
        current_vision_pos_embeds=[place.flatten(2).permute(2, 0, 1)],
        feat_sizes=[tuple(coarse.shape[-2:])],
        output_dict={
            "cond_frame_outputs": {0: bank[0]},
            "non_cond_frame_outputs": {t: m for t, m in bank.items() if t > 0},
        },
        num_frames=max(frames, 16),
    )
    absent = (before.presence <= 0)[:, :, None, None]
    neighbour = before.logits.detach().masked_fill(absent, -1024.0)
    rendered = render_neighbour(neighbour, before.guide, features.guide)
    return decode(model, features, None, rendered=rendered, conditioned=conditioned)


def set_image_size(model: SAM2Base, size: int) -> None:
    """Let a network take square inputs of another side, a multiple of 32; no weight depends on it."""
    grid = size // model.backbone_stride
    model.image_size = size
    model.sam_image_embedding_size = grid
    model.sam_prompt_encoder.input_image_size = (size, size)
    model.sam_prompt_encoder.image_embedding_size = (grid, grid)
    model.sam_prompt_encoder.mask_input_size = (4 * grid, 4 * grid)
