"""The app's scoring methods by the names that clients call them, and all of them at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore

from lib.engine.predictor_pool import PredictorPool
from lib.errors import BioSam2Error
from lib.scoring.agreement import DiceScoring, FullAgreement, NsdScoring
from lib.scoring.annotation_stats import AnnotationStats
from lib.scoring.base import Scoring
from lib.scoring.options import ScoringOptions
from lib.scoring.uncertainty import UncertaintyScoring
from lib.settings import Settings

logger = logging.getLogger(__name__)

ALL = "biosam2_all"


def all_methods(settings: Settings, engines: PredictorPool) -> dict[str, Scoring[Any]]:
    """Every method by its name.

    Args:
        settings: of the app.
        engines: which weights are in service, and the folder of their scores.
    """
    # What is quick, and what people wait for, comes first.
    stats, uncertainty = AnnotationStats(settings, engines), UncertaintyScoring(settings, engines)
    everything = AllScoring(settings, engines, [stats, FullAgreement(settings, engines), uncertainty])
    dice, nsd = DiceScoring(settings, engines), NsdScoring(settings, engines)
    methods: list[Scoring[Any]] = [stats, dice, nsd, uncertainty, everything]
    return {method.name: method for method in methods}


class AllScoring(Scoring[ScoringOptions]):
    """Every method, one after the other in one process: starting a process takes ten seconds.

    Args:
        settings: of the app.
        engines: which weights are in service.
        methods: to run, in this order.
    """

    def __init__(self, settings: Settings, engines: PredictorPool, methods: Sequence[Scoring[Any]]):
        super().__init__(ALL, "Every scoring, one after the other", settings, engines, ScoringOptions)
        self._methods = methods

    def score(self, options: ScoringOptions, datastore: Datastore, engines: PredictorPool) -> dict[str, Any]:
        """Runs the methods; one that fails stops no other."""
        results: dict[str, Any] = {}
        for method in self._methods:
            try:
                results[method.name] = method.score(method.options(options.model_dump()), datastore, engines)
            except BioSam2Error as error:
                results[method.name] = {"error": str(error)}
                logger.error("%s: %s", method.name, error)
        return results
