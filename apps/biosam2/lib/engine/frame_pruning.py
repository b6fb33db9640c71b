"""Which frames of a video say nothing new of an object, told before their memory is encoded.

SurgSAM-2 (Liu et al. 2024) leaves out memories that are most like the newest one by the cosine of their
features, always two. There all memories have been encoded, which takes 7% of a frame's time with the bundled
weights (attention to four of them 11%). Here the image encoder's features are compared, which exist by then,
where the object is: a frame is mostly background, which hardly changes in a clip. What looks the same shares
a memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

# Mean cosine of the features, and share of the larger area that the smaller one is, from which on an object
# looks the same. One that passes behind another keeps its features where it is seen, and loses area: in clips
# of occlusion other than those of ``benchmarks.video`` objects were lost with 0.9 for either of them.
REDUNDANT = 0.95
SAME_AREA = 0.95


def unit_channels(features: torch.Tensor) -> torch.Tensor:
    """Features (C, h, w) in float32, their channels of length 1 at each place; 0 where they are 0."""
    values = features.float()
    return values * values.square().sum(-3, keepdim=True).clamp(min=1e-12).rsqrt()


def object_places(held: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
    """Weights of the places where one of two frames holds the object; of sum 1.

    Not in SurgSAM-2, which compares all places: there a frame on which the object lies elsewhere is as
    redundant as one on which it has not moved.

    Args:
        held: (h, w) share of each place that the mask of the first frame holds.
        newest: The same of the second one.

    Returns:
        (h, w); the same everywhere where neither holds the object.
    """
    either = torch.maximum(held, newest) + 1e-6
    return either / either.sum()


def redundancy(features: torch.Tensor, newest: torch.Tensor, places: torch.Tensor) -> float:
    """r_i: weighted sum over places of the cosine between the channels of two frames.

    With weights of 1 it is SurgSAM-2's sum. With weights of sum 1 it is a mean, which can be compared with a
    limit whatever the object's size.

    Args:
        features: (C, h, w) of ``unit_channels``.
        newest: The same of the other frame.
        places: Weights (h, w) of the places.
    """
    return float(((features * newest).sum(0) * places).sum())


def area_ratio(held: torch.Tensor, newest: torch.Tensor) -> float:
    """Area of the smaller of two masks (h, w) over that of the larger one; 0 where one is empty."""
    smaller, larger = sorted((float(held.sum()), float(newest.sum())))
    return smaller / larger if larger else 0.0


@dataclass
class FramePruning:
    """Follows one object and tells on which frames it looks as in its newest memory.

    Attributes:
        newest: Features (C, h, w) of ``unit_channels`` and share (h, w) of each place that the object holds,
            of the frame whose memory was encoded last; None before the first one.
    """

    newest: tuple[torch.Tensor, torch.Tensor] | None = None

    def spares(self, features: torch.Tensor, logits: torch.Tensor) -> bool:
        """Whether a frame needs no memory of its own; one that does is what the next ones are compared with.

        Args:
            features: (C, h, w) the last map of the image encoder.
            logits: (1, S/4, S/4) mask that was found there; one without the object is never spared.
        """
        unit = unit_channels(features)
        held = F.avg_pool2d((logits > 0).float(), logits.shape[-1] // unit.shape[-1])[0]
        if self.newest is not None:
            before, held_before = self.newest
            same = area_ratio(held, held_before) >= SAME_AREA
            if same and redundancy(unit, before, object_places(held, held_before)) >= REDUNDANT:
                return True
        self.newest = unit, held
        return False
