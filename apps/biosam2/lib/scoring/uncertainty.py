"""Method ``biosam2_uncertainty``: how sure the model is of each image."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monailabel.interfaces.datastore import Datastore
from pydantic import Field

from lib.datastores.label_entries import image_path, is_here, label_entry, labelled, stamp
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.errors import BioSam2Error
from lib.files import write_atomically
from lib.images.reading import read_image
from lib.labels.labelled_slices import LabelledSlice, image_frames, labelled_slices
from lib.labels.reading import read_labels
from lib.metrics.calibration import IDENTITY, Calibration, fit_calibration
from lib.scoring.base import (
    UNUSABLE,
    Scoring,
    ScoringOptions,
    ScoringProgress,
    scores_of,
    weights_key,
    write_info,
)
from lib.scoring.image_scorer import ScorePlan, score_image
from lib.scoring.prompt_sources import GridSource, NearestLabelSource, PromptSource, accepted_pairs
from lib.scoring.signals import combine
from lib.scoring.store import ImageScore, ScoreStore
from lib.settings import Settings
from lib.transforms.sampling import evenly_spaced

logger = logging.getLogger(__name__)

# Labelled slices, each encoded once and compared with every slice; with more images each gives fewer.
MOST_SLICES = 48
MOST_PER_IMAGE = 6
CALIBRATION_FILE = "calibration.json"
# Growth factor of the number of labelled images after which the calibration is fitted again.
GROWTH = 1.5


class References:
    """The labelled images of a datastore, opened on demand."""

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
        grid = GridSource.name
        return f"{NearestLabelSource.name}, {grid}" if any(self._by_image()) else grid

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
        """Calibration of the predicted IoU of some weights, fitted again after many new labels.

        The folder of the scores also holds the calibration; ``weights`` is a ``weights_key``.
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
        chosen = evenly_spaced(len(self._entries), MOST_SLICES)
        for number in chosen:
            share = max(1, min(MOST_PER_IMAGE, MOST_SLICES // len(chosen)))
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


def save_calibration(folder: Path, weights: str, calibration: Calibration) -> None:
    """Stores the calibration of some weights beside the scores."""
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


NAME = "biosam2_uncertainty"
# Version of the signals and their combination: another number invalidates all scores.
_VERSION = 1
_DIGITS = 4
# Images tried for each permitted download, so that an unreachable store is not asked for every image.
TRIES = 5


class UncertaintyOptions(ScoringOptions):
    """Options of ``biosam2_uncertainty``."""

    images: Literal["all", "unlabelled"] = Field(
        "all", description="labelled images come last; their embeddings are used by the diversity strategy"
    )
    max_images: int = Field(0, ge=0, description="images scored in one call, 0: no limit")
    downloads: int = Field(8, ge=0, description="images downloaded from a DICOM store, at most")
    slices: int = Field(6, ge=1, le=64, description="slices visited in each image, at most")
    jitters: int = Field(4, ge=0, le=16, description="jittered boxes around each object, below 2: none")
    seconds_per_image: float = Field(60.0, gt=0, le=3600)

    @property
    def plan(self) -> ScorePlan:
        """Effort spent on an image."""
        return ScorePlan(self.slices, self.jitters, self.seconds_per_image)


class UncertaintyScoring(Scoring[UncertaintyOptions]):
    """Scores new and changed images, and all images after a change of weights or settings.

    Unlabelled images come first. Scores are stored one by one, so that a stopped or killed scoring continues
    at the next call.
    """

    def __init__(self, settings: Settings, pool: PredictorPool):
        description = "Model uncertainty of each image, 0 (sure) to 1 (unsure)"
        super().__init__(NAME, description, settings, pool, UncertaintyOptions)

    def score(self, options: UncertaintyOptions, datastore: Datastore, pool: PredictorPool) -> dict[str, Any]:
        """Scores the images of a datastore."""
        progress = ScoringProgress(NAME, options.limit_s)
        run = ScoringRun(self._settings, pool, options, datastore)
        queue = ImageQueue.of(datastore, options)
        for number, image_id in enumerate(progress.over(queue.images, options.max_images)):
            if image_id in queue.remote and queue.downloaded(datastore) >= options.downloads:
                continue
            try:
                score, is_new = run.update(image_id)
            except UNUSABLE as error:
                progress.failure(image_id, error)
                continue
            if is_new:
                progress.scored(image_id, f"{score.score:.3f}", len(queue.images) - number - 1)
            else:
                progress.unchanged += 1
        run.recalibrate(queue.images)
        return {**progress.summary(), "weights": run.weights.name}

    def one_by_one(self, options: UncertaintyOptions, datastore: Datastore) -> ScoringRun:
        """A run whose images come one by one, also to other processes; the caller holds ``alone``."""
        return ScoringRun(self._settings, self._pool, options, datastore)


@dataclass(frozen=True)
class ImageQueue:
    """Images to score in their order.

    Attributes:
        images: Ids: unlabelled local images, a sample of the remote ones, labelled local images.
        remote: Ids of the remote images among them, which have to be downloaded.
    """

    images: list[str]
    remote: frozenset[str]

    @classmethod
    def of(cls, datastore: Datastore, options: UncertaintyOptions) -> ImageQueue:
        """Reads the queue from a datastore. Remote images are sampled at random.

        Each call tries others, so that images that cannot be downloaded do not block the rest.
        """
        images = sorted(datastore.list_images())
        local = [image_id for image_id in images if is_here(datastore, image_id)]
        have_label = {image_id for image_id in local if label_entry(datastore, image_id) is not None}
        remote = sorted(set(datastore.get_unlabeled_images()) - set(local))
        np.random.default_rng().shuffle(remote)
        remote = remote[: options.downloads * TRIES]
        unlabelled = [image_id for image_id in local if image_id not in have_label]
        labelled = [image_id for image_id in local if image_id in have_label and options.images == "all"]
        return cls([*unlabelled, *remote, *labelled], frozenset(remote))

    def downloaded(self, datastore: Datastore) -> int:
        """Number of the remote images that are on this machine now."""
        return sum(is_here(datastore, image_id) for image_id in self.remote)


class ScoringRun:
    """One call: the weights in service and the labelled images."""

    def __init__(
        self, settings: Settings, pool: PredictorPool, options: UncertaintyOptions, datastore: Datastore
    ):
        self._predictor, self.weights = pool.served(options.device)
        self._max_voxels = settings.max_voxels
        self._give_way = pool.priority.give_way
        self._options = options
        self._datastore = datastore
        self._folder = scores_of(datastore, pool.registry.folder)
        self._store = ScoreStore(self._folder)
        self._references = References(datastore, settings.max_voxels)
        self._key = weights_key(self.weights, self._predictor)
        self._kind = f"{_VERSION}: {self._key}, {options.plan.name}, {self._references.kind}"
        self._calibration = load_calibration(self._folder, self._key)
        self._is_calibrated = False

    def update(self, image_id: str) -> tuple[ImageScore, bool]:
        """Score of an image, which its info has from now on, and whether it was computed now."""
        score, is_new = self._score(image_id)
        write_info(self._datastore, image_id, {NAME: facts(score)})
        return score, is_new

    def _score(self, image_id: str) -> tuple[ImageScore, bool]:
        path = image_path(self._datastore, image_id)
        now = stamp(path)
        old = None if self._options.again else self._store.get(image_id)
        if old is not None and (old.settings, old.stamp) == (self._kind, now):
            return old, False
        image = read_image(path, self._max_voxels)
        if old is not None and (old.digest, old.settings) == (image.digest, self._kind):
            # The file was written again with equal content.
            same = replace(old, stamp=now)
            self._store.put(image_id, same)
            return same, False
        # Fitted once in a call, and only if an image has to be scored.
        if not self._is_calibrated:
            self._calibration = self._references.calibration(
                self._predictor, self._key, self._folder, self._give_way
            )
            self._is_calibrated = True
        found = score_image(
            self._predictor,
            image_frames(image),
            self._references.sources(),
            self._options.plan,
            self._calibration,
            self._give_way,
        )
        found = replace(found, weights=self.weights.name, settings=self._kind, stamp=now)
        self._store.put(image_id, found)
        return found, True

    def recalibrate(self, images: Iterable[str]) -> None:
        """Combines scores of a former calibration again; their signals stay."""
        for image_id in images:
            old = self._store.get(image_id)
            if old is None or old.settings != self._kind or old.calibration == self._calibration.name:
                continue
            score = combine(old.parts, self._calibration)
            new = replace(old, score=score, calibration=self._calibration.name)
            self._store.put(image_id, new)
            write_info(self._datastore, image_id, {NAME: facts(new)})


def facts(score: ImageScore) -> Mapping[str, Any]:
    """Facts about a score for the image's info."""
    return {
        "score": round(score.score, _DIGITS),
        "parts": {name: round(value, _DIGITS) for name, value in score.parts.items()},
        "slice": score.slice_index,
        "labels": list(score.labels),
        "weights": score.weights,
    }
