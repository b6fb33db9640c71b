"""Signals of uncertainty: of one object on one frame, their combination, and vectors for similarity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from lib.engine.frames import FrameSequence
from lib.engine.network import Features
from lib.engine.predictor import Outputs, Predictor
from lib.metrics.calibration import IDENTITY, Calibration
from lib.metrics.segmentation import jaccard
from lib.prompts.simulation import jittered_box, tight_box
from lib.prompts.types import FramePrompts

ENTROPY, JITTER, PRESENCE, IOU, STABILITY = "entropy", "jitter", "presence", "predicted_iou", "stability"
SIGNALS = (ENTROPY, JITTER, PRESENCE, IOU, STABILITY)

# Proportional to the rank correlation with the true error of the bundled weights on CT, MR, nuclei and EM
# (`python -m benchmarks.signals`), in coarse steps, since those are 14 images. Their occlusion head is nearly
# always sure; if it is not, this is the only sign of the end of an object.
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {STABILITY: 0.3, IOU: 0.25, ENTROPY: 0.2, JITTER: 0.2, PRESENCE: 0.05}
)
# Value of a signal that could not be computed: neither sure nor unsure.
UNKNOWN = 0.5


def combine(parts: Mapping[str, float], calibration: Calibration = IDENTITY) -> float:
    """Weighted mean of the signals by name, with the predicted IoU calibrated: 0 (sure) to 1 (unsure).

    A missing signal counts as ``UNKNOWN``, so that a single signal never makes up the whole score.
    """
    told = dict(parts)
    if IOU in told:
        told[IOU] = 1.0 - calibration(1.0 - told[IOU])
    score = sum(weight * told.get(name, UNKNOWN) for name, weight in WEIGHTS.items())
    return float(np.clip(score / sum(WEIGHTS.values()), 0.0, 1.0))


def mean_parts(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each signal over the mappings that contain it, in the order of ``SIGNALS``."""
    collected: dict[str, list[float]] = {}
    for parts in several:
        for name, value in parts.items():
            collected.setdefault(name, []).append(value)
    means = {name: float(np.mean(collected[name])) for name in SIGNALS if name in collected}
    return {name: min(max(value, 0.0), 1.0) for name, value in means.items()}


Vector = NDArray[np.float32]


def frame_vector(features: Features) -> Vector:
    """Spatial mean of the last feature map of one frame, L2-normalised: (C,)."""
    return unit(features.maps[-1][0].float().mean(dim=(1, 2)).cpu().numpy())


def mean_vector(vectors: Sequence[Vector]) -> Vector:
    """Mean of at least one vector, L2-normalised: (C,)."""
    return unit(np.mean(vectors, axis=0))


def unit(vector: NDArray) -> Vector:
    """The vector scaled to length 1; a zero vector stays as it is."""
    length = float(np.linalg.norm(vector))
    scaled: Vector = np.asarray(vector / length if length else vector, dtype=np.float32)
    return scaled


Mask = NDArray[np.bool_]

# Half the width of the boundary band as a share of the mask grid's side: 2 cells of the bundled weights' 64,
# 8 of the 256 of SAM 2 at 1024 px. Over a whole slice, entropy would measure the amount of background.
BAND_SHARE = 1 / 32
# Logit offset of SAM's stability score (Kirillov et al. 2023, automatic mask generator).
STABILITY_OFFSET = 1.0


def object_signals(outputs: Outputs, number: int, presence: float | None = None) -> dict[str, float]:
    """Signals that need no further decoding; those without a finite value are left out.

    Args:
        outputs: Network outputs for one frame.
        number: Index of the object among them.
        presence: Probability of the object's presence, if its source knows it better than the decoder.
    """
    logits = outputs.logits[number]
    probability = float(expit(outputs.object_logits[number])) if presence is None else presence
    told = {
        ENTROPY: boundary_entropy(logits),
        PRESENCE: doubt(probability),
        IOU: 1.0 - predicted_iou(outputs.ious[number]),
        STABILITY: instability(logits),
    }
    return {name: value for name, value in told.items() if value is not None and math.isfinite(value)}


