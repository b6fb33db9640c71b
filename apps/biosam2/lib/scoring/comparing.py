"""What the model found beside what a person accepted, class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.engine.predictor import Predictor
from lib.images.medical_image import MedicalImage
from lib.labels.label_map import LabelMap
from lib.prompts.simulation import jittered_box
from lib.prompts.types import FramePrompts
from lib.scoring.signals.labelled import LEAST_PIXELS, image_frames, labelled_slices
from lib.scoring.signals.object_signals import largest_pieces

Mask = NDArray[np.bool_]

# Slices of an image on which the model is asked, where no answer of its own was kept.
MOST_SLICES = 8
# Pieces of one class on a slice, the largest: a picture can have hundreds.
MOST_PIECES = 3


@dataclass(frozen=True, eq=False)
class Pair:
    """One class, or one piece of it, as the model found it and as a person accepted it.

    Attributes:
        label: the class.
        found: by the model, (I, J, K) or (H, W).
        accepted: by the person, of the same shape.
        spacing: mm along each axis of the two.
    """

    label: str
    found: Mask
    accepted: Mask
    spacing: tuple[float, ...]


def kept_pairs(image: MedicalImage, original: LabelMap, final: LabelMap) -> Iterator[Pair]:
    """The whole volume of each class in the label that the model made and in the one that was accepted.

    Classes are matched by name. Where both have objects and no name is in both, as when the model called an
    object something else, all that is labelled is one class.

    Args:
        image: of both.
        original: by the model.
        final: by the person.
    """
    names = sorted({*original.names.values(), *final.names.values()})
    shared = set(original.names.values()) & set(final.names.values())
    by_name = shared or not original.names or not final.names
    for name in names if by_name else ():
        yield _pair(name, _class(original, name), _class(final, name), image)
    if not by_name:
        label = ", ".join(sorted(set(final.names.values())))
        yield _pair(label, original.array != 0, final.array != 0, image)


def asked_pairs(
    predictor: Predictor, image: MedicalImage, final: LabelMap, give_way: Callable[[], None]
) -> Iterator[Pair]:
    """The model's answers on some slices to a box around each piece of each class, drawn as a hand would.

    Args:
        predictor: of the weights in service.
        image: that was labelled.
        final: by the person.
        give_way: called between steps.
    """
    frames = image_frames(image)
    along_x, along_y, _ = spacing_of(image)
    for item in labelled_slices(image, final, MOST_SLICES):
        for number, (name, accepted) in enumerate(item.masks.items()):
            rng = np.random.default_rng([item.index, number])
            for piece in largest_pieces(accepted, MOST_PIECES):
                if np.count_nonzero(piece) < LEAST_PIXELS:
                    break
                give_way()
                box = FramePrompts.of_box(jittered_box(piece, rng))
                found = predictor.segment(frames, item.index, box).mask
                yield Pair(name, found, piece, (along_y, along_x))


def spacing_of(image: MedicalImage) -> tuple[float, float, float]:
    """Millimetres between voxels along i, j and k; of a picture 1, for its pixels have no size."""
    if image.is_2d:
        return 1.0, 1.0, 1.0
    i, j, k = np.linalg.norm(image.affine[:3, :3], axis=0).tolist()
    return i, j, k


def _pair(label: str, found: Mask, accepted: Mask, image: MedicalImage) -> Pair:
    """Of the whole image; a picture has no third axis."""
    if image.is_2d:
        return Pair(label, found[:, :, 0], accepted[:, :, 0], spacing_of(image)[:2])
    return Pair(label, found, accepted, spacing_of(image))


def _class(labels: LabelMap, name: str) -> Mask:
    values = [value for value, own in labels.names.items() if own == name]
    mask: Mask = np.isin(labels.array, values)
    return mask
