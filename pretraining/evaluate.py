"""Dice of weights by kind of image and prompt: `python -m pretraining.evaluate --weights FILE --real DATA`.

Measured are the items that split.py holds out and those that may not train; with --trained also some of
those that train. Slices are squashed to the network's square, as the server does, and all is measured there.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base

from pretraining import phantoms
from pretraining.checkpoint import read_weights
from pretraining.network import (
    CONFIG,
    Decoded,
    Features,
    build,
    decode,
    encode,
    half_precision,
    remember,
    track,
)
from pretraining.prompts import Prompts, add_clicks, deepest_errors, draw_boxes, draw_clicks
from pretraining.real import read_plane, read_volume, to_levels
from pretraining.scenes import MIN_AREA, choose_targets
from pretraining.split import TRAINED, kind_of, read_manifest
from pretraining.synthetic import STYLES, synthetic_scenes

SEED = 990_001  # synthetic scenes of a seed that no training uses
KINDS = ("filled box", "box", "1 click", "3 clicks", "5 clicks", "5 fed back", "3 random", "5 random")
SHARES = ("harmful", "disobeyed")
COLUMNS = (*KINDS, "propagated", *SHARES)
HARM = 0.02  # loss of Dice by one more click
CLICKS = 5
MOST_OBJECTS = 3  # of an image, from the smallest to the largest
MOST_SLICES = 3  # of an object
MOST_ITEMS = 8  # of a kind
MOST_TRAINED_ITEMS = 2
REACH = 20  # slices to each side that an object is followed

Row = dict[str, list[float]]


def scores(model: SAM2Base, image: torch.Tensor, masks: torch.Tensor, gen: torch.Generator) -> Row:
    """Dice of N masks (N, S, S) of one image (3, S, S) by kind of prompt; one number per object or click."""
    features = encode(model, image[None]).take(torch.zeros(len(masks), dtype=torch.long))
    box = draw_boxes(gen, masks, jitter=0.0)
    out: Row = {"filled box": _dice(_filled(box.coords, masks), masks)}
    out["box"] = _dice(_mask(decode(model, features, box), masks), masks)
    for positives, negatives in ((2, 1), (3, 2)):
        clicks = add_clicks(None, *draw_clicks(gen, masks, positives, negatives))
        name = f"{positives + negatives} random"
        out[name] = _dice(_mask(decode(model, features, clicks), masks), masks)
    out |= _clicked(model, features, masks, gen)
    *_, (_, last) = _clicking(model, features, masks, gen, feeds_back=True)
    out["5 fed back"] = _dice(last, masks)
    return out


def _clicked(model: SAM2Base, features: Features, masks: torch.Tensor, gen: torch.Generator) -> Row:
    """Dice after one, three and five clicks, each where the error is deepest; harm and disobedience."""
    dice, disobeyed = [], []
    for prompts, predicted in _clicking(model, features, masks, gen, feeds_back=False):
        dice.append(_dice(predicted, masks))
        x, y = prompts.coords.long().unbind(-1)
        said = predicted[torch.arange(len(masks))[:, None], y, x]
        disobeyed += (said != prompts.labels.bool()).float().flatten().tolist()
    gains = np.diff(np.array(dice), axis=0)
    out = {"1 click": dice[0], "3 clicks": dice[2], "5 clicks": dice[4]}
    return out | {"harmful": (gains < -HARM).astype(float).ravel().tolist(), "disobeyed": disobeyed}


def _clicking(
    model: SAM2Base, features: Features, masks: torch.Tensor, gen: torch.Generator, feeds_back: bool
) -> Iterator[tuple[Prompts, torch.Tensor]]:
    """Clicks so far and the mask after each of them; `feeds_back` gives the network its last mask too."""
    prompts, previous, predicted = None, None, torch.zeros_like(masks)
    for _ in range(CLICKS):
        prompts = add_clicks(prompts, *deepest_errors(gen, masks, predicted))
        decoded = decode(model, features, prompts, previous=previous)
        previous = decoded.logits if feeds_back else None
        predicted = _mask(decoded, masks)
        yield prompts, predicted


def _mask(decoded: Decoded, like: torch.Tensor) -> torch.Tensor:
    """(N, S, S) bool, as SAM2Base returns it: nothing where the object counts as absent."""
    full = F.interpolate(decoded.logits, like.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return (full > 0) & (decoded.presence[:, :, None] > 0)


def _dice(predicted: torch.Tensor, masks: torch.Tensor) -> list[float]:
    both = (predicted & masks).flatten(1).sum(1)
    total = predicted.flatten(1).sum(1) + masks.flatten(1).sum(1)
    return (2 * both / total.clamp(min=1)).tolist()


def _filled(boxes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    axis = torch.arange(masks.shape[-1])[None]
    x = (axis >= boxes[:, :1, 0]) & (axis < boxes[:, 1:, 0])
    y = (axis >= boxes[:, :1, 1]) & (axis < boxes[:, 1:, 1])
    return y[:, :, None] & x[:, None, :]


def propagate(model: SAM2Base, frames: torch.Tensor, masks: torch.Tensor, gen: torch.Generator) -> float:
    """Dice over a volume (T, 3, S, S) of one object (T, S, S) from a box on its middle slice, both ways."""
    filled = torch.nonzero(masks.flatten(1).any(1))[:, 0]
    start = int(filled[len(filled) // 2])
    predicted = torch.zeros_like(masks)
    for direction in (1, -1):
        order = range(start, len(frames) if direction > 0 else -1, direction)
        bank: dict[int, dict] = {}
        for t, index in enumerate(order):
            features = encode(model, frames[index][None])
            if t == 0:
                decoded = decode(model, features, draw_boxes(gen, masks[index][None], jitter=0.0))
            else:
                recent = {0: bank[0], **{k: v for k, v in bank.items() if k >= t - 3}}
                decoded = track(model, features, decoded, t, recent, len(order))
            bank[t] = remember(model, features, decoded, decoded.presence[:, 0] > 0)
            predicted[index] = _mask(decoded, masks)[0]
    return _dice(predicted[None].flatten(1, 2), masks[None].flatten(1, 2))[0]


class Squash:
    """From slices to the network's square.

    Attributes:
        size: Side of the square in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def pictures(self, levels: np.ndarray) -> torch.Tensor:
        """(T, 3, S, S) in [0, 1] of (T, H, W[, 3]) levels."""
        values = torch.tensor(np.ascontiguousarray(levels)).float() / 255
        values = values.permute(0, 3, 1, 2) if values.ndim == 4 else values[:, None]
        return F.interpolate(values, (self.size, self.size), mode="bilinear", antialias=True).expand(
            -1, 3, -1, -1
        )

    def masks(self, masks: np.ndarray) -> torch.Tensor:
        """(N, S, S) bool of (N, H, W) masks."""
        values = torch.tensor(np.ascontiguousarray(masks)).float()[:, None]
        return F.interpolate(values, (self.size, self.size), mode="area")[:, 0] >= 0.5

    def large_enough(self, masks: np.ndarray) -> torch.Tensor:
        """The masks that the network can see at this size, none of them empty."""
        found = self.masks(masks)
        return found[found.flatten(1).sum(1) >= MIN_AREA * self.size**2]


