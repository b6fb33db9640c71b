"""Scenes from real images with masks, for the share of a batch that is not synthetic.

Only items that the data's manifest marks `may_train_shipped_weights` are opened. Everything is held
in memory as 8-bit pictures with numbered pieces; nothing is written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from pretraining.scenes import Scenes

__all__ = ["RealStack", "load_stacks", "real_scenes", "to_levels"]

CT_WINDOW = (-160.0, 240.0)
_MIN_PIECE = 12  # pixels; smaller pieces of a slice are noise of the labelling


@dataclass
class RealStack:
    """Slices of one item along one axis.

    Attributes:
        name: for logs.
        pictures: (T, H, W) uint8.
        labels: (T, H, W) what each pixel is, the same number in every slice.
        pieces: (T, H, W) connected pieces of each slice, numbered anew in each.
        weight: how often it is drawn.
    """

    name: str
    pictures: np.ndarray
    labels: np.ndarray
    pieces: np.ndarray
    weight: float


def to_levels(array: np.ndarray, window: tuple[float, float] | None = None) -> np.ndarray:
    """8-bit levels of an image: the window given, else CT soft tissue, else 0.5 to 99.5 per cent."""
    if array.dtype == np.uint8:
        return array
    array = array.astype(np.float32)
    if window is None and array.min() < -500:
        window = CT_WINDOW
    if window is None:
        inner = array[array != array.min()]
        window = tuple(np.percentile(inner if inner.size else array, (0.5, 99.5)))
    low, high = window
    return (np.clip((array - low) / max(high - low, 1e-6), 0, 1) * 255).round().astype(np.uint8)


def _volume(folder: Path, item: dict) -> list[RealStack]:
    image = np.asanyarray(nibabel.load(folder / item["file"]).dataobj)
    labels = np.asanyarray(nibabel.load(folder / item["label_file"]).dataobj).astype(np.uint8)
    levels = to_levels(image)
    spacing = item["spacing_mm"]
    isotropic = max(spacing) < 1.5 * min(spacing) and min(levels.shape) > 32
    stacks = []
    for axis in (0, 1, 2) if isotropic else (2,):
        pictures = np.moveaxis(levels, axis, 0).swapaxes(1, 2)
        marks = np.moveaxis(labels, axis, 0).swapaxes(1, 2)
        keep = np.flatnonzero(marks.reshape(len(marks), -1).any(1))
        span = slice(keep[0], keep[-1] + 1)
        weight = len(keep) ** 0.5
        pieces = np.stack([_pieces(m) for m in marks[span]])
        stacks.append(RealStack(f"{item['id']}/{axis}", pictures[span], marks[span], pieces, weight))
    return stacks


def _plane(folder: Path, item: dict) -> list[RealStack]:
    picture = np.asarray(Image.open(folder / item["file"]).convert("L"))
    labels = np.asarray(Image.open(folder / item["label_file"]))
    instances = item["id"].startswith("dsb")
    if not instances:
        labels = ndimage.label(ndimage.binary_opening(labels > 0, iterations=2))[0]
    labels = labels[None].astype(np.int16)
    return [RealStack(item["id"], picture[None], labels, labels, 4.0)]


def _cine(folder: Path, item: dict) -> list[RealStack]:
    picture = np.asarray(Image.open(folder / (item["frames"] % 0)).convert("L"))
    labels = np.asarray(Image.open(folder / (item["label_file"] % 0)))
    labels = (labels > 0)[None].astype(np.int16)
    return [RealStack(item["id"], picture[None], labels, labels, 1.0)]


def load_stacks(folder: Path) -> list[RealStack]:
    """Read the allowed items of a data folder with a manifest.json.

    Raises:
        FileNotFoundError: the folder has no manifest.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    readers = {"volume": _volume, "image2d": _plane, "video": _cine}
    stacks = []
    for item in manifest["items"]:
        if item["may_train_shipped_weights"] and item["kind"] in readers:
            stacks += readers[item["kind"]](folder, item)
    return stacks


def _pieces(labels: np.ndarray) -> np.ndarray:
    """Number the connected pieces of each label of an (H, W) map; tiny ones become background."""
    out = np.zeros(labels.shape, dtype=np.int16)
    count = 0
    for value in np.unique(labels):
        if value == 0:
            continue
        numbered, found = ndimage.label(labels == value)
        sizes = np.bincount(numbered.ravel(), minlength=found + 1)
        for piece in range(1, found + 1):
            if sizes[piece] >= _MIN_PIECE:
                count += 1
                out[numbered == piece] = count
    return out


