"""Labelled images as references for scoring: prompt sources, and the calibration of the predicted IoU."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from monailabel.interfaces.datastore import Datastore

from lib.datastores.label_entries import image_path, labelled
from lib.engine.predictor import Predictor
from lib.errors import BioSam2Error
from lib.files import write_atomically
from lib.images.reading import read_image
from lib.labels.labelled_slices import LabelledSlice, labelled_slices
from lib.labels.reading import read_labels
from lib.metrics.calibration import IDENTITY, Calibration, fit_calibration
from lib.scoring.signals.nearest_labelled import NearestLabelSource, accepted_pairs
from lib.scoring.signals.prompt_sources import GridSource, PromptSource
from lib.transforms.sampling import evenly_spaced

logger = logging.getLogger(__name__)

# Labelled slices, each encoded once and compared with every slice; with more images each gives fewer.
MOST_SLICES = 48
MOST_PER_IMAGE = 6
CALIBRATION_FILE = "calibration.json"
# Growth factor of the number of labelled images after which the calibration is fitted again.
GROWTH = 1.5


class References:
    """The labelled images of a datastore, opened on demand.

    Args:
        datastore: The app's datastore.
        max_voxels: Limit of voxels in an image.
    """

    def __init__(self, datastore: Datastore, max_voxels: int):
        self._datastore = datastore
        self._max_voxels = max_voxels
        self._entries = list(labelled(datastore))
        self._opened: dict[int, list[LabelledSlice]] = {}
        self._sources: list[PromptSource] | None = None

    @property
    def kind(self) -> str:
        """Identifies the prompt sources, since scores of different sources are not comparable.

        Images are opened until one has a slice with an object: empty labels are no references.
        """
        grid = GridSource().name
        return f"{NearestLabelSource.name_for()}, {grid}" if any(self._by_image()) else grid

    def sources(self) -> list[PromptSource]:
        """Prompt sources for unlabelled images, preferred one first."""
        if self._sources is None:
            slices = self.slices()
            self._sources = [NearestLabelSource(slices), GridSource()] if slices else [GridSource()]
        return self._sources

    def slices(self) -> list[LabelledSlice]:
        """Evenly spaced labelled slices of evenly spaced labelled images."""
        return list(chain.from_iterable(self._by_image()))

    def calibration(
        self, predictor: Predictor, weights: str, folder: Path, give_way: Callable[[], None]
    ) -> Calibration:
        """Calibration of the predicted IoU, fitted again after many new labels.

        Args:
            predictor: Predictor of the weights in service.
            weights: Key of the weights (``weights_key``).
            folder: Folder of the scores, which also holds the calibration.
            give_way: Called between steps; returns once no interactive request runs.
        """
        known = load_calibration(folder, weights)
        count = len(self._entries)
        if count == 0 or count < known.images * GROWTH:
            return known
        pairs = accepted_pairs(predictor, self.slices(), give_way)
        fitted = replace(fit_calibration(*pairs), images=count)
        save_calibration(folder, weights, fitted)
        logger.info("Predicted IoU: %d pairs of %d labelled images", len(pairs[0]), count)
        return fitted

    def _by_image(self) -> Iterator[list[LabelledSlice]]:
        """Slices image by image; each image is opened once, on demand."""
        for number, share in _shares(len(self._entries)):
            if number not in self._opened:
                self._opened[number] = self._read(number, share)
            yield self._opened[number]

    def _read(self, number: int, share: int) -> list[LabelledSlice]:
        image_id, entry = self._entries[number]
        try:
            image = read_image(image_path(self._datastore, image_id), self._max_voxels)
            return labelled_slices(image, read_labels(entry.path, image, entry.label_info), share)
        except BioSam2Error as error:
            logger.warning("Label of %s not used as a reference: %s", image_id, error)
            return []


def _shares(count: int) -> list[tuple[int, int]]:
    """Indices of the images to open, evenly spaced, and the number of slices from each."""
    chosen = evenly_spaced(count, MOST_SLICES)
    return [(number, max(1, min(MOST_PER_IMAGE, MOST_SLICES // len(chosen)))) for number in chosen]


def save_calibration(folder: Path, weights: str, calibration: Calibration) -> None:
    """Stores the calibration of some weights beside the scores.

    Args:
        folder: Folder of the scores.
        weights: Key of the weights.
        calibration: Calibration to store.
    """
    facts = {"weights": weights, **calibration.to_json()}
    write_atomically(folder / CALIBRATION_FILE, json.dumps(facts, allow_nan=False, indent=1).encode())


def load_calibration(folder: Path, weights: str) -> Calibration:
    """Stored calibration of some weights; the identity if there is none."""
    try:
        facts = json.loads((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
        return Calibration.from_json(facts) if facts["weights"] == weights else IDENTITY
    except FileNotFoundError:
        return IDENTITY
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("Calibration ignored, since it cannot be read: %s", error)
        return IDENTITY
