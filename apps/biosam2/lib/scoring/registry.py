"""All scoring methods by name, and one that runs them together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore

from lib.engine.predictor_pool import PredictorPool
from lib.errors import BioSam2Error
from lib.scoring.agreement import DICE, NSD, AgreementScoring
from lib.scoring.annotation_stats import AnnotationStats
from lib.scoring.background import ALL
from lib.scoring.base import Scoring, ScoringOptions
from lib.scoring.uncertainty import UncertaintyScoring
from lib.settings import Settings

logger = logging.getLogger(__name__)


def all_methods(settings: Settings, pool: PredictorPool) -> dict[str, Scoring[Any]]:
    """Every scoring method by name."""
    stats, uncertainty = AnnotationStats(settings, pool), UncertaintyScoring(settings, pool)
    what = "of the model's answer with the accepted label"
    dice = AgreementScoring(DICE, f"Dice {what}", (DICE,), settings, pool)
    nsd = AgreementScoring(NSD, f"Normalized surface Dice {what}", (NSD,), settings, pool)
    # Both measures from one prediction for each image.
    agreement = AgreementScoring("agreement", f"Dice and surface Dice {what}", (DICE, NSD), settings, pool)
    # Fast methods first.
    everything = AllScoring(settings, pool, [stats, agreement, uncertainty])
    methods: list[Scoring[Any]] = [stats, dice, nsd, uncertainty, everything]
    return {method.name: method for method in methods}


class AllScoring(Scoring[ScoringOptions]):
    """Runs several methods in one process: starting a process takes ten seconds."""

    def __init__(self, settings: Settings, pool: PredictorPool, methods: Sequence[Scoring[Any]]):
        super().__init__(ALL, "All scoring methods, one after the other", settings, pool, ScoringOptions)
        self._methods = methods

    def score(self, options: ScoringOptions, datastore: Datastore, pool: PredictorPool) -> dict[str, Any]:
        """Runs the methods; an error of one does not stop the others."""
        results: dict[str, Any] = {}
        for method in self._methods:
            try:
                results[method.name] = method.score(method.options(options.model_dump()), datastore, pool)
            except BioSam2Error as error:
                results[method.name] = {"error": str(error)}
                logger.error("%s: %s", method.name, error)
        return results
