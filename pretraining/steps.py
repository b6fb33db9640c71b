"""One training step: single images with many prompts, or clips through the memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from pretraining.losses import dice_of, mask_loss
from pretraining.network import Decoded, Features, decode, encode, remember, track
from pretraining.prompts import Prompts, add_clicks, correction, draw_boxes, draw_clicks
from pretraining.scenes import Scenes, choose_targets

__all__ = ["Outcome", "clip_step", "image_step"]

IOU_WEIGHT = 0.1
PRESENCE_WEIGHT = 1.0
CORRECTION_CHANCE = 0.4


@dataclass
class Outcome:
    """Summed loss of a step and mean Dice by kind of prompt."""

    loss: torch.Tensor | float = 0.0
    dice: dict[str, float] = field(default_factory=dict)


def _chance(gen: torch.Generator) -> float:
    return float(torch.rand(1, generator=gen, device=gen.device))


def _loss(decoded: Decoded, masks: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss over N objects, and their Dice (N,). An absent object trains the presence head alone."""
    present = masks.flatten(1).any(1) & valid
    weight = present.float()
    total = weight.sum().clamp(min=1)
    soft, cross = mask_loss(decoded.logits, masks)
    with torch.no_grad():
        dice, iou = dice_of(decoded.logits, masks)
    quality = (decoded.iou[:, 0] - iou).abs()
    loss = ((soft + cross + IOU_WEIGHT * quality) * weight).sum() / total
    presence = F.binary_cross_entropy_with_logits(
        decoded.presence[:, 0], present.float(), weight=valid.float(), reduction="sum"
    ) / valid.float().sum().clamp(min=1)
    return loss + PRESENCE_WEIGHT * presence, dice


def _mean_dice(dice: torch.Tensor, masks: torch.Tensor, valid: torch.Tensor) -> float:
    ok = valid & masks.flatten(1).any(1)
    return float(dice[ok].mean()) if bool(ok.any()) else float("nan")


def _draw_prompts(gen: torch.Generator, masks: torch.Tensor, boxes: bool) -> tuple[str, Prompts]:
    """One kind of prompt for all masks: a box, maybe with clicks, or one to five clicks."""
    if boxes:
        prompts = draw_boxes(gen, masks)
        if _chance(gen) < 0.2:
            prompts = add_clicks(prompts, *draw_clicks(gen, masks, 1, int(_chance(gen) < 0.4)))
            return "box+", prompts
        return "box", prompts
    if _chance(gen) < 0.45:
        return "click", add_clicks(None, *draw_clicks(gen, masks, 1, 0))
    count = 3 if _chance(gen) < 0.6 else 5
    negatives = min(int(_chance(gen) * 3), count - 1)
    return "clicks", add_clicks(None, *draw_clicks(gen, masks, count - negatives, negatives))


def _group(
    model: torch.nn.Module,
    features: Features,
    masks: torch.Tensor,
    valid: torch.Tensor,
    gen: torch.Generator,
    boxes: bool,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of one kind of prompt, maybe followed by rounds of correction with the previous mask."""
    kind, prompts = _draw_prompts(gen, masks, boxes)
    decoded = decode(model, features, prompts)
    loss, dice = _loss(decoded, masks, valid)
    scores = {kind: _mean_dice(dice, masks, valid)}
    if _chance(gen) < CORRECTION_CHANCE:
        for _ in range(1 + int(_chance(gen) < 0.35)):
            previous = decoded.logits.detach()
            prompts = add_clicks(prompts, *correction(gen, masks, previous))
            decoded = decode(model, features, prompts, previous=previous)
        more, dice = _loss(decoded, masks, valid)
        loss = loss + more
        scores["corrected"] = _mean_dice(dice, masks, valid)
    return loss, scores


def image_step(
    model: torch.nn.Module,
    scenes: Scenes,
    objects: int,
    gen: torch.Generator,
    features: Features | None = None,
) -> Outcome:
    """Encode each image once, unless `features` are given; half of its objects get a box, half clicks."""
    masks, valid = choose_targets(scenes, objects, gen)
    if features is None:
        features = encode(model, scenes.images[:, 0])
    outcome = Outcome()
    half = objects // 2
    for boxes, part in ((True, slice(0, half)), (False, slice(half, objects))):
        chosen, ok = masks[:, part, 0].flatten(0, 1), valid[:, part].flatten()
        index = torch.arange(len(masks), device=masks.device).repeat_interleave(masks[:, part].shape[1])
        loss, scores = _group(model, features.take(index), chosen, ok, gen, boxes)
        outcome.loss = outcome.loss + loss
        outcome.dice.update(scores)
    return outcome


def clip_step(model: torch.nn.Module, scenes: Scenes, objects: int, gen: torch.Generator) -> Outcome:
    """Prompt frame 0, then follow the objects through the memory to the last frame."""
    masks, valid = choose_targets(scenes, objects, gen, whole=0.02)
    b, t = scenes.labels.shape[:2]
    every = encode(model, scenes.images.flatten(0, 1))
    image = torch.arange(b, device=masks.device).repeat_interleave(objects)
    masks, valid = masks.flatten(0, 1), valid.flatten()
    features = every.take(image * t)
    _, prompts = _draw_prompts(gen, masks[:, 0], boxes=_chance(gen) < 0.7)
    decoded = decode(model, features, prompts)
    loss, _ = _loss(decoded, masks[:, 0], valid)
    outcome = Outcome(0.5 * loss)
    seen = masks.flatten(2).any(2)
    bank = {0: remember(model, features, decoded, seen[:, 0])}
    scores = []
    for frame in range(1, t):
        features = every.take(image * t + frame)
        decoded = track(model, features, decoded, frame, bank, t)
        loss, dice = _loss(decoded, masks[:, frame], valid)
        outcome.loss = outcome.loss + loss
        scores.append(_mean_dice(dice, masks[:, frame], valid))
        # The memory takes the network's own mask, so that it learns to live with its errors.
        bank[frame] = remember(model, features, decoded, seen[:, frame])
    outcome.dice["tracked"] = sum(scores) / len(scores)
    right = (decoded.presence[:, 0] > 0) == seen[:, -1]
    outcome.dice["presence"] = float(right[valid].float().mean()) if bool(valid.any()) else float("nan")
    return outcome
