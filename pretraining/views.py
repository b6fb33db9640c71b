"""Views of real slices: which part is seen, from which side, and how it looks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

__all__ = ["draw_motion", "draw_view", "sample_view", "vary"]

_WHOLE, _ZOOMED = 0.4, 0.35  # shares of views; the others are of any size and turned anyhow
_SMALLEST_WINDOW = 0.12  # side of a zoomed window, of the slice's
_FEWEST_PIXELS = 32  # of a zoomed window's side


def draw_view(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A 2 x 3 affine from the output square to the picture (T, H, W), in coordinates from -1 to 1.

    The network is given whole slices, and windows around an object of up to four times its size: so are most
    of these views. The others are crops of any size, stretched and turned.
    """
    chance = rng.random()
    if chance < _WHOLE:
        scale = np.full(2, rng.uniform(0.95, 1.08))
        return _affine(scale, rng.normal(0, 0.03), rng.uniform(-0.05, 0.05, 2), rng)
    if chance < _WHOLE + _ZOOMED and labels[0].any():
        centre, half = _object_window(labels[0], rng)
        return _affine(half, rng.normal(0, 0.05), _inside(centre, half), rng)
    scale = rng.uniform(0.25, 1.1) * np.exp(rng.normal(0, 0.12, 2))
    centre = rng.uniform(-1, 1, 2)
    if labels[0].any() and rng.random() < 0.6:
        centre = _spot(labels[0], rng) + rng.uniform(-0.5, 0.5, 2) * scale
    return _affine(scale, rng.normal(0, 0.15), _inside(centre, scale), rng)


def _affine(scale: np.ndarray, tilt: float, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale, a turn by `tilt` and, half of the time, by right angles and flips; then the centre."""
    quarters = rng.integers(4) if rng.random() < 0.5 else 0
    angle = tilt + (np.pi / 2) * quarters
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = rng.choice([-1.0, 1.0], 2) if rng.random() < 0.5 else np.ones(2)
    return np.concatenate([np.diag(scale) @ turn @ np.diag(flip), centre[:, None]], 1)


def _inside(centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    room = np.maximum(0.0, 1 - half)
    return np.clip(centre, -room, room)


def _any_object(labels: np.ndarray, rng: np.random.Generator) -> int:
    return int(rng.choice(np.unique(labels[labels > 0])))


def _spot(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A place inside a random object."""
    ys, xs = np.nonzero(labels == _any_object(labels, rng))
    pick = rng.integers(len(xs))
    return np.array([xs[pick], ys[pick]]) / np.array(labels.shape[::-1]) * 2 - 1


def _object_window(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half sides of a window around a random object, 1.5 to 4 times its larger side."""
    ys, xs = np.nonzero(labels == _any_object(labels, rng))
    sides = np.array(labels.shape[::-1])
    low, high = np.array([xs.min(), ys.min()]), np.array([xs.max(), ys.max()]) + 1
    pixels = max((high - low).max() * rng.uniform(1.5, 4.0), _SMALLEST_WINDOW * sides.max(), _FEWEST_PIXELS)
    half = np.minimum(pixels / sides, 1.05)
    centre = (low + high) / sides - 1 + rng.uniform(-0.25, 0.25, 2) * half
    return centre, half


def draw_motion(frames: int, size: int, rng: np.random.Generator) -> torch.Tensor:
    """Displacements (T, S, S, 2) of a clip made of one still, in coordinates from -1 to 1; frame 0 has none.

    Tissue that moves and deforms as in an ultrasound or an endoscopy: a smooth field and a change of scale,
    each a wave of its own through the clip, and a drift.
    """
    times = torch.arange(frames, dtype=torch.float32).view(-1, 1, 1, 1)

    def wave() -> torch.Tensor:
        phase, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.9)
        height = torch.sin(phase + speed * times)
        return height - height[:1]

    coarse = torch.tensor(rng.normal(0, 1, (2, 2, 5, 5)), dtype=torch.float32)
    fields = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    motion = rng.uniform(0, 0.08) * (wave() * fields[0] + wave() * fields[1])
    axis = (torch.arange(size) * 2 + 1) / size - 1
    place = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    centre = torch.tensor(rng.uniform(-0.4, 0.4, 2), dtype=torch.float32)
    drift = torch.tensor(rng.normal(0, 0.02, 2), dtype=torch.float32)
    return motion + rng.uniform(0, 0.2) * wave() * (place - centre) + drift * times


def sample_view(
    clip: np.ndarray,
    marks: np.ndarray,
    view: np.ndarray,
    size: int,
    motion: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (T, 3, S, S) in [0, 1] and labels (T, S, S) int64 of a clip (T, H, W[, 3]) uint8.

    Args:
        clip: pictures.
        marks: (T, H, W) labels of the same frames.
        view: affine from draw_view.
        size: side S of the output.
        motion: displacements of draw_motion; none where the frames differ by themselves.
    """
    plain = F.affine_grid(torch.eye(2, 3)[None], [1, 1, size, size], align_corners=False)
    places = (plain if motion is None else plain + motion).expand(len(clip), -1, -1, -1)
    affine = torch.tensor(view, dtype=torch.float32)
    grid = places @ affine[:, :2].T + affine[:, 2]
    levels = torch.tensor(np.ascontiguousarray(clip)).float() / 255
    levels = levels.permute(0, 3, 1, 2) if clip.ndim == 4 else levels[:, None]
    mark = torch.tensor(np.ascontiguousarray(marks)).float()[:, None]
    picture = F.grid_sample(levels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    labels = F.grid_sample(mark, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return picture.expand(-1, 3, -1, -1), labels[:, 0].round().long()


def vary(picture: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random resolution, colour, contrast, gamma, inversion and noise of (T, 3, S, S) pictures in [0, 1]."""
    picture = _coarser(picture, rng)
    if rng.random() < 0.2:
        weights = torch.tensor(rng.dirichlet((2.0, 2.0, 2.0)), dtype=torch.float32).view(1, 3, 1, 1)
        picture = (picture * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-0.1, 0.1)
    picture = ((picture - 0.5) * gain + 0.5 + offset).clamp(0, 1) ** float(np.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.1:
        picture = 1 - picture
    if rng.random() < 0.5:
        return picture.contiguous()
    noise = torch.from_numpy(rng.standard_normal(picture[:, :1].shape, dtype=np.float32))
    return (picture + noise * float(rng.uniform(0, 0.06))).clamp(0, 1)


def _coarser(picture: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Every fourth picture as of a coarser scan, half of these along one axis alone."""
    if rng.random() > 0.25:
        return picture
    size = picture.shape[-1]
    sides = (
        size / np.exp(rng.uniform(0.2, 1.1, 2) * (rng.random(2) < (1.0, rng.choice([0.0, 1.0]))))
    ).astype(int)
    if rng.random() < 0.5:
        sides = sides[::-1]
    small = F.interpolate(picture, tuple(int(s) for s in sides), mode="bilinear", antialias=True)
    return F.interpolate(small, (size, size), mode="bilinear")
