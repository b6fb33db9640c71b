"""Scenes from real images with masks, for the share of a batch that is not synthetic.

Everything is held in memory as pictures with numbered pieces; nothing is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from pretraining.scenes import Scenes
from pretraining.split import TRAINED, kind_of, read_manifest
from pretraining.views import draw_motion, draw_view, sample_view, vary

__all__ = ["RealStack", "load_stacks", "read_plane", "read_volume", "real_scenes", "to_levels"]

CT_WINDOW = (-160.0, 240.0)
_OTHER_WINDOWS = (
    (-1000.0, 400.0),
    (-500.0, 1300.0),
    (-20.0, 100.0),
    (-100.0, 350.0),
)  # lung, bone, head, CTA
_MIN_PIECE = 12  # pixels; smaller pieces of a slice are noise of the labelling
_FLATTENING = 0.3  # exponent of a kind's number of slices in its weight
_STILLS = 0.4  # share of clips that are one picture in motion; only volumes have neighbouring slices
_BEYOND = 4  # slices kept beyond the ends of what is labelled, so that objects end in clips


@dataclass
class RealStack:
    """Slices of one item along one axis.

    Attributes:
        name: id of the item and axis.
        kind: kind of image, from the manifest.
        pictures: (T, H, W) or, in colour, (T, H, W, 3) uint8; a CT (T, H, W) int16 in Hounsfield units.
        labels: (T, H, W) int16, what each pixel is, the same number in every slice.
        pieces: (T, H, W) int16, objects of each slice; of a volume connected pieces, numbered anew in each.
        weight: how often it is drawn.
    """

    name: str
    kind: str
    pictures: np.ndarray
    labels: np.ndarray
    pieces: np.ndarray
    weight: float = 1.0


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


def read_volume(folder: Path, item: dict) -> tuple[np.ndarray, np.ndarray]:
    """Image and int16 labels (X, Y, Z)."""
    image = np.asanyarray(nibabel.Nifti1Image.from_filename(folder / item["file"]).dataobj)
    return image, np.asanyarray(
        nibabel.Nifti1Image.from_filename(folder / item["label_file"]).dataobj
    ).astype(np.int16)


def read_plane(folder: Path, item: dict) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W) or, in colour, (H, W, 3) uint8, and a number for each of its objects (H, W) int16."""
    picture = np.asarray(_opened(folder / item["file"]))
    labels = np.asarray(Image.open(folder / item["label_file"])).astype(np.int16)
    if not (item.get("label_ids_are_objects") or item["id"].startswith("dsb")):
        labels = ndimage.label(ndimage.binary_opening(labels > 0, iterations=2))[0].astype(np.int16)
    return picture, labels


def _opened(path: Path) -> Image.Image:
    """The picture in RGB where it has colour, else in grey."""
    picture = Image.open(path)
    if picture.mode in ("L", "I", "I;16", "1", "LA"):
        return picture.convert("L")
    levels = np.asarray(picture.convert("RGB"))
    return picture.convert("L" if np.ptp(levels.astype(np.int16), axis=2).max() <= 2 else "RGB")


def _volume(folder: Path, item: dict) -> list[RealStack]:
    image, labels = read_volume(folder, item)
    is_ct = image.dtype != np.uint8 and image.min() < -500
    levels = np.clip(image, -1024, 3000).astype(np.int16) if is_ct else to_levels(image)
    spacing = item["spacing_mm"]
    isotropic = max(spacing) < 1.5 * min(spacing) and min(levels.shape) > 32
    stacks = []
    for axis in (0, 1, 2) if isotropic else (2,):
        pictures = np.moveaxis(levels, axis, 0).swapaxes(1, 2)
        marks = np.moveaxis(labels, axis, 0).swapaxes(1, 2)
        keep = np.flatnonzero(marks.reshape(len(marks), -1).any(1))
        span = slice(max(0, keep[0] - _BEYOND), keep[-1] + 1 + _BEYOND)
        pieces = np.stack([_pieces(m) for m in marks[span]])
        stacks.append(RealStack(f"{item['id']}/{axis}", kind_of(item), pictures[span], marks[span], pieces))
    return stacks


def _plane(folder: Path, item: dict) -> list[RealStack]:
    picture, labels = read_plane(folder, item)
    return [RealStack(item["id"], kind_of(item), picture[None], labels[None], labels[None])]


def _cine(folder: Path, item: dict) -> list[RealStack]:
    first = {**item, "file": item["frames"] % 0, "label_file": item["label_file"] % 0}
    return _plane(folder, {**first, "label_ids_are_objects": True})


