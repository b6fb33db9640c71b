"""What people have labelled so far, as far as a scoring of other images can use it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from monailabel.interfaces.datastore import Datastore

from lib.engine.predictor import Predictor
from lib.errors import BioSam2Error
from lib.images.reading import read_image
from lib.labels.reading import read_labels
from lib.scoring.fingerprints import image_path, labelled
from lib.scoring.signals.calibration import Calibration, fit_calibration, load_calibration, save_calibration
from lib.scoring.signals.grid import GridSource
from lib.scoring.signals.labelled import accepted_pairs, labelled_slices
from lib.scoring.signals.nearest_labelled import LabelledSlice, NearestLabelSource
from lib.scoring.signals.prompt_sources import PromptSource

logger = logging.getLogger(__name__)

# Each is encoded once in a scoring and then compared with every slice; more images give fewer slices each.
MOST_SLICES = 48
MOST_PER_IMAGE = 6
# A calibration is fitted anew when there are so many times as many labelled images as it knows.
GROWTH = 1.5


class References:
    """The labelled images of a datastore. Those that are needed are opened when they are, and not before.

    Args:
        datastore: whose final labels are taken.
        max_voxels: largest image that is opened.
    """

    def __init__(self, datastore: Datastore, max_voxels: int):
        self._datastore = datastore
        self._max_voxels = max_voxels
        self._entries = list(labelled(datastore))
        self._opened: dict[int, list[LabelledSlice]] = {}
        self._sources: list[PromptSource] | None = None

    @property
    def kind(self) -> str:
        """Which sources there are, for telling scores apart.

        A label in which nothing is drawn is none of them: images are opened until one has a slice to give.
        """
        grid = GridSource().name
        return f"{NearestLabelSource.name_for()}, {grid}" if any(self._by_image()) else grid

    def sources(self) -> list[PromptSource]:
        """Of prompts for images that nobody has prompted, the one to ask first at the front."""
        if self._sources is None:
            slices = self.slices()
            self._sources = [NearestLabelSource(slices), GridSource()] if slices else [GridSource()]
        return self._sources

    def slices(self) -> list[LabelledSlice]:
        """Some labelled slices of some labelled images, spread evenly."""
        return list(chain.from_iterable(self._by_image()))

    def calibration(
        self, predictor: Predictor, weights: str, folder: Path, give_way: Callable[[], None]
    ) -> Calibration:
        """What the predicted IoU of the weights is worth, fitted anew where there are many more labels now.

        Args:
            predictor: of the weights in service.
            weights: what tells them from others.
            folder: of the scores, where the calibration is kept.
            give_way: called between steps.
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
        """The slices of one image after the other. Each is opened once, when its turn comes."""
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
            logger.warning("The label of %s is no help: %s", image_id, error)
            return []


def _shares(count: int) -> list[tuple[int, int]]:
    """Which of so many images are opened, at even distances, and how many slices each gives."""
    if not count:
        return []
    chosen = np.linspace(0, count - 1, min(count, MOST_SLICES)).round().astype(int).tolist()
    return [(number, max(1, min(MOST_PER_IMAGE, MOST_SLICES // len(chosen)))) for number in chosen]
