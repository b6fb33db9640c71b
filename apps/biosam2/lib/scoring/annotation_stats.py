"""Method ``annotation_stats``: accepted labels by class and annotator, with working time."""

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

from lib.datastores.label_entries import LabelEntry, image_path, stamp
from lib.engine.predictor_pool import PredictorPool
from lib.files import write_atomically
from lib.images.reading import read_image
from lib.labels.reading import read_labels
from lib.labels.values import annotator_of
from lib.scoring.base import Scoring, ScoringOptions, ScoringProgress, read_info, scores_of
from lib.settings import Settings

logger = logging.getLogger(__name__)

NAME = "annotation_stats"
STATS_FILE = "annotation_stats.json"
# Longest plausible working time for one image; longer ones include a break.
LONGEST_S = 2 * 3600


@dataclass(frozen=True)
class LabelStats:
    """Statistics of one final label.

    Attributes:
        voxels: Voxel count by class.
        annotator: Name of the annotator; empty if unknown.
        saved: Time of saving in seconds since 1970; 0 if unknown.
        seconds: Working time; None if unknown or implausible.
    """

    voxels: Mapping[str, int]
    annotator: str
    saved: int
    seconds: int | None


class AnnotationStats(Scoring[ScoringOptions]):
    """Counts final labels by class and annotator, with working time.

    The numbers of each image go into its info, the totals into ``annotation_stats.json`` beside the scores.
    """

    def __init__(self, settings: Settings, pool: PredictorPool):
        description = "Accepted labels: classes, voxels, annotators, working time"
        super().__init__(NAME, description, settings, pool, ScoringOptions)

    def score(self, options: ScoringOptions, datastore: Datastore, pool: PredictorPool) -> dict[str, Any]:
        """Counts new and changed labels, and computes the totals."""
        progress = ScoringProgress(NAME, options.limit_s)
        images = self.visit_labelled(
            datastore,
            progress,
            partial(self._count, options.again, datastore),
            lambda told: f"{len(told[NAME]['voxels'])} classes",
        )
        known = [_known(read_info(datastore, image_id)) for image_id in images]
        found = totals([item for item in known if item is not None], len(datastore.list_images()))
        path = scores_of(datastore, pool.registry.folder) / STATS_FILE
        write_atomically(path, json.dumps(found, allow_nan=False, indent=1).encode())
        return {**progress.summary(), **found}

    def _count(
        self, again: bool, datastore: Datastore, image_id: str, entry: LabelEntry
    ) -> dict[str, Any] | None:
        """New facts for the image's info; None if it is up to date."""
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


def totals(annotations: Iterable[LabelStats], images: int) -> dict[str, Any]:
    """Totals of all final labels as plain JSON; ``images`` counts labelled and unlabelled images."""
    listed = list(annotations)
    labels: dict[str, dict[str, int]] = {}
    people: dict[str, list[LabelStats]] = {}
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
    """Seconds from the assignment of an image to its label, saved by an annotator (seconds since 1970).

    MONAI Label records in the image's info to whom a strategy assigned it, and when. None if it was not
    assigned, assigned to someone else, or too long ago.
    """
    given = info.get("strategy")
    moments = [
        _whole(item.get("ts"))
        for item in (given.values() if isinstance(given, dict) else ())
        if isinstance(item, dict) and annotator_of(item) in ("", annotator)
    ]
    taken = [saved - moment for moment in moments if moment and 0 <= saved - moment <= LONGEST_S]
    return min(taken) if taken else None


def _work(annotations: list[LabelStats]) -> dict[str, Any]:
    times = [item.seconds for item in annotations if item.seconds is not None]
    return {
        "count": len(annotations),
        "seconds_each": round(median(times)) if times else None,
        "seconds": sum(times),
    }


def _known(info: Mapping[str, Any]) -> LabelStats | None:
    told = info.get(NAME)
    if not isinstance(told, dict):
        return None
    return LabelStats(told["voxels"], told["annotator"], told["saved"], told["seconds"])


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0