def load_stacks(folders: Iterable[Path]) -> list[RealStack]:
    """Read the items of data folders or packed files that train, weighted so that kinds count nearly equally.

    Raises:
        FileNotFoundError: a folder has no manifest.
    """
    readers = {"volume": _volume, "image2d": _plane, "video": _cine}
    stacks: list[RealStack] = []
    for folder in folders:
        if folder.is_file():
            stacks += _unpacked(folder)
            continue
        items, split = read_manifest(folder)
        for item in items:
            if split[item["id"]] == TRAINED and item["kind"] in readers:
                stacks += readers[item["kind"]](folder, item)
    weigh(stacks)
    return stacks


def _unpacked(path: Path) -> list[RealStack]:
    """The stacks of a file of pack.py."""
    with np.load(path) as file:
        index = json.loads(file["index"].tobytes())
        fields = ("pictures", "labels", "pieces")
        return [
            RealStack(entry["name"], entry["kind"], *(file[f"{number}.{field}"] for field in fields))
            for number, entry in enumerate(index)
        ]


def weigh(stacks: list[RealStack]) -> None:
    """Set the weights: a kind's grows slowly with its slices, and is shared by its stacks."""
    slices: Counter[str] = Counter()
    for stack in stacks:
        slices[stack.kind] += len(stack.pictures)
    for stack in stacks:
        total = slices[stack.kind]
        stack.weight = total**_FLATTENING * len(stack.pictures) / total


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


def _pick(stacks: list[RealStack], rng: np.random.Generator) -> RealStack:
    weights = np.array([stack.weight for stack in stacks])
    return stacks[rng.choice(len(stacks), p=weights / weights.sum())]


def _one(stack: RealStack, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random slice that shows an object: picture (1, H, W[, 3]) and numbered pieces (1, H, W)."""
    filled = np.flatnonzero(stack.pieces.reshape(len(stack.pieces), -1).any(1))
    one = slice(pick := int(rng.choice(filled)), pick + 1)
    return _windowed(stack.pictures[one], rng), stack.pieces[one]


def _raw_clip(
    stacks: list[RealStack], frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Pictures (T, H, W[, 3]), numbered labels (T, H, W), and whether all frames are one picture.

    A random run of slices in either direction: where the stack has room, every other clip takes each second
    or third slice, as of a thicker scan. Or one picture, repeated.
    """
    if frames == 1:
        return *_one(_pick(stacks, rng), rng), False
    stills = [stack for stack in stacks if len(stack.pictures) == 1]
    volumes = [stack for stack in stacks if len(stack.pictures) >= frames]
    if stills and (not volumes or rng.random() < _STILLS):
        picture, pieces = _one(_pick(stills, rng), rng)
        return picture.repeat(frames, 0), pieces.repeat(frames, 0), True
    stack = _pick(volumes, rng)
    widest = min(3, (len(stack.pictures) - 1) // (frames - 1))
    step = int(rng.integers(1, widest + 1)) if rng.random() < 0.5 else 1
    start = int(rng.integers(len(stack.pictures) - (frames - 1) * step))
    run = slice(start, start + (frames - 1) * step + 1, step)
    turn = -1 if rng.random() < 0.5 else 1
    return _windowed(stack.pictures[run], rng)[::turn], _clip_labels(stack.labels[run][::turn]), False


def _windowed(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """8-bit levels of slices in Hounsfield units: mostly soft tissue, else another window, each varied."""
    if pictures.dtype != np.int16:
        return pictures
    window = CT_WINDOW if rng.random() < 0.6 else _OTHER_WINDOWS[rng.integers(len(_OTHER_WINDOWS))]
    centre, width = sum(window) / 2, window[1] - window[0]
    centre, width = centre + rng.normal(0, 0.05) * width, width * np.exp(rng.normal(0, 0.12))
    return to_levels(pictures, (centre - width / 2, centre + width / 2))


def real_scenes(
    stacks: list[RealStack], gen: torch.Generator, images: int, size: int, *, frames: int = 1
) -> Scenes:
    """A batch of random views of real slices, with the same kinds of objects as synthetic_scenes.

    Args:
        stacks: from load_stacks.
        gen: source of chance.
        images: images B.
        size: side S in pixels.
        frames: neighbouring slices T of each image, or T moments of one picture in motion.
    """
    rng = _rng(gen)
    pictures, labels = [], []
    for _ in range(images):
        clip, marks, is_still = _raw_clip(stacks, frames, rng)
        motion = draw_motion(frames, size, rng) if is_still else None
        picture, sampled = sample_view(clip, marks, draw_view(marks, rng), size, motion)
        pictures.append(vary(picture, rng))
        labels.append(sampled)
    first = torch.ones(images, dtype=torch.long, device=gen.device)
    return Scenes(torch.stack(pictures).to(gen.device), torch.stack(labels).to(gen.device), first)