def _spread(values: list | np.ndarray, most: int) -> list:
    """At most this many of the values, evenly spaced, with the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i)] for i in np.linspace(0, len(values) - 1, most + 1)[1:]]


def _extend(row: Row, more: Row) -> None:
    for name, values in more.items():
        row[name] += values


def plane_row(model: SAM2Base, levels: np.ndarray, labels: np.ndarray, gen: torch.Generator) -> Row:
    """Scores of some objects of a picture (H, W[, 3])."""
    squash = Squash(model.image_size)
    sizes = np.bincount(labels.ravel())
    wanted = [v for v in np.argsort(sizes) if v and sizes[v] >= MIN_AREA * labels.size]
    if not wanted:
        return {}
    masks = squash.large_enough(np.stack([labels == v for v in _spread(wanted, MOST_OBJECTS)]))
    return scores(model, squash.pictures(levels[None])[0], masks, gen) if len(masks) else {}


def volume_row(model: SAM2Base, levels: np.ndarray, labels: np.ndarray, gen: torch.Generator) -> Row:
    """Scores of the objects of (T, H, W): some slices of each, and each followed from its middle slice."""
    squash = Squash(model.image_size)
    row: Row = defaultdict(list)
    for value in np.unique(labels)[1:]:
        volume = labels == value
        areas = volume.reshape(len(volume), -1).sum(1)
        slices = np.flatnonzero(areas >= max(1, 0.2 * areas.max()))
        for index in _spread(slices, MOST_SLICES):
            masks = squash.large_enough(volume[index][None])
            if len(masks):
                _extend(row, scores(model, squash.pictures(levels[index][None])[0], masks, gen))
        filled = np.flatnonzero(areas)
        middle = filled[len(filled) // 2]
        part = slice(max(0, middle - REACH, filled[0] - 2), min(middle + REACH, filled[-1] + 2) + 1)
        masks = squash.masks(volume[part])
        if len(filled) > 3 and masks[min(middle, middle - part.start)].any():
            row["propagated"].append(propagate(model, squash.pictures(levels[part]), masks, gen))
    return row


def evaluate_real(model: SAM2Base, folders: list[Path], with_trained: bool) -> dict[str, dict[str, Row]]:
    """Scores by split and kind of image."""
    out: dict[str, dict[str, Row]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for folder in folders:
        items, split = read_manifest(folder)
        groups = defaultdict(list)
        for item in items:
            if item["kind"] in ("volume", "image2d") and (with_trained or split[item["id"]] != TRAINED):
                groups[split[item["id"]], kind_of(item)].append(item)
        for (side, kind), group in groups.items():
            for item in _spread(group, MOST_TRAINED_ITEMS if side == TRAINED else MOST_ITEMS):
                _extend(out[side][kind], _item_row(model, folder, item))
    return out


def _item_row(model: SAM2Base, folder: Path, item: dict) -> Row:
    gen = torch.Generator().manual_seed(SEED)
    if item["kind"] == "image2d":
        return plane_row(model, *read_plane(folder, item), gen)
    image, labels = read_volume(folder, item)
    if item["id"].startswith("brats"):
        labels = (labels > 0).astype(np.int16)  # the whole tumour
    if item["id"].startswith("ts_"):
        labels = np.where(np.isin(labels, (1, 2, 3, 5, 6)), labels, 0)
    return volume_row(model, to_levels(image).transpose(2, 1, 0), labels.transpose(2, 1, 0), gen)


def evaluate_synthetic(model: SAM2Base, images: int) -> dict[str, Row]:
    """Scores by style."""
    table: dict[str, Row] = {}
    for offset, style in enumerate(STYLES):
        gen = torch.Generator().manual_seed(SEED + offset)
        row: Row = defaultdict(list)
        for _ in range(images):
            scenes = synthetic_scenes(gen, 1, model.image_size, 1.0, style=style)
            masks, valid = choose_targets(scenes, MOST_OBJECTS, gen, whole=0.0)
            keep = masks[0, valid[0], 0]
            if len(keep):
                _extend(row, scores(model, scenes.images[0, 0], keep, gen))
        table[style] = row
    return table


def evaluate_phantoms(model: SAM2Base) -> dict[str, Row]:
    """Scores on simple volumes and a picture."""
    table = {}
    for name, (levels, labels) in phantoms.all_phantoms().items():
        gen = torch.Generator().manual_seed(SEED)
        if labels.shape[0] > 1:
            table[name] = volume_row(model, levels, labels, gen)
        else:
            table[name] = plane_row(model, levels[0], labels[0], gen)
    return table


def show(title: str, table: dict[str, Row]) -> None:
    """Print one table in Markdown; its last line is the mean over the lines."""
    print(f"\n| {title} | objects | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---|" * (len(COLUMNS) + 1))
    means: dict[str, list[float]] = defaultdict(list)
    for name, row in table.items():
        if row:
            values = {key: float(np.mean(row[key])) for key in COLUMNS if row.get(key)}
            for key, value in values.items():
                means[key].append(value)
            print(_line(name, len(row["box"]), values))
    objects = sum(len(row["box"]) for row in table.values() if row)
    print(_line("mean", objects, {key: float(np.mean(v)) for key, v in means.items()}), flush=True)


def _line(name: str, objects: int, values: dict[str, float]) -> str:
    cells = [("" if key not in values else f"{values[key]:.1%}" if key in SHARES else f"{values[key]:.3f}")
             for key in COLUMNS]  # fmt: skip
    return f"| {name} | {objects} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--size", type=int, default=256, help="side of the network's input in pixels")
    parser.add_argument("--synthetic", type=int, default=0, help="synthetic images a style")
    parser.add_argument("--real", type=Path, action="append", default=[], help="data folder; may be repeated")
    parser.add_argument("--trained", action="store_true", help="also measure some items that train")
    parser.add_argument("--phantoms", action="store_true")
    args = parser.parse_args()
    model = build(args.size, args.config).eval()
    model.load_state_dict(read_weights(args.weights), strict=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half_precision("cpu")):
        if args.phantoms:
            show("phantoms", evaluate_phantoms(model))
        if args.synthetic:
            show("synthetic, held out", evaluate_synthetic(model, args.synthetic))
        for split, table in evaluate_real(model, args.real, args.trained).items():
            show(split, table)


if __name__ == "__main__":
    main()
