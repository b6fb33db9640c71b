"""Dice of weights on held-out data, by kind of prompt: `python -m pretraining.evaluate --weights FILE`.

Synthetic scenes come from a seed the training does not use. With --real, every item of the data
folder is measured, those too that the weights may not see; the table says which they saw.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from pretraining import phantoms
from pretraining.losses import dice_of
from pretraining.network import build, decode, encode, remember, set_image_size, track
from pretraining.prompts import add_clicks, correction, draw_boxes, draw_clicks
from pretraining.real import to_levels
from pretraining.scenes import choose_targets
from pretraining.synthetic import STYLES, synthetic_scenes

SIZE = 256
HELD_OUT_SEED = 990_001
KINDS = ("box", "ellipse", "1 click", "3 clicks", "5 clicks", "3 corrected")


def scores(model: torch.nn.Module, image: torch.Tensor, masks: torch.Tensor, gen: torch.Generator) -> dict:
    """Dice (N,) by kind of prompt for N masks (N, S, S) of one image (3, S, S)."""
    features = encode(model, image[None]).take(torch.zeros(len(masks), dtype=torch.long, device=image.device))
    out = {}
    box = draw_boxes(gen, masks, jitter=0.0)
    out["box"] = dice_of(_gated(decode(model, features, box)), masks)[0]
    out["ellipse"] = _ellipse_dice(box.coords, masks)
    for count in (1, 3, 5):
        negatives = {1: 0, 3: 1, 5: 2}[count]
        clicks = add_clicks(None, *draw_clicks(gen, masks, count - negatives, negatives))
        name = f"{count} click" + "s" * (count > 1)
        out[name] = dice_of(_gated(decode(model, features, clicks)), masks)[0]
    prompts = add_clicks(None, *draw_clicks(gen, masks, 1, 0))
    decoded = decode(model, features, prompts)
    for _ in range(2):
        prompts = add_clicks(prompts, *correction(gen, masks, decoded.logits))
        decoded = decode(model, features, prompts, previous=decoded.logits)
    out["3 corrected"] = dice_of(_gated(decoded), masks)[0]
    return out


def _gated(decoded) -> torch.Tensor:
    """Logits as SAM2Base returns them: nothing where the object counts as absent."""
    return torch.where(
        decoded.presence[:, :, None, None] > 0, decoded.logits, torch.full_like(decoded.logits, -10)
    )


def _ellipse_dice(boxes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    axis = torch.arange(masks.shape[-1], device=masks.device) + 0.5
    centre, half = boxes.mean(1), (boxes[:, 1] - boxes[:, 0]) / 2
    u = (axis[None] - centre[:, :1]) / half[:, :1]
    v = (axis[None] - centre[:, 1:]) / half[:, 1:]
    inside = u[:, None, :] ** 2 + v[:, :, None] ** 2 <= 1
    both = (inside & masks).flatten(1).sum(1)
    return 2 * both / (inside.flatten(1).sum(1) + masks.flatten(1).sum(1)).clamp(min=1)


def propagate(
    model: torch.nn.Module, frames: torch.Tensor, masks: torch.Tensor, gen: torch.Generator
) -> float:
    """Dice over a volume (T, 3, S, S) of one object (T, S, S) from a box on its largest slice, both ways."""
    areas = masks.flatten(1).sum(1)
    start = int(areas.argmax())
    logits = [torch.full((1, 1, SIZE // 4, SIZE // 4), -10.0)] * len(frames)
    for direction in (1, -1):
        order = list(range(start, len(frames) if direction > 0 else -1, direction))
        bank = {}
        for t, index in enumerate(order):
            features = encode(model, frames[index][None])
            if t == 0:
                decoded = decode(model, features, draw_boxes(gen, masks[index][None], jitter=0.0))
            else:
                recent = {0: bank[0], **{k: v for k, v in bank.items() if k >= t - 3}}
                decoded = track(model, features, decoded, t, recent, len(order))
            bank[t] = remember(model, features, decoded, decoded.presence[:, 0] > 0)
            logits[index] = _gated(decoded)
    predicted = F.interpolate(torch.cat(logits), masks.shape[-2:], mode="bilinear")[:, 0] > 0
    return float(2 * (predicted & masks).sum() / (predicted.sum() + masks.sum()).clamp(min=1))


def evaluate_synthetic(model: torch.nn.Module, images: int) -> dict[str, dict[str, float]]:
    """Mean Dice by style and kind of prompt."""
    table = {}
    for offset, style in enumerate(STYLES):
        gen = torch.Generator().manual_seed(HELD_OUT_SEED + offset)
        rows = defaultdict(list)
        for _ in range(images):
            scenes = synthetic_scenes(gen, 1, SIZE, 1.0, style=style)
            masks, valid = choose_targets(scenes, 6, gen, whole=0.0)
            keep = masks[0, valid[0], 0]
            if len(keep):
                for kind, dice in scores(model, scenes.images[0, 0], keep, gen).items():
                    rows[kind] += dice.tolist()
        table[style] = {k: float(np.mean(v)) for k, v in rows.items()}
    return table


def evaluate_phantoms(model: torch.nn.Module) -> dict[str, dict[str, float]]:
    """Mean Dice on simple volumes: every tenth slice, and the volume from one box."""
    table = {}
    for name, (levels, labels) in phantoms.all_phantoms().items():
        gen = torch.Generator().manual_seed(HELD_OUT_SEED)
        table[name] = _volume_row(model, levels, labels, gen, tracked=labels.shape[0] > 1)
    return table


def _squash(levels: np.ndarray) -> torch.Tensor:
    """(T, 3, 256, 256) pictures in [0, 1] of (T, H, W) levels."""
    grey = torch.tensor(np.ascontiguousarray(levels)).float()[:, None] / 255
    return F.interpolate(grey, (SIZE, SIZE), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)


def _squash_masks(masks: np.ndarray) -> torch.Tensor:
    grown = F.interpolate(
        torch.tensor(np.ascontiguousarray(masks)).float()[:, None], (SIZE, SIZE), mode="area"
    )
    return grown[:, 0] >= 0.5


def _volume_row(
    model, levels, labels, gen, tracked: bool, most: int = 6, smallest: int = 40
) -> dict[str, float]:
    rows = defaultdict(list)
    for value in np.unique(labels)[1:]:
        volume = labels == value
        areas = volume.reshape(len(volume), -1).sum(1)
        slices = np.flatnonzero(areas >= max(smallest, 0.2 * areas.max()))
        for index in slices[:: max(1, len(slices) // most)]:
            masks = _squash_masks(volume[index][None])
            if masks.any():
                image = _squash(levels[index][None])[0]
                for kind, dice in scores(model, image, masks, gen).items():
                    rows[kind] += dice.tolist()
        if tracked and len(slices):
            span = np.flatnonzero(areas)
            part = slice(max(0, span[0] - 2), span[-1] + 3)
            rows["propagated"].append(
                propagate(model, _squash(levels[part]), _squash_masks(volume[part]), gen)
            )
    return {k: float(np.mean(v)) for k, v in rows.items()}


def evaluate_real(model: torch.nn.Module, folder: Path) -> dict[str, dict[str, float]]:
    """Mean Dice of every item with masks; `*` marks those the weights were trained on."""
    table = {}
    for item in json.loads((folder / "manifest.json").read_text())["items"]:
        gen = torch.Generator().manual_seed(HELD_OUT_SEED)
        name = item["id"] + ("*" if item["may_train_shipped_weights"] else "")
        if item["kind"] == "volume":
            levels, labels = _volume(folder, item)
            table[name] = _volume_row(model, levels, labels, gen, tracked=levels.shape[0] > 3, most=4)
        elif item["kind"] == "image2d":
            table[name] = _plane_row(model, folder, item, gen)
    return table


def _volume(folder: Path, item: dict) -> tuple[np.ndarray, np.ndarray]:
    """Levels and labels as (T, H, W); BraTS becomes whole tumour, the abdomen five organs."""
    levels = to_levels(np.asanyarray(nibabel.load(folder / item["file"]).dataobj))
    labels = np.asanyarray(nibabel.load(folder / item["label_file"]).dataobj).astype(np.int16)
    if item["id"].startswith("brats"):
        labels = (labels > 0).astype(np.int16)
    if item["id"].startswith("ts_"):
        labels = np.where(np.isin(labels, (1, 2, 3, 5, 6)), labels, 0)
    return levels.transpose(2, 1, 0), labels.transpose(2, 1, 0)


def _plane_row(model: torch.nn.Module, folder: Path, item: dict, gen: torch.Generator) -> dict[str, float]:
    levels = np.asarray(Image.open(folder / item["file"]).convert("L"))
    labels = np.asarray(Image.open(folder / item["label_file"])).astype(np.int32)
    if not item["id"].startswith("dsb"):
        labels = ndimage.label(ndimage.binary_opening(labels > 0, iterations=2))[0]
    sizes = np.bincount(labels.ravel())
    wanted = [v for v in range(1, len(sizes)) if sizes[v] >= 160][:: max(1, len(sizes) // 24)]
    masks = torch.cat([_squash_masks((labels == v)[None]) for v in wanted])
    return {k: float(v.mean()) for k, v in scores(model, _squash(levels[None])[0], masks, gen).items()}


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    """Print one table."""
    kinds = [*KINDS, "propagated"]
    print(f"{title:32}" + "".join(f"{k:>12}" for k in kinds))
    for name, row in table.items():
        print(f"{name:32}" + "".join(f"{row[k]:12.3f}" if k in row else " " * 12 for k in kinds))
    mean = {
        k: np.mean([r[k] for r in table.values() if k in r])
        for k in kinds
        if any(k in r for r in table.values())
    }
    print(f"{'mean':32}" + "".join(f"{mean[k]:12.3f}" if k in mean else " " * 12 for k in kinds), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=int, default=12, help="synthetic images a style")
    parser.add_argument("--real", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = build(SIZE).eval()
    state = torch.load(args.weights, map_location="cpu", weights_only=True)["model"]
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=True
    )
    set_image_size(model, SIZE)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        show("phantoms", evaluate_phantoms(model))
        if args.images:
            show("synthetic, held out", evaluate_synthetic(model, args.images))
        if args.real:
            show("real (* = trained on)", evaluate_real(model, args.real))


if __name__ == "__main__":
    main()
