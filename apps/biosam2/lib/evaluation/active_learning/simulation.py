"""Simulated annotation: label, train, test, choose what to label next, and repeat.

The labels of a datastore replace the annotator. Every seed starts with its own image, the same for all
strategies, so that strategies can be compared by seed; the strategy chooses all other images.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from tqdm import tqdm

from lib.activelearning.candidate import Candidate
from lib.activelearning.registry import SELECTORS
from lib.engine.predictor import Predictor
from lib.evaluation.active_learning.curves import CurvePoint, PointsFile, write_curve
from lib.evaluation.active_learning.learner import SimulatedLearner, measure, score
from lib.evaluation.active_learning.options import SimulationOptions, parse_simulation_options
from lib.evaluation.active_learning.units import SimulationData, open_data
from lib.evaluation.models import facts_hash
from lib.trainers.validation import choose_targets

POINTS_FILE, FRAMES_FOLDER = "curve.csv", "frames"
# Increased whenever the same options give other numbers, so that old points are not reused.
PROTOCOL = 1
# Strategies that use the network's uncertainty; it is computed for no other.
_READ_SCORES = ("uncertainty", "hybrid")
# Seeds the choice of the first unit, together with the simulation's seed.
_FIRST = 1_000_000


def run_active_learning(arguments: Sequence[str]) -> str:
    """Simulates what is not in ``curve.csv`` yet and writes the results.

    Args:
        arguments: Arguments after ``active-learning``.

    Returns:
        The tables in Markdown.

    Raises:
        EvaluationError: the options or the datastore cannot be used.
        KeyboardInterrupt: all finished trainings are on the disk.
    """
    options = parse_simulation_options(arguments)
    simulation = Simulation(options)
    points = simulation.run()
    return write_curve(points, options, simulation.facts())


class Simulation:
    """All simulated annotations of one set of options.

    Args:
        options: Options of the simulation.

    Raises:
        EvaluationError: the datastore cannot be used.
    """

    def __init__(self, options: SimulationOptions):
        self._options = options
        self._learner = SimulatedLearner(options)
        size = self._learner.image_size
        self._data = open_data(options.data, options.output / FRAMES_FOLDER, options.unit, options.test, size)
        self._units = {unit.id: unit for unit in self._data.pool}
        self._targets = choose_targets(self._data.test, size, options.objects)
        self._points = PointsFile(options.output / POINTS_FILE)

    @property
    def data(self) -> SimulationData:
        """The pool and the test set."""
        return self._data

    def facts(self) -> dict[str, object]:
        """Facts about the simulation for readers of the results."""
        return {
            "run": self.run_name,
            "weights": self._learner.weights,
            **self._learner.describe(),
            "pool": len(self._data.pool),
            "test": sorted(image.id for image in self._data.test),
            "objects": len(self._targets),
            "left_out": self._data.left_out,
        }

    @cached_property
    def run_name(self) -> str:
        """Hash of everything that decides the value of a point besides strategy and seed, 16 hex digits."""
        return facts_hash(
            {
                "protocol": PROTOCOL,
                "learner": self._learner.describe(),
                "options": self._options.deciding(),
                "pool": [unit.digest for unit in self._data.pool],
                "test": [image.digest for image in self._data.test],
            }
        )

    def run(self) -> list[CurvePoint]:
        """All points, computed now or before, by strategy, seed and labels."""
        options = self._options
        counts = self._counts()
        annotations = [(name, seed) for seed in range(options.seeds) for name in options.strategies]
        found: list[CurvePoint] = []
        with tqdm(
            total=len(annotations) * len(counts), unit="training", disable=None, file=sys.stderr
        ) as bar:
            for strategy, seed in annotations:
                bar.set_postfix_str(f"{strategy}, seed {seed}")
                for point in self._annotate(strategy, seed, counts):
                    found.append(point)
                    bar.update()
        order: dict[str, int] = {name: place for place, name in enumerate(options.strategies)}
        return sorted(found, key=lambda point: (order[point.strategy], point.seed, point.labels))

    def _counts(self) -> list[int]:
        """Numbers of labels at which the network is trained, at most the size of the pool."""
        options, most = self._options, len(self._units)
        wanted = range(options.start, options.start + options.rounds * options.step + 1, options.step)
        return [count for count in wanted if count <= most] or [most]

    def _annotate(self, strategy: str, seed: int, counts: Sequence[int]) -> Iterator[CurvePoint]:
        """The points of one simulated annotation."""
        labelled: list[str] = []
        for count, after in zip(counts, [*counts[1:], None], strict=True):
            more = 0 if after is None else after - count
            point = self._points.get(self.run_name, strategy, seed, count)
            # The last point of a simulation with fewer rounds has no next units.
            if point is None or (more and not point.next):
                names = labelled or self._begin(strategy, seed, count)
                point = self._train_and_choose(strategy, seed, names, more)
                self._points.add(point)
            labelled = [*point.labelled, *point.next]
            yield point

    def _begin(self, strategy: str, seed: int, count: int) -> list[str]:
        """Units labelled before the first training: one at random, the others chosen by the strategy."""
        names = sorted(self._units)
        first = names[int(np.random.default_rng([seed, _FIRST]).integers(len(names)))]
        scores = self._first_scores if strategy in _READ_SCORES else {}
        return [first, *self._choose(strategy, seed, [first], scores, count - 1)]

    def _train_and_choose(self, strategy: str, seed: int, labelled: Sequence[str], more: int) -> CurvePoint:
        started = time.monotonic()
        predictor = self._learner.learn([self._units[name] for name in labelled], seed)
        measured = measure(predictor, self._targets)
        scores = self._scores(predictor, labelled) if more and strategy in _READ_SCORES else {}
        return CurvePoint(
            run=self.run_name,
            strategy=strategy,
            seed=seed,
            labels=len(labelled),
            dice=measured.dice,
            by_prompt=measured.by_prompt,
            labelled=tuple(labelled),
            next=tuple(self._choose(strategy, seed, labelled, scores, more)),
            seconds=time.monotonic() - started,
        )

    def _choose(
        self,
        strategy: str,
        seed: int,
        labelled: Sequence[str],
        scores: Mapping[str, Candidate],
        count: int,
    ) -> list[str]:
        """Units that a strategy labels next."""
        rng = np.random.default_rng([seed, len(labelled)])
        done = [self._known[name] for name in labelled]
        pool = [scores.get(name, known) for name, known in self._known.items() if name not in set(labelled)]
        return [choice.id for choice in SELECTORS[strategy]().rank(pool, done, rng)[:count]]

    def _scores(self, predictor: Predictor, labelled: Collection[str]) -> dict[str, Candidate]:
        """Candidates with the network's uncertainty for all units without a label."""
        names = [name for name in self._units if name not in labelled]
        vectors = {name: self._known[name].embedding for name in names}
        return {name: score(predictor, self._units[name], vectors[name]) for name in names}

    @cached_property
    def _first_scores(self) -> dict[str, Candidate]:
        """Candidates with the uncertainty of the untrained network, the same in every simulation."""
        return self._scores(self._learner.untrained(), ())

    @cached_property
    def _known(self) -> dict[str, Candidate]:
        """Candidates with embeddings only, for all units."""
        return {name: Candidate(name, None, self._learner.vector(unit)) for name, unit in self._units.items()}
