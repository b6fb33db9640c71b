"""``dice`` and ``nsd``: how much people corrected the model, image by image."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from monailabel.interfaces.datastore import Datastore

from lib.engine.engines import Engines
from lib.images.labels.reading import read_labels
from lib.images.reading import read_image
from lib.metrics.overlap import dice
from lib.metrics.surface import normalized_surface_dice
from lib.scoring.comparing import Pair, asked_pairs, kept_pairs
from lib.scoring.files import ORIGINAL, LabelEntry, image_path, label_entry, stamp, weights_key
from lib.scoring.infos import read_info
from lib.scoring.method import Scoring
from lib.scoring.options import ScoringOptions, SurfaceOptions
from lib.scoring.progress import Progress
from lib.scoring.visiting import visit_labelled
from lib.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=ScoringOptions)

DICE, NSD = "dice", "nsd"
_VERSION = 1
_DIGITS = 4


class AgreementScoring(Scoring[T]):
    """Compares the final label of each image with what the model found, where either has changed.

    The model's answer is the label tagged ``original``; where there is none, the model in service is asked
    with boxes around what the person labelled.
    """

    def score(self, options: T, datastore: Datastore, engines: Engines) -> dict[str, Any]:
        """Scores the images that have a final label."""
        progress = Progress(self.name, options.limit_s)
        images = visit_labelled(
            datastore,
            progress,
            partial(self._score_image, options, datastore, engines),
            lambda told: f"{told[self.name]:.3f}",
        )
        values = [read_info(datastore, image_id).get(self.name) for image_id in images]
        known = [value for value in values if isinstance(value, float)]
        mean = {"mean": round(float(np.mean(known)), _DIGITS)} if known else {}
        return {**progress.summary(), "images": len(known), **mean}

    @abstractmethod
    def compare(self, pair: Pair, options: T) -> float:
        """How well two masks agree, 0 to 1."""

    @abstractmethod
    def settings_of(self, options: T) -> str:
        """What, beside the two labels, the result depends on."""

    def _score_image(
        self, options: T, datastore: Datastore, engines: Engines, image_id: str, final: LabelEntry
    ) -> Mapping[str, Any] | None:
        """What the image's info is to say; None where it says so already."""
        path = image_path(datastore, image_id)
        original = label_entry(datastore, image_id, ORIGINAL)
        against, key = "original", stamp(original.path) if original else ""
        if original is None:
            # Loaded only where it is needed: the comparison of two labels needs no network.
            predictor = engines.get(options.device)
            against, key = "model", weights_key(engines.weights(options.device), predictor)
        state = f"{_VERSION}: {stamp(path)}, {stamp(final.path)}, {key}, {self.settings_of(options)}"
        details = read_info(datastore, image_id).get(f"{self.name}_details")
        known = details.get("state") if isinstance(details, dict) else None
        if known == state and not options.again:
            return None
        image = read_image(path, self._settings.max_voxels)
        labels = read_labels(final.path, image, final.label_info)
        if original is not None:
            found = read_labels(original.path, image, original.label_info)
            by_label = self._by_label(kept_pairs(image, found, labels), options)
        else:
            give_way = engines.courtesy.give_way
            by_label = self._by_label(asked_pairs(predictor, image, labels, give_way), options)
        return {
            self.name: round(float(np.mean(list(by_label.values()))) if by_label else 1.0, _DIGITS),
            f"{self.name}_details": {"by_label": by_label, "against": against, "state": state},
        }

    def _by_label(self, pairs: Iterable[Pair], options: T) -> dict[str, float]:
        collected: dict[str, list[float]] = {}
        for pair in pairs:
            collected.setdefault(pair.label, []).append(self.compare(pair, options))
        return {label: round(float(np.mean(values)), _DIGITS) for label, values in collected.items()}


class DiceScoring(AgreementScoring[ScoringOptions]):
    """Dice of the model's answer with the accepted label; 1 is nothing corrected.

    Args:
        settings: of the app.
        engines: which weights are in service.
    """

    def __init__(self, settings: Settings, engines: Engines):
        description = "Dice of the model's answer with the accepted label"
        super().__init__(DICE, description, settings, engines, ScoringOptions)

    def compare(self, pair: Pair, options: ScoringOptions) -> float:
        """Dice of the two masks."""
        return dice(pair.found, pair.accepted)

    def settings_of(self, options: ScoringOptions) -> str:
        """Nothing."""
        return ""


class NsdScoring(AgreementScoring[SurfaceOptions]):
    """Normalized surface Dice of the same two: the share of the outline that nobody had to move.

    Args:
        settings: of the app.
        engines: which weights are in service.
    """

    def __init__(self, settings: Settings, engines: Engines):
        description = "Normalized surface Dice of the model's answer with the accepted label"
        super().__init__(NSD, description, settings, engines, SurfaceOptions)

    def compare(self, pair: Pair, options: SurfaceOptions) -> float:
        """Normalized surface Dice of the two masks."""
        return normalized_surface_dice(pair.found, pair.accepted, pair.spacing, options.tolerance_mm)

    def settings_of(self, options: SurfaceOptions) -> str:
        """The tolerance."""
        return f"{options.tolerance_mm} mm"
