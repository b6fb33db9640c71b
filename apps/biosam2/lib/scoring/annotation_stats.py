"""``annotation_stats``: what people have labelled so far, who, and in what time."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore

from lib.engine.predictor_pool import PredictorPool
from lib.files import write_atomically
from lib.images.reading import read_image
from lib.labels.annotators import annotator_of
from lib.labels.reading import read_labels
from lib.scoring.base import Scoring
from lib.scoring.fingerprints import LabelEntry, image_path, scores_of, stamp
from lib.scoring.image_info import read_info
from lib.scoring.options import ScoringOptions
from lib.scoring.progress import Progress
from lib.scoring.visiting import visit_labelled
from lib.settings import Settings

logger = logging.getLogger(__name__)

NAME = "annotation_stats"
STATS_FILE = "annotation_stats.json"
# Who has an image open for longer has gone home in between.
LONGEST_S = 2 * 3600


@dataclass(frozen=True)
class Annotation:
    """One final label.

    Attributes:
        voxels: by class.
        annotator: who saved it; empty where that is not known.
        saved: seconds since 1970; 0 where it is not known.
        seconds: from the next sample to the label; None where that is not known or cannot be.
    """

    voxels: Mapping[str, int]
    annotator: str
    saved: int
    seconds: int | None


class AnnotationStats(Scoring[ScoringOptions]):
    """Counts final labels: by class, by annotator, with the time they took.

    Each image's info gets its own numbers, and ``annotation_stats.json`` beside the scores the totals.

    Args:
        settings: of the app.
        engines: the folder of the scores.
    """

    def __init__(self, settings: Settings, engines: PredictorPool):
        description = "What people have labelled: classes, voxels, annotators, time"
        super().__init__(NAME, description, settings, engines, ScoringOptions)

    def score(self, options: ScoringOptions, datastore: Datastore, engines: PredictorPool) -> dict[str, Any]:
        """Counts the labels that are new or were saved again, and sums up all."""
        progress = Progress(NAME, options.limit_s)
        images = visit_labelled(
            datastore,
            progress,
            partial(self._count, options.again, datastore),
            lambda told: f"{len(told[NAME]['voxels'])} classes",
        )
        known = [_known(read_info(datastore, image_id)) for image_id in images]
        found = totals([item for item in known if item is not None], len(datastore.list_images()))
        path = scores_of(datastore, engines.registry.folder) / STATS_FILE
        write_atomically(path, json.dumps(found, allow_nan=False, indent=1).encode())
        return {**progress.summary(), **found}

    def _count(
        self, again: bool, datastore: Datastore, image_id: str, entry: LabelEntry
    ) -> dict[str, Any] | None:
        """What an image's info is to say; None where it says so already."""
        info = read_info(datastore, image_id)
        state = stamp(entry.path)
        known = info.get(NAME)
        if not again and isinstance(known, dict) and known.get("state") == state:
            return None
        image = read_image(image_path(datastore, image_id), self._settings.max_voxels)
        labels = read_labels(entry.path, image, entry.label_info)
        counts = np.bincount(labels.array.ravel(order="K"))
        voxels: Counter[str] = Counter()
        for value, name in labels.names.items():
            voxels[name] += int(counts[value])
        annotator, saved = annotator_of(entry.info), _whole(entry.info.get("ts"))
        return {
            NAME: {
                "voxels": dict(sorted(voxels.items())),
                "annotator": annotator,
                "saved": saved,
                "seconds": seconds_worked(info, annotator, saved),
                "state": state,
            }
        }


def totals(annotations: Iterable[Annotation], images: int) -> dict[str, Any]:
    """The sums, in plain JSON.

    Args:
        annotations: of every labelled image.
        images: in the datastore, with a label or without.
    """
    listed = list(annotations)
    labels: dict[str, dict[str, int]] = {}
    people: dict[str, list[Annotation]] = {}
    for item in listed:
        people.setdefault(item.annotator, []).append(item)
        for name, voxels in item.voxels.items():
            counted = labels.setdefault(name, {"images": 0, "voxels": 0})
            counted["images"] += 1
            counted["voxels"] += voxels
    return {
        "images": images,
        "labelled": len(listed),
        "labels": dict(sorted(labels.items())),
        "annotators": {name: _work(own) for name, own in sorted(people.items())},
        "everybody": _work(listed),
    }


def seconds_worked(info: Mapping[str, Any], annotator: str, saved: int) -> int | None:
    """From the moment that an image was handed out until its label was saved.

    Args:
        info: of the image: MONAI Label notes there whom a strategy gave it to, and when.
        annotator: who saved the label.
        saved: when, in seconds since 1970.

    Returns:
        None where nobody was given the image before, or somebody else, or too long ago.
    """
    given = info.get("strategy")
    moments = [
        _whole(item.get("ts"))
        for item in (given.values() if isinstance(given, dict) else ())
        if isinstance(item, dict) and annotator_of(item) in ("", annotator)
    ]
    taken = [saved - moment for moment in moments if moment and 0 <= saved - moment <= LONGEST_S]
    return min(taken) if taken else None


def _work(annotations: list[Annotation]) -> dict[str, Any]:
    times = [item.seconds for item in annotations if item.seconds is not None]
    return {
        "count": len(annotations),
        "seconds_each": round(median(times)) if times else None,
        "seconds": sum(times),
    }


def _known(info: Mapping[str, Any]) -> Annotation | None:
    told = info.get(NAME)
    if not isinstance(told, dict):
        return None
    return Annotation(told["voxels"], told["annotator"], told["saved"], told["seconds"])


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0
