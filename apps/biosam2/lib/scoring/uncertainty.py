"""``biosam2_uncertainty``: how sure the model is of each image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from monailabel.interfaces.datastore import Datastore

from lib.engine.predictor_pool import PredictorPool
from lib.images.reading import read_image
from lib.scoring.base import Scoring
from lib.scoring.downloads import downloaded, to_try
from lib.scoring.fingerprints import image_path, is_here, label_entry, scores_of, stamp, weights_key
from lib.scoring.image_info import write_info
from lib.scoring.options import UncertaintyOptions
from lib.scoring.progress import UNUSABLE, Progress
from lib.scoring.references import References
from lib.scoring.signals.aggregate import combine
from lib.scoring.signals.calibration import load_calibration
from lib.scoring.signals.labelled import image_frames
from lib.scoring.signals.scorer import score_image
from lib.scoring.store import ImageScore, ScoreStore
from lib.settings import Settings

logger = logging.getLogger(__name__)

NAME = "biosam2_uncertainty"
# Of the signals and how they are combined: another number makes all scores anew.
_VERSION = 1
_DIGITS = 4


class UncertaintyScoring(Scoring[UncertaintyOptions]):
    """Scores images that are new, that have changed, or that were scored with other weights or settings.

    Images without a label come first. A score is kept as soon as it is made, so that a scoring which is
    stopped, by its limits or by a kill, goes on at the next call.

    Args:
        settings: of the app.
        engines: which weights are in service, and the folder of their scores.
    """

    def __init__(self, settings: Settings, engines: PredictorPool):
        super().__init__(
            NAME, "How sure the model is of each image, 0 (sure) to 1", settings, engines, UncertaintyOptions
        )

    def score(
        self, options: UncertaintyOptions, datastore: Datastore, engines: PredictorPool
    ) -> dict[str, Any]:
        """Scores the images of a datastore."""
        progress = Progress(NAME, options.limit_s)
        run = _Run(self._settings, engines, options, datastore)
        images = _in_order(datastore, options)
        away = [image_id for image_id in images if not is_here(datastore, image_id)]
        for number, image_id in enumerate(progress.over(images, options.max_images)):
            if image_id in away and downloaded(datastore, away) >= options.downloads:
                continue
            try:
                score, is_new = run.score(image_id)
            except UNUSABLE as error:
                progress.failure(image_id, error)
                continue
            write_info(datastore, image_id, {NAME: facts(score)})
            if is_new:
                progress.scored(image_id, f"{score.score:.3f}", len(images) - number - 1)
            else:
                progress.unchanged += 1
        for image_id, score in run.recalibrated(images):
            write_info(datastore, image_id, {NAME: facts(score)})
        return {**progress.summary(), "weights": run.weights.name}


class _Run:
    """One call: the weights, and what is known of the labels.

    Args:
        settings: of the app.
        engines: whose weights score; they are loaded now.
        options: of the request.
        datastore: of the images.
    """

    def __init__(
        self, settings: Settings, engines: PredictorPool, options: UncertaintyOptions, datastore: Datastore
    ):
        self._predictor, self.weights = engines.served(options.device)
        self._max_voxels = settings.max_voxels
        self._give_way = engines.priority.give_way
        self._options = options
        self._datastore = datastore
        self._folder = scores_of(datastore, engines.registry.folder)
        self._store = ScoreStore(self._folder)
        self._references = References(datastore, settings.max_voxels)
        self._key = weights_key(self.weights, self._predictor)
        self._kind = f"{_VERSION}: {self._key}, {options.plan.name}, {self._references.kind}"
        self._calibration = load_calibration(self._folder, self._key)
        self._is_calibrated = False

    def score(self, image_id: str) -> tuple[ImageScore, bool]:
        """The score of an image, and whether it was made now."""
        path = image_path(self._datastore, image_id)
        now = stamp(path)
        old = None if self._options.again else self._store.get(image_id)
        if old is not None and (old.settings, old.stamp) == (self._kind, now):
            return old, False
        image = read_image(path, self._max_voxels)
        if old is not None and old.is_of(image.digest, self._kind):
            # The file was written again with the same content.
            same = replace(old, stamp=now)
            self._store.put(image_id, same)
            return same, False
        self._calibrate()
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

    def _calibrate(self) -> None:
        """Once in a call, and only where something has to be scored anyway."""
        if not self._is_calibrated:
            self._calibration = self._references.calibration(
                self._predictor, self._key, self._folder, self._give_way
            )
            self._is_calibrated = True

    def recalibrated(self, images: Sequence[str]) -> Iterator[tuple[str, ImageScore]]:
        """Combines those scores anew that were made before the calibration was; their parts stay."""
        for image_id in images:
            old = self._store.get(image_id)
            if old is None or old.settings != self._kind or old.calibration == self._calibration.name:
                continue
            score = combine(old.parts, self._calibration)
            new = replace(old, score=score, calibration=self._calibration.name)
            self._store.put(image_id, new)
            yield image_id, new


def facts(score: ImageScore) -> Mapping[str, Any]:
    """What an image's info says of its score."""
    return {
        "score": round(score.score, _DIGITS),
        "parts": {name: round(value, _DIGITS) for name, value in score.parts.items()},
        "slice": score.slice_index,
        "labels": list(score.labels),
        "weights": score.weights,
    }


def _in_order(datastore: Datastore, options: UncertaintyOptions) -> list[str]:
    """Images without a final label first, and few that have to be downloaded."""
    images = sorted(datastore.list_images())
    here = [image_id for image_id in images if is_here(datastore, image_id)]
    have = {image_id for image_id in here if label_entry(datastore, image_id) is not None}
    waiting = [image_id for image_id in here if image_id not in have]
    scored = [image_id for image_id in here if image_id in have and options.images == "all"]
    return [*waiting, *to_try(datastore, options.downloads), *scored]
