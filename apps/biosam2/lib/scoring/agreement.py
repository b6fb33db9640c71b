"""Methods ``dice`` and ``nsd``: agreement of the model's answers with the labels that people accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from numpy.typing import NDArray
from pydantic import Field

from lib.datastores.label_entries import ORIGINAL, LabelEntry, image_path, label_entry, stamp
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image
from lib.labels.labelled_slices import LEAST_PIXELS, image_frames, labelled_slices
from lib.labels.reading import read_labels
from lib.labels.values import LabelMap
from lib.metrics.segmentation import dice, normalized_surface_dice
from lib.prompts.simulation import jittered_box
from lib.prompts.types import FramePrompts
from lib.scoring.base import Scoring, ScoringOptions, ScoringProgress, read_info, weights_key
from lib.scoring.signals import largest_pieces
from lib.settings import Settings
from lib.transforms.frames import spacing

Mask = NDArray[np.bool_]

DICE, NSD = "dice", "nsd"
# Slices of an image on which the model is asked if its own answer was not kept.
MOST_SLICES = 8
# Largest components of one class on a slice: a picture can have hundreds.
MOST_PIECES = 3
_VERSION = 1
_DIGITS = 4


class SurfaceOptions(ScoringOptions):
    """Options of methods with a surface measure."""

    tolerance_mm: float = Field(
        2.0, ge=0, le=1000, description="accepted distance of the surfaces; pixels in pictures"
    )


@dataclass(frozen=True, eq=False)
class MaskPair:
    """One class, or one component of it, as found by the model and as accepted by a person.

    The masks are (I, J, K) or (H, W), with their voxel spacing in mm.
    """

    label: str
    found: Mask
    accepted: Mask
    spacing: tuple[float, ...]

    def agreement(self, measure: str, tolerance_mm: float) -> float:
        """Dice, or the share of the surface that nobody had to move: 0 (disjoint) to 1 (equal)."""
        if measure == DICE:
            return dice(self.found, self.accepted)
        return normalized_surface_dice(self.found, self.accepted, self.spacing, tolerance_mm)


class AgreementScoring(Scoring[ScoringOptions]):
    """Compares final labels with the model's answers; unchanged pairs are skipped.

    The model's answer is the label tagged ``original``. Without one, the model in service is asked with boxes
    around the accepted objects.
    """

    def __init__(
        self, name: str, description: str, measures: Sequence[str], settings: Settings, pool: PredictorPool
    ):
        super().__init__(
            name, description, settings, pool, SurfaceOptions if NSD in measures else ScoringOptions
        )
        self._measures = measures

    def score(self, options: ScoringOptions, datastore: Datastore, pool: PredictorPool) -> dict[str, Any]:
        """Scores the images with a final label."""
        progress = ScoringProgress(self.name, options.limit_s)
        look = partial(self._compare, options, datastore, pool)
        images = self.visit_labelled(datastore, progress, look, _summary)
        found = progress.summary()
        return {**found, **{name: _overall(name, datastore, images) for name in self._measures}}

    def _compare(
        self,
        options: ScoringOptions,
        datastore: Datastore,
        pool: PredictorPool,
        image_id: str,
        final: LabelEntry,
    ) -> Mapping[str, Any] | None:
        """New facts for the image's info; None if it is up to date."""
        path = image_path(datastore, image_id)
        original = label_entry(datastore, image_id, ORIGINAL)
        against, key = "original", stamp(original.path) if original else ""
        if original is None:
            # Loaded on demand: the comparison of two labels needs no network.
            predictor, weights = pool.served(options.device)
            against, key = "model", weights_key(weights, predictor)
        files = f"{_VERSION}: {stamp(path)}, {stamp(final.path)}, {key}"
        tolerance = options.tolerance_mm if isinstance(options, SurfaceOptions) else 0.0
        states = {DICE: f"{files}, ", NSD: f"{files}, {tolerance} mm"}
        info = read_info(datastore, image_id)
        stale = [
            name
            for name in self._measures
            if options.again or _state(info.get(_details(name))) != states[name]
        ]
        if not stale:
            return None
        image = read_image(path, self._settings.max_voxels)
        labels = read_labels(final.path, image, final.label_info)
        if original is not None:
            pairs = kept_pairs(image, read_labels(original.path, image, original.label_info), labels)
        else:
            pairs = asked_pairs(predictor, image, labels, pool.priority.give_way)
        # Two empty labels agree; a model that was not asked has no answer.
        empty = 1.0 if original is not None else None
        told: dict[str, Any] = {}
        for name, by_label in _by_label(pairs, stale, tolerance).items():
            told[name] = _mean(list(by_label.values())) if by_label else empty
            told[_details(name)] = {"by_label": by_label, "against": against, "state": states[name]}
        return told


def kept_pairs(image: MedicalImage, original: LabelMap, final: LabelMap) -> Iterator[MaskPair]:
    """Pairs of whole volumes, one for each class of either label.

    Classes are matched by name. If both labels have objects but share no name, as when the model used another
    name, everything labelled is compared as one class.
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
) -> Iterator[MaskPair]:
    """Pairs from the model's answers on some slices to jittered boxes around components of each class."""
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
                yield MaskPair(name, found, piece, (along_y, along_x))


def spacing_of(image: MedicalImage) -> tuple[float, float, float]:
    """Voxel spacing in mm along i, j and k; 1 for pictures, whose pixels have no size."""
    return (1.0, 1.0, 1.0) if image.is_2d else spacing(image.affine)


def _pair(label: str, found: Mask, accepted: Mask, image: MedicalImage) -> MaskPair:
    """A pair of whole images; pictures lose their third axis."""
    if image.is_2d:
        return MaskPair(label, found[:, :, 0], accepted[:, :, 0], spacing_of(image)[:2])
    return MaskPair(label, found, accepted, spacing_of(image))


def _class(labels: LabelMap, name: str) -> Mask:
    values = [value for value, own in labels.names.items() if own == name]
    mask: Mask = np.isin(labels.array, values)
    return mask


def _by_label(
    pairs: Iterable[MaskPair], measures: Sequence[str], tolerance_mm: float
) -> dict[str, dict[str, float]]:
    """Mean of each measure over the pairs of each class."""
    collected: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
    for pair in pairs:
        for name, values in collected.items():
            values.setdefault(pair.label, []).append(pair.agreement(name, tolerance_mm))
    return {name: {label: _mean(own) for label, own in values.items()} for name, values in collected.items()}


def _overall(measure: str, datastore: Datastore, images: Iterable[str]) -> dict[str, Any]:
    values = [read_info(datastore, image_id).get(measure) for image_id in images]
    known = [value for value in values if isinstance(value, float)]
    return {"images": len(known), **({"mean": _mean(known)} if known else {})}


def _details(measure: str) -> str:
    """Key of a measure's details in the image's info."""
    return f"{measure}_details"


def _state(details: Any) -> Any:
    return details.get("state") if isinstance(details, dict) else None


def _summary(told: Mapping[str, Any]) -> str:
    numbers = [f"{name} {value:.3f}" for name, value in told.items() if isinstance(value, float)]
    return ", ".join(numbers) or "nothing to compare"


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), _DIGITS)