def boundary_entropy(logits: NDArray[np.float32], radius: int | None = None) -> float | None:
    """Mean binary entropy, in bits, of a mask's probabilities near its boundary.

    H(p) = -p log2 p - (1 - p) log2 (1 - p) with p = sigmoid(logit), over all cells at most ``radius`` steps
    (4-neighbours) away from the boundary, on both sides. The edge of the frame is no boundary.

    Args:
        logits: (h, w) mask grid; the mask is the set of positive logits.
        radius: Half the band's width in cells; default ``BAND_SHARE`` of the grid's height, at least 1.

    Returns:
        0 (decided) to 1 (undecided); None for a mask without a boundary, empty or filling the frame.
    """
    mask = logits > 0
    if not mask.any() or mask.all():
        return None
    steps = radius if radius is not None else max(1, round(BAND_SHARE * logits.shape[0]))
    grown = ndimage.binary_dilation(mask, iterations=steps)
    shrunk = ndimage.binary_erosion(mask, iterations=steps, border_value=1)
    return float(binary_entropy(logits[grown & ~shrunk]).mean())


def binary_entropy(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Entropy of sigmoid(logit) in bits: 1 at a logit of 0, decreasing on both sides."""
    # log p = -log(1 + e^-x) keeps its digits for p near 0 or 1.
    x = np.abs(np.asarray(logits, dtype=np.float64))
    nats = np.log1p(np.exp(-x)) + x * expit(-x)
    entropy: NDArray[np.float64] = nats / np.log(2)
    return entropy


def doubt(probability: float) -> float:
    """1 - |2 p - 1|: 1 at a probability of 0.5, 0 at 0 and 1."""
    return 1.0 - abs(2.0 * probability - 1.0)


def predicted_iou(ious: NDArray[np.float32]) -> float:
    """Predicted IoU of the chosen mask: the best of the (M,) decoded ones, clipped to 0 to 1."""
    return min(max(float(ious.max()), 0.0), 1.0)


def instability(logits: NDArray[np.float32], offset: float = STABILITY_OFFSET) -> float | None:
    """One minus SAM's stability score: 1 - area(l > d) / area(l > -d).

    Args:
        logits: (h, w) mask grid.
        offset: Logit offset d.

    Returns:
        0 (stable) to 1; None if no logit exceeds -d.
    """
    wide = np.count_nonzero(logits > -offset)
    if not wide:
        return None
    return 1.0 - np.count_nonzero(logits > offset) / wide


def jitter_signal(
    predictor: Predictor,
    frames: FrameSequence,
    index: int,
    mask: Mask,
    count: int,
    rng: np.random.Generator,
) -> float | None:
    """Prompt sensitivity: disagreement of the masks for jittered boxes around a mask.

    The ``count`` boxes deviate as SAM's training prompts do: 10 % of the side, at most 20 pixels.

    Returns:
        0 to 1; None for an empty mask (H, W) or fewer than two boxes.
    """
    if count < 2 or not mask.any():
        return None
    boxes = [FramePrompts.of_box(jittered_box(mask, rng)) for _ in range(count)]
    return disagreement(list(predictor.outputs(frames, index, boxes).logits > 0))


def disagreement(masks: Sequence[Mask]) -> float | None:
    """Mean of 1 - IoU over all pairs of masks of one shape; two empty masks agree.

    Returns:
        0 (all equal) to 1 (no overlap); None for fewer than two masks.
    """
    pairs = list(itertools.combinations(masks, 2))
    if not pairs:
        return None
    return float(np.mean([1.0 - jaccard(first, second) for first, second in pairs]))


def native_mask(logits: NDArray[np.float32], height: int, width: int) -> Mask:
    """Mask (H, W) of the native frame from logits (h, w) of the mask grid, resampled as by the predictor."""
    grown = F.interpolate(torch.from_numpy(logits)[None, None], (height, width), mode="bilinear")
    mask: Mask = (grown[0, 0] > 0).numpy()
    return mask


def largest_pieces(mask: Mask, most: int) -> list[Mask]:
    """The largest 4-connected components of a mask (H, W), largest first; ties go to the upper one."""
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())[1:]
    largest = np.argsort(-sizes, kind="stable")[: min(count, most)] + 1
    return [pieces == piece for piece in largest.tolist()]


def piece_boxes(mask: Mask, most: int) -> list[FramePrompts]:
    """Tight boxes around the largest 4-connected components of a mask (H, W), largest first."""
    return [FramePrompts.of_box(tight_box(piece)) for piece in largest_pieces(mask, most)]
