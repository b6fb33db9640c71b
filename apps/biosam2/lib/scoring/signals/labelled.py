"""Slices that people labelled, taken from an image and its label: what a scoring can start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.engine.predictor import Predictor
from lib.images.medical_image import MedicalImage
from lib.labels.label_map import LabelMap
from lib.metrics.overlap import jaccard
from lib.prompts.simulation import jittered_box
from lib.prompts.types import FramePrompts
from lib.scoring.signals.confidence import predicted_iou
from lib.scoring.signals.nearest_labelled import LabelledSlice
from lib.scoring.signals.object_signals import native_mask
from lib.transforms.components import largest_component
from lib.transforms.frames import FrameStack, frame_view

# The slices that viewers show and people label: those of the file's third axis.
AXIS = 2
# Pixels below which a piece of an object is the tip of it, or noise.
LEAST_PIXELS = 12


def image_frames(image: MedicalImage) -> FrameStack:
    """The frames of an image as they are scored."""
    return FrameStack(image.array, AXIS, image.window(), image.digest)


def labelled_slices(image: MedicalImage, labels: LabelMap, most: int) -> list[LabelledSlice]:
    """Slices with objects on them, at even distances over those that have any.

    Args:
        image: that was labelled.
        labels: of it. Objects of one class are one mask.
        most: slices.
    """
    frames = image_frames(image)
    held = [index for index in range(len(frames)) if (frame_view(labels.array, AXIS, index) != 0).any()]
    chosen = np.linspace(0, len(held) - 1, most + 2)[1:-1] if len(held) > most else np.arange(len(held))
    slices = []
    for place in chosen.round().astype(int).tolist():
        masks = class_masks(frame_view(labels.array, AXIS, held[place]), labels.names)
        if masks:
            slices.append(LabelledSlice(image.digest, held[place], frames[held[place]], masks))
    return slices


def class_masks(values: NDArray, names: dict[int, str]) -> dict[str, NDArray[np.bool_]]:
    """The mask (H, W) of each class on a slice of a label map, of those that are large enough to see.

    Args:
        values: (H, W) of the label map.
        names: label value to class name.
    """
    by_name: dict[str, list[int]] = {}
    for value in np.unique(values[values != 0]).tolist():
        by_name.setdefault(names.get(value, str(value)), []).append(value)
    masks = {name: np.isin(values, own) for name, own in sorted(by_name.items())}
    return {name: mask for name, mask in masks.items() if np.count_nonzero(mask) >= LEAST_PIXELS}


def accepted_pairs(
    predictor: Predictor, slices: Sequence[LabelledSlice], give_way: Callable[[], None] = lambda: None
) -> tuple[list[float], list[float]]:
    """Predicted and true IoU of the model's answers to a box around each labelled object's largest piece.

    Args:
        predictor: of the weights in service.
        slices: that people labelled.
        give_way: called between steps.

    Returns:
        The two lists, of one length: what ``fit_calibration`` takes.
    """
    predicted, true = [], []
    for number, item in enumerate(slices):
        for mask in item.masks.values():
            give_way()
            truth = largest_component(mask)
            box = FramePrompts.of_box(jittered_box(truth, np.random.default_rng(number)))
            outputs = predictor.outputs(item, 0, [box])
            predicted.append(predicted_iou(outputs.ious[0]))
            true.append(jaccard(native_mask(outputs.logits[0], item.height, item.width), truth))
    return predicted, true
