"""``dice`` and ``nsd``: how much people corrected the model, image by image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from monailabel.interfaces.datastore import Datastore

from lib.engine.predictor_pool import PredictorPool
from lib.images.reading import read_image
from lib.labels.reading import read_labels
from lib.metrics.overlap import dice
from lib.metrics.surface import normalized_surface_dice
from lib.scoring.base import Scoring
from lib.scoring.comparing import Pair, asked_pairs, kept_pairs
from lib.scoring.fingerprints import ORIGINAL, LabelEntry, image_path, label_entry, stamp, weights_key
from lib.scoring.image_info import read_info
from lib.scoring.options import ScoringOptions, SurfaceOptions
from lib.scoring.progress import Progress
from lib.scoring.visiting import visit_labelled
from lib.settings import Settings

T = TypeVar("T", bound=ScoringOptions)

DICE, NSD = "dice", "nsd"
_VERSION = 1
_DIGITS = 4


@dataclass(frozen=True)
class Measure:
    """A number that says how well two masks agree.

    Attributes:
        name: of the number in an image's info.
        compare: the two masks of a pair; 0 for nothing in common, 1 for no difference.
        settings: what, beside the two masks, the number depends on.
    """

    name: str
    compare: Callable[[Pair], float]
    settings: str = ""

    @property
    def details(self) -> str:
        """The name of what the image's info says of how the number came about."""
        return f"{self.name}_details"


DICE_MEASURE = Measure(DICE, lambda pair: dice(pair.found, pair.accepted))


def surface_measure(tolerance_mm: float) -> Measure:
    """Normalized surface Dice: the share of the outline that nobody had to move.

    Args:
        tolerance_mm: that a surface may be off; pixels in pictures.
    """
    return Measure(
        NSD,
        lambda pair: normalized_surface_dice(pair.found, pair.accepted, pair.spacing, tolerance_mm),
        f"{tolerance_mm} mm",
    )


class AgreementScoring(Scoring[T]):
    """Compares the final label of each image with what the model found, where either has changed.

    The model's answer is the label tagged ``original``; where there is none, the model in service is asked
    with boxes around what the person labelled.
    """

    def score(self, options: T, datastore: Datastore, engines: PredictorPool) -> dict[str, Any]:
        """Scores the images that have a final label."""
        measures = self.measures(options)
        progress = Progress(self.name, options.limit_s)
        images = visit_labelled(
            datastore, progress, partial(self._score_image, options, measures, datastore, engines), _words
        )
        found = progress.summary()
        return {**found, **{measure.name: _overall(measure, datastore, images) for measure in measures}}

    @abstractmethod
    def measures(self, options: T) -> Sequence[Measure]:
        """The numbers that are written."""

    def _score_image(
        self,
        options: T,
        measures: Sequence[Measure],
        datastore: Datastore,
        engines: PredictorPool,
        image_id: str,
        final: LabelEntry,
    ) -> Mapping[str, Any] | None:
        """What the image's info is to say; None where it says so already."""
        path = image_path(datastore, image_id)
        original = label_entry(datastore, image_id, ORIGINAL)
        against, key = "original", stamp(original.path) if original else ""
        if original is None:
            # Loaded only where it is needed: the comparison of two labels needs no network.
            predictor, weights = engines.served(options.device)
            against, key = "model", weights_key(weights, predictor)
        files = f"{_VERSION}: {stamp(path)}, {stamp(final.path)}, {key}"
        states = {measure.name: f"{files}, {measure.settings}" for measure in measures}
        info = read_info(datastore, image_id)
        stale = [
            measure
            for measure in measures
            if options.again or _state(info.get(measure.details)) != states[measure.name]
        ]
        if not stale:
            return None
        image = read_image(path, self._settings.max_voxels)
        labels = read_labels(final.path, image, final.label_info)
        if original is not None:
            found = read_labels(original.path, image, original.label_info)
            pairs = kept_pairs(image, found, labels)
        else:
            pairs = asked_pairs(predictor, image, labels, engines.priority.give_way)
        # Both agree that there is nothing; of a model that was not asked nobody knows.
        nothing = 1.0 if original is not None else None
        told: dict[str, Any] = {}
        for measure, by_label in _by_label(pairs, stale):
            told[measure.name] = _mean(list(by_label.values())) if by_label else nothing
            details = {"by_label": by_label, "against": against, "state": states[measure.name]}
            told[measure.details] = details
        return told


class DiceScoring(AgreementScoring[ScoringOptions]):
    """Dice of the model's answer with the accepted label; 1 is nothing corrected.

    Args:
        settings: of the app.
        engines: which weights are in service.
    """

    def __init__(self, settings: Settings, engines: PredictorPool):
        description = "Dice of the model's answer with the accepted label"
        super().__init__(DICE, description, settings, engines, ScoringOptions)

    def measures(self, options: ScoringOptions) -> Sequence[Measure]:
        """Dice."""
        return [DICE_MEASURE]


class NsdScoring(AgreementScoring[SurfaceOptions]):
    """Normalized surface Dice of the same two.

    Args:
        settings: of the app.
        engines: which weights are in service.
    """

    def __init__(self, settings: Settings, engines: PredictorPool):
        description = "Normalized surface Dice of the model's answer with the accepted label"
        super().__init__(NSD, description, settings, engines, SurfaceOptions)

    def measures(self, options: SurfaceOptions) -> Sequence[Measure]:
        """Normalized surface Dice."""
        return [surface_measure(options.tolerance_mm)]


class FullAgreement(AgreementScoring[SurfaceOptions]):
    """Both numbers from one look at each image: the model is asked once.

    Args:
        settings: of the app.
        engines: which weights are in service.
    """

    def __init__(self, settings: Settings, engines: PredictorPool):
        description = "How well the model's answer agrees with the accepted label"
        super().__init__("agreement", description, settings, engines, SurfaceOptions)

    def measures(self, options: SurfaceOptions) -> Sequence[Measure]:
        """Dice and normalized surface Dice."""
        return [DICE_MEASURE, surface_measure(options.tolerance_mm)]


def _by_label(pairs: Iterable[Pair], measures: Sequence[Measure]) -> list[tuple[Measure, dict[str, float]]]:
    """The mean of each measure over the pairs of a class."""
    collected: list[dict[str, list[float]]] = [{} for _ in measures]
    for pair in pairs:
        for measure, values in zip(measures, collected, strict=True):
            values.setdefault(pair.label, []).append(measure.compare(pair))
    return [
        (measure, {label: _mean(own) for label, own in values.items()})
        for measure, values in zip(measures, collected, strict=True)
    ]


def _overall(measure: Measure, datastore: Datastore, images: Iterable[str]) -> dict[str, Any]:
    values = [read_info(datastore, image_id).get(measure.name) for image_id in images]
    known = [value for value in values if isinstance(value, float)]
    return {"images": len(known), **({"mean": _mean(known)} if known else {})}


def _state(details: Any) -> Any:
    return details.get("state") if isinstance(details, dict) else None


def _words(told: Mapping[str, Any]) -> str:
    numbers = [f"{name} {value:.3f}" for name, value in told.items() if isinstance(value, float)]
    return ", ".join(numbers) or "nothing to compare"


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), _DIGITS)
