"""The evaluation itself: every case, every network, every trial that is not in the results yet."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.errors import EvaluationError, ImageError, LabelError
from lib.evaluation.cases import Case, Scene
from lib.evaluation.image import ImagePipeline
from lib.evaluation.models import Entrant, fingerprint
from lib.evaluation.options import Options, PipelineName
from lib.evaluation.prompting import Drawing
from lib.evaluation.protocol import Judgement, Pipeline, Rules, Trial
from lib.evaluation.results import ResultsFile, Row
from lib.evaluation.video import SMALL_FRAME, VideoPipeline
from lib.evaluation.volume import VolumePipeline

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.csv"
ALL_PIPELINES: tuple[Pipeline, ...] = (ImagePipeline(), VolumePipeline(), VideoPipeline())


@dataclass(frozen=True)
class Plan:
    """What is evaluated and how.

    Attributes:
        cases: in the order in which they are opened.
        pipeline: one for all cases; None: what suits each.
        rules: how results are rated.
        title: of the data, for people.
        paper: rows of the paper to stand beside the results: method, prompt and values.
    """

    cases: Sequence[Case]
    pipeline: PipelineName | None
    rules: Rules = field(default_factory=Rules)
    title: str = ""
    paper: Sequence[dict[str, str | float]] = ()


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        rows: in the order of cases, pipelines, trials and networks, whether computed now or before.
        left_out: the reason, by case that could not be used.
        notes: what a reader of the results should know.
    """

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def evaluate(plan: Plan, entrants: Sequence[Entrant], options: Options) -> Outcome:
    """Runs all trials that ``results.csv`` does not hold yet.

    Args:
        plan: what to evaluate.
        entrants: the networks.
        options: of the evaluation.

    Raises:
        EvaluationError: no case could be used, or ``results.csv`` is not ours.
        KeyboardInterrupt: with every finished trial on the disk.
    """
    results = ResultsFile(options.output / RESULTS_FILE)
    outcome = Outcome()
    cases = plan.cases[: options.limit] if options.limit else plan.cases
    # On a terminal alone: a log has no use for a bar.
    with logging_redirect_tqdm(), tqdm(cases, unit="image", disable=None, file=sys.stderr) as bar:
        for case in bar:
            bar.set_postfix_str(case.id)
            _evaluate_case(case, plan, entrants, options, results, outcome)
    if not outcome.rows:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in outcome.left_out.items())
        raise EvaluationError(
            f"nothing could be evaluated in {options.data}: {reasons or 'no image is there'}"
        )
    return outcome


def open_case(case: Case, options: Options) -> Scene:
    """Opens a case as the options want it.

    Raises:
        ImageError: its image cannot be read.
        LabelError: its label cannot be used.
    """
    scene = case.open(options.axis)
    if options.instances:
        scene = replace(scene, names=dict.fromkeys(scene.names, options.instances))
    return scene


def pipelines_for(scene: Scene, wanted: PipelineName | None) -> list[Pipeline]:
    """The pipeline that is wanted where it can read the case, or all that suit it."""
    if wanted is None:
        return [pipeline for pipeline in ALL_PIPELINES if scene.kind in pipeline.suits]
    return [pipeline for pipeline in ALL_PIPELINES if pipeline.name == wanted and scene.kind in pipeline.fits]


def chosen_objects(scene: Scene, case: str, options: Options) -> tuple[int, ...]:
    """The objects of a case that are evaluated: all, or as many as were asked for, drawn by the seed."""
    objects = scene.objects
    if not options.objects or len(objects) <= options.objects:
        return objects
    source = Drawing(options.seed, case).source("objects")
    return tuple(sorted(int(value) for value in source.choice(objects, options.objects, replace=False)))


def _evaluate_case(
    case: Case,
    plan: Plan,
    entrants: Sequence[Entrant],
    options: Options,
    results: ResultsFile,
    outcome: Outcome,
) -> None:
    rows: list[Row] = []
    try:
        scene = open_case(case, options)
        pipelines = pipelines_for(scene, plan.pipeline)
        if not pipelines:
            raise LabelError(f"a {scene.kind} is nothing for the pipeline {plan.pipeline}")
        objects = chosen_objects(scene, case.id, options)
        for pipeline in pipelines:
            desk = Desk(case.id, scene, pipeline, options, plan.rules)
            for trial in pipeline.trials(scene, objects, options):
                for entrant in entrants:
                    rows.extend(_rows(desk, entrant, trial, results))
    except (ImageError, LabelError) as error:
        outcome.left_out[case.id] = str(error)
        logger.warning("%s is left out: %s", case.id, error)
        return
    outcome.rows.extend(rows)
    outcome.notes.extend(_notes(case.id, scene, pipelines, options))


@dataclass(frozen=True)
class Desk:
    """An opened case in one pipeline.

    Attributes:
        case: its id.
        scene: the case.
        pipeline: the pipeline.
        options: of the evaluation.
        rules: how results are rated.
    """

    case: str
    scene: Scene
    pipeline: Pipeline
    options: Options
    rules: Rules

    def judge(self, entrant: Entrant, trial: Trial) -> list[Judgement]:
        """Runs a trial."""
        drawing = Drawing(self.options.seed, self.case, self.options.jitter)
        return self.pipeline.run(entrant.predictor, self.scene, trial, drawing, self.options, self.rules)

    def row(self, entrant: Entrant, trial: Trial, value: int) -> Row:
        """The row of an object of a trial, still without values."""
        return Row(
            run=fingerprint(entrant, self.options, self.rules),
            weights=entrant.name,
            pipeline=self.pipeline.name,
            image=self.case,
            content=self.scene.content,
            object=value,
            label=self.scene.names.get(value, "") if value else "",
            frame=trial.frame,
            prompt=trial.prompt.name,
            frames=trial.prompt.frames,
            values={},
        )


def _rows(desk: Desk, entrant: Entrant, trial: Trial, results: ResultsFile) -> list[Row]:
    """The rows of a trial: those on the disk, and the others after they were computed and put there."""
    expected = desk.pipeline.expects(trial, desk.rules)
    blank = {value: desk.row(entrant, trial, value) for value in expected}
    known = {value: results.get(row.key) for value, row in blank.items()}
    missing = tuple(value for value, row in known.items() if row is None)
    if missing:
        # Objects of one frame are rated together, followed objects each by itself.
        again = trial if trial.frame is not None else replace(trial, objects=missing)
        judged = {item.object: item.values for item in desk.judge(entrant, again)}
        new = {value: replace(blank[value], values=judged[value]) for value in missing}
        results.append(new.values())
        known |= new
    # The same weights may have had another name before.
    return [replace(row, weights=entrant.name) for row in known.values() if row is not None]


def _notes(case: str, scene: Scene, pipelines: Sequence[Pipeline], options: Options) -> list[str]:
    width, height = scene.frames.width, scene.frames.height
    video = any(pipeline.name == "video" for pipeline in pipelines)
    if not video or min(width, height) >= SMALL_FRAME or 1 not in options.clicks:
        return []
    return [
        f"{case}: on frames of {width} x {height} pixels one click says too little (the paper has 6.6 J&F "
        "on the 112 pixels of EchoNet-Dynamic)"
    ]