def _clip_labels(labels: np.ndarray) -> np.ndarray:
    """(T, H, W) labels for a clip: those of which frame 0 shows one main piece; the others are dropped."""
    out = np.zeros(labels.shape, dtype=np.int64)
    for value in np.unique(labels[0]):
        if value == 0:
            continue
        numbered, _ = ndimage.label(labels[0] == value)
        sizes = np.bincount(numbered.ravel())[1:]
        if sizes.max() >= 0.9 * sizes.sum():
            out[labels == value] = value
    return out


def _rng(gen: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(0, 2**31, (1,), generator=gen, device=gen.device)))


def _raw_clip(
    stacks: list[RealStack], frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random run of slices: pictures (T, H, W) and numbered labels (T, H, W), in either direction."""
    long_enough = [s for s in stacks if len(s.pictures) >= frames]
    weights = np.array([s.weight for s in long_enough])
    stack = long_enough[rng.choice(len(long_enough), p=weights / weights.sum())]
    start = rng.integers(len(stack.pictures) - frames + 1)
    run = slice(start, start + frames)
    pictures = stack.pictures[run]
    if frames == 1:
        return pictures, stack.pieces[run]
    step = -1 if rng.random() < 0.5 else 1
    return pictures[::step], _clip_labels(stack.labels[run][::step])


def _random_view(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A 2 x 3 affine from the output square to the picture: crop, stretch, rotation and flips.

    Half of the views are centred on a random object, so that small ones are seen large too.
    """
    zoom = rng.uniform(0.25, 1.05) if rng.random() < 0.6 else rng.uniform(0.85, 1.1)
    stretch = np.exp(rng.normal(0, 0.12, 2))
    angle = rng.normal(0, 0.15) + (np.pi / 2) * rng.integers(4)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = np.diag(rng.choice([-1.0, 1.0], 2))
    centre = rng.uniform(-1, 1, 2) * max(0.0, 1 - zoom)
    ys, xs = np.nonzero(labels[0])
    if len(xs) and rng.random() < 0.6:
        pick = rng.integers(len(xs))
        spot = np.array([xs[pick], ys[pick]]) / np.array(labels.shape[:0:-1]) * 2 - 1
        centre = spot + rng.uniform(-0.5, 0.5, 2) * zoom
        centre = np.clip(centre, -max(0.0, 1 - zoom), max(0.0, 1 - zoom))
    return np.concatenate([zoom * rotation @ flip * stretch, centre[:, None]], 1)


def real_scenes(
    stacks: list[RealStack], gen: torch.Generator, images: int, size: int, *, frames: int = 1
) -> Scenes:
    """A batch of random views of real slices, with the same kinds of objects as synthetic_scenes.

    Args:
        stacks: from load_stacks.
        gen: source of chance.
        images: images B.
        size: side S in pixels.
        frames: neighbouring slices T of each image.
    """
    rng = _rng(gen)
    pictures, labels = [], []
    for _ in range(images):
        clip, marks = _raw_clip(stacks, frames, rng)
        view = torch.tensor(_random_view(marks, rng), dtype=torch.float32)[None]
        grid = F.affine_grid(view, [1, 1, size, size], align_corners=False).expand(frames, -1, -1, -1)
        image = torch.tensor(np.ascontiguousarray(clip)).float()[:, None] / 255
        mark = torch.tensor(np.ascontiguousarray(marks)).float()[:, None]
        sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        sampled_marks = F.grid_sample(mark, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        pictures.append(_vary(sampled[:, 0], rng))
        labels.append(sampled_marks[:, 0].round().long())
    device = gen.device
    grey = torch.stack(pictures).to(device)
    b, t, s, _ = grey.shape
    first = torch.ones(images, dtype=torch.long, device=device)
    return Scenes(grey[:, :, None].expand(b, t, 3, s, s).contiguous(), torch.stack(labels).to(device), first)


def _vary(picture: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random contrast, gamma, inversion and noise of (T, S, S) pictures in [0, 1]."""
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-0.1, 0.1)
    picture = ((picture - 0.5) * gain + 0.5 + offset).clamp(0, 1) ** float(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.1:
        picture = 1 - picture
    noise = torch.from_numpy(rng.standard_normal(picture.shape, dtype=np.float32))
    return (picture + noise * float(rng.uniform(0, 0.06) * (rng.random() < 0.5))).clamp(0, 1)
