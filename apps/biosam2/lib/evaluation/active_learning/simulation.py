"""Simulated annotation: label, train, measure, choose what to label next, and again.

The labels of a datastore stand for the person who would draw them. Every simulation begins with an image of
its own, the same for all strategies, so that they can be compared seed by seed; the strategy chooses all
others.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from tqdm import tqdm

from lib.activelearning.candidate import Candidate
from lib.activelearning.registry import SELECTORS
from lib.engine.predictor import Predictor
from lib.evaluation.active_learning.learner import Pupil, measure, score
from lib.evaluation.active_learning.options import CurveOptions, parse_curve_options
from lib.evaluation.active_learning.outputs import write_curve
from lib.evaluation.active_learning.rows import Point, PointsFile
from lib.evaluation.active_learning.units import Parts, open_parts
from lib.trainers.validation import choose_targets

POINTS_FILE, FRAMES_FOLDER = "curve.csv", "frames"
# Raised whenever the same options would give other numbers, so that old points are not taken for new ones.
PROTOCOL = 1
# The others do not look at what the network says: its doubts are not asked for.
_READ_SCORES = ("uncertainty", "hybrid")
# Beside the seed, so that the first unit is drawn by other numbers than those after it.
_FIRST = 1_000_000


def run_active_learning(arguments: Sequence[str]) -> str:
    """The command: simulates what is not simulated yet and writes the results.

    Args:
        arguments: those behind ``active-learning``.

    Returns:
        The tables, in Markdown.

    Raises:
        EvaluationError: the options or the datastore cannot be used.
        KeyboardInterrupt: with every finished training on the disk.
    """
    options = parse_curve_options(arguments)
    simulation = Simulation(options)
    points = simulation.run()
    return write_curve(points, options, simulation.facts())


class Simulation:
    """All annotations of one set of options.

    Args:
        options: of the simulation.

    Raises:
        EvaluationError: the datastore cannot be used.
    """

    def __init__(self, options: CurveOptions):
        self._options = options
        self._pupil = Pupil(options)
        size = self._pupil.image_size
        self._parts = open_parts(
            options.data, options.output / FRAMES_FOLDER, options.unit, options.test, size
        )
        self._units = {unit.id: unit for unit in self._parts.pool}
        self._targets = choose_targets(self._parts.test, size, options.objects)
        self._points = PointsFile(options.output / POINTS_FILE)

    @property
    def parts(self) -> Parts:
        """The pool and the test part."""
        return self._parts

    def facts(self) -> dict[str, object]:
        """What a reader of the results should know."""
        return {
            "run": self.run_name,
            "weights": self._pupil.weights,
            **self._pupil.describe(),
            "pool": len(self._parts.pool),
            "test": sorted(image.id for image in self._parts.test),
            "objects": len(self._targets),
            "left_out": self._parts.left_out,
        }

    @cached_property
    def run_name(self) -> str:
        """Names everything that decides the value of a point but strategy and seed, in 16 hex digits."""
        facts = {
            "protocol": PROTOCOL,
            "pupil": self._pupil.describe(),
            "options": self._options.deciding(),
            "pool": [unit.digest for unit in self._parts.pool],
            "test": [image.digest for image in self._parts.test],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def run(self) -> list[Point]:
        """All points, whether computed now or before, by strategy, seed and labels."""
        options = self._options
        counts = self._counts()
        courses = [(name, seed) for seed in range(options.seeds) for name in options.strategies]
        found: list[Point] = []
        with tqdm(total=len(courses) * len(counts), unit="training", disable=None, file=sys.stderr) as bar:
            for strategy, seed in courses:
                bar.set_postfix_str(f"{strategy}, seed {seed}")
                for point in self._annotate(strategy, seed, counts):
                    found.append(point)
                    bar.update()
        order = {name: place for place, name in enumerate(options.strategies)}
        return sorted(found, key=lambda point: (order[point.strategy], point.seed, point.labels))

    def _counts(self) -> list[int]:
        """Numbers of labels after which is trained; no more than there are."""
        options, most = self._options, len(self._units)
        wanted = range(options.start, options.start + options.rounds * options.step + 1, options.step)
        return [count for count in wanted if count <= most] or [most]

    def _annotate(self, strategy: str, seed: int, counts: Sequence[int]) -> Iterator[Point]:
        """The points of one annotation."""
        labelled: list[str] = []
        for count, after in zip(counts, [*counts[1:], None], strict=True):
            more = 0 if after is None else after - count
            point = self._points.get(self.run_name, strategy, seed, count)
            # The last point of a shorter simulation has not chosen what comes next.
            if point is None or (more and not point.next):
                names = labelled or self._begin(strategy, seed, count)
                point = self._train_and_choose(strategy, seed, names, more)
                self._points.add(point)
            labelled = [*point.labelled, *point.next]
            yield point

    def _begin(self, strategy: str, seed: int, count: int) -> list[str]:
        """The units that are labelled before the first training: one by chance, the others as chosen."""
        names = sorted(self._units)
        first = names[int(np.random.default_rng([seed, _FIRST]).integers(len(names)))]
        scores = self._first_scores if strategy in _READ_SCORES else {}
        return [first, *self._choose(strategy, seed, [first], scores, count - 1)]

    def _train_and_choose(self, strategy: str, seed: int, labelled: Sequence[str], more: int) -> Point:
        started = time.monotonic()
        predictor = self._pupil.learn([self._units[name] for name in labelled], seed)
        measured = measure(predictor, self._targets)
        scores = self._scores(predictor, labelled) if more and strategy in _READ_SCORES else {}
        return Point(
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
        """What a strategy would have labelled next."""
        rng = np.random.default_rng([seed, len(labelled)])
        done = [self._known[name] for name in labelled]
        pool = [scores.get(name, known) for name, known in self._known.items() if name not in set(labelled)]
        return [choice.id for choice in SELECTORS[strategy]().rank(pool, done, rng)[:count]]

    def _scores(self, predictor: Predictor, labelled: Collection[str]) -> dict[str, Candidate]:
        """What the network says of every unit that is not labelled."""
        names = [name for name in self._units if name not in labelled]
        vectors = {name: self._known[name].embedding for name in names}
        return {name: score(predictor, self._units[name], vectors[name]) for name in names}

    @cached_property
    def _first_scores(self) -> dict[str, Candidate]:
        """What the network says before it has learned anything: the same in every simulation."""
        return self._scores(self._pupil.untrained(), ())

    @cached_property
    def _known(self) -> dict[str, Candidate]:
        """What is known of every unit without a training: its embedding."""
        return {name: Candidate(name, None, self._pupil.vector(unit)) for name, unit in self._units.items()}
