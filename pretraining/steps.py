"""One training step: single images with many prompts, or clips through the memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base

from lib.prompts.rendering import CELL
from pretraining.losses import dice_of, mask_loss
from pretraining.network import Decoded, Features, decode, encode, remember, track
from pretraining.prompts import Prompts, add_clicks, correction, deepest_errors, draw_boxes, draw_clicks
from pretraining.scenes import Scenes, choose_targets

__all__ = ["Outcome", "clip_step", "image_step"]

IOU_WEIGHT = 0.1
PRESENCE_WEIGHT = 1.0
OBEDIENCE_WEIGHT = 0.2
# Chances of so many corrections after the first prompt.
BOX_ROUNDS = {0: 0.55, 1: 0.25, 2: 0.2}
CLICK_ROUNDS = {0: 0.2, 1: 0.2, 2: 0.35, 4: 0.25}


@dataclass
class Outcome:
    """Summed loss of a step and mean Dice by kind of prompt."""

    loss: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    dice: dict[str, float] = field(default_factory=dict)


def _chance(gen: torch.Generator) -> float:
    return float(torch.rand(1, generator=gen, device=gen.device))


def _loss(
    decoded: Decoded, masks: torch.Tensor, valid: torch.Tensor, prompts: Prompts | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss over N objects, and their Dice (N,). An absent object trains the presence head alone."""
    present = masks.flatten(1).any(1) & valid
    weight = present.float()
    total = weight.sum().clamp(min=1)
    soft, cross = mask_loss(decoded.logits, masks)
    with torch.no_grad():
        dice, iou = dice_of(decoded.logits, masks)
    quality = (decoded.iou[:, 0] - iou).abs()
    own = soft + cross + IOU_WEIGHT * quality
    if prompts is not None:
        own = own + OBEDIENCE_WEIGHT * _disobedience(decoded.logits, prompts)
    loss = (own * weight).sum() / total
    presence = F.binary_cross_entropy_with_logits(
        decoded.presence[:, 0], present.float(), weight=valid.float(), reduction="sum"
    ) / valid.float().sum().clamp(min=1)
    return loss + PRESENCE_WEIGHT * presence, dice


def _disobedience(logits: torch.Tensor, prompts: Prompts) -> torch.Tensor:
    """(N,) mean cross-entropy of (N, 1, s, s) logits at the clicks; a box is none."""
    is_click = (prompts.labels == 0) | (prompts.labels == 1)
    side = logits.shape[-1]
    cells = (prompts.coords / CELL).floor().clamp(0, side - 1).long()
    at = logits.flatten(1).gather(1, cells[..., 1] * side + cells[..., 0])
    cross = F.binary_cross_entropy_with_logits(at, (prompts.labels == 1).float(), reduction="none")
    return (cross * is_click).sum(1) / is_click.sum(1).clamp(min=1)


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
    model: SAM2Base,
    features: Features,
    masks: torch.Tensor,
    valid: torch.Tensor,
    gen: torch.Generator,
    boxes: bool,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of one kind of prompt, and of corrections as people make them.

    Half of the groups feed the network its own last mask with the next click, the others all clicks anew.
    The first answer and the last two are learned from.
    """
    kind, prompts = _draw_prompts(gen, masks, boxes)
    decoded = decode(model, features, prompts)
    loss, dice = _loss(decoded, masks, valid, prompts)
    scores = {kind: _mean_dice(dice, masks, valid)}
    rounds = _pick(gen, BOX_ROUNDS if boxes else CLICK_ROUNDS)
    feeds_back = _chance(gen) < 0.5
    for number in range(rounds):
        previous = decoded.logits.detach()
        prompts = add_clicks(prompts, *_correct(gen, masks, previous))
        learned = number >= rounds - 2
        with torch.set_grad_enabled(learned):
            decoded = decode(model, features, prompts, previous=previous if feeds_back else None)
        if learned:
            more, dice = _loss(decoded, masks, valid, prompts)
            loss = loss + more
    if rounds:
        scores["fed back" if feeds_back else "corrected"] = _mean_dice(dice, masks, valid)
    return loss, scores


def _pick(gen: torch.Generator, chances: dict[int, float]) -> int:
    """One of the keys, by their chances."""
    index = torch.multinomial(torch.tensor(list(chances.values()), device=gen.device), 1, generator=gen)
    return list(chances)[int(index)]


def _correct(
    gen: torch.Generator, masks: torch.Tensor, logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A click for each mask: mostly where the error is deepest, else somewhere in the largest error."""
    if _chance(gen) < 0.3:
        return correction(gen, masks, logits)
    full = F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return deepest_errors(gen, masks, full > 0)


def image_step(
    model: SAM2Base,
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


def clip_step(model: SAM2Base, scenes: Scenes, objects: int, gen: torch.Generator) -> Outcome:
    """Prompt frame 0, then follow the objects through the memory to the last frame."""
    masks, valid = choose_targets(scenes, objects, gen, whole=0.02)
    b, t = scenes.labels.shape[:2]
    every = encode(model, scenes.images.flatten(0, 1))
    image = torch.arange(b, device=masks.device).repeat_interleave(objects)
    masks, valid = masks.flatten(0, 1), valid.flatten()
    features = every.take(image * t)
    _, prompts = _draw_prompts(gen, masks[:, 0], boxes=_chance(gen) < 0.7)
    decoded = decode(model, features, prompts)
    loss, _ = _loss(decoded, masks[:, 0], valid, prompts)
    outcome = Outcome(0.5 * loss)
    seen = masks.flatten(2).any(2)
    bank = {0: remember(model, features, decoded, seen[:, 0])}
    scores = []
    for frame in range(1, t):
        features = every.take(image * t + frame)
        decoded = track(model, features, decoded, frame, bank, t)
        loss, dice = _loss(decoded, masks[:, frame], valid)
        outcome.loss = outcome.loss + loss * (3 / (t - 1))
        scores.append(_mean_dice(dice, masks[:, frame], valid))
        # The memory takes the network's own mask, so that it learns to live with its errors.
        bank[frame] = remember(model, features, decoded, seen[:, frame])
    seen_scores = [score for score in scores if score == score]
    outcome.dice["tracked"] = sum(seen_scores) / len(seen_scores) if seen_scores else float("nan")
    right = (decoded.presence[:, 0] > 0) == seen[:, -1]
    outcome.dice["presence"] = float(right[valid].float().mean()) if bool(valid.any()) else float("nan")
    return outcome
