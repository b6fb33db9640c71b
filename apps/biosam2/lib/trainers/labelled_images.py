"""The labelled images of a training: opened, split into sides, and recorded."""

from __future__ import annotations

import logging
from typing import Any

from tqdm import tqdm

from lib.errors import BioSam2Error
from lib.trainers.config import TrainingPlan
from lib.trainers.frames import LabelledFrames, Side, prepare_frames, split
from lib.trainers.progress import TrainingProgress

logger = logging.getLogger(__name__)


def open_images(
    plan: TrainingPlan, progress: TrainingProgress
) -> tuple[list[LabelledFrames], dict[str, Side], list[dict[str, str]]]:
    """Usable images, their sides, and unusable images with the reason."""
    images, left_out = [], []
    for labelled in tqdm(plan.images, desc="Reading labelled images", disable=None):
        try:
            images.append(prepare_frames(labelled, plan.frames_folder, plan.max_voxels))
        except BioSam2Error as error:
            logger.warning("Image %s left out of the training: %s", labelled.id, error)
            left_out.append({"image": labelled.id, "reason": str(error)})
    sides = split((image.id for image in images), plan.options.val_split, plan.split_record)
    counts = {side: list(sides.values()).count(side) for side in ("train", "val")}
    progress.note(
        f"learning from {counts['train']} images, measuring on {counts['val']}, {len(left_out)} left out",
        images=counts,
        left_out=left_out,
    )
    return images, sides, left_out


def image_records(
    images: list[LabelledFrames], sides: dict[str, Side], left_out: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Entries of the version's record, one for each image."""
    used = [
        {
            "image": image.id,
            "side": sides[image.id],
            "frames": len(image),
            "labels": sorted(set(image.names.values())),
        }
        for image in images
    ]
    return used + [{**item, "side": "left out"} for item in left_out]
