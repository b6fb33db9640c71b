"""The evaluation: every case, every trial, every network, except results that exist already."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.engine.builder import load_network
from lib.engine.checkpoints import named_weights, sha256_of
from lib.engine.network import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime, resolve_device
from lib.errors import EvaluationError, ImageError, LabelError
from lib.evaluation.cases import EvaluationCase, LabelledSequence
from lib.evaluation.options import EvaluationOptions, PipelineName
from lib.evaluation.protocol import (
    ALL_PIPELINES,
    SMALL_FRAME,
    CaseContext,
    MetricRules,
    Pipeline,
    PromptTrial,
    prompt_rng,
)
from lib.evaluation.results import ResultRow, RowsFile, results_file
from lib.settings import Settings

# Increased whenever the same options give other numbers, so that old results are not reused.
PROTOCOL = 1
_MIB = 1 << 20


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """One network."""

    name: str
    sha256: str
    predictor: Predictor

    def describe(self) -> dict[str, Any]:
        """What its results depend on."""
        return {"sha256": self.sha256, **run_facts(self.predictor.runtime, self.predictor.image_size)}


def run_facts(runtime: Runtime, image_size: int) -> dict[str, Any]:
    """What results depend on besides the weights."""
    return {
        "image_size": image_size,
        "device": runtime.type,
        "precision": str(runtime.dtype).removeprefix("torch."),
    }


def open_models(options: EvaluationOptions) -> list[EvaluatedModel]:
    """Loads all named networks."""
    settings = Settings(device=options.device, image_size=options.image_size, model_dir=options.model_dir)
    registry = Registry(options.model_dir)
    runtime = Runtime(resolve_device(options.device), settings.precision)
    embeddings = EmbeddingCache(settings.embedding_cache_mb * _MIB)
    models: list[EvaluatedModel] = []
    for name in dict.fromkeys(options.weights):
        weights = named_weights(name, settings, registry, runtime.type, "named by --weights")
        network = load_network(weights, registry, runtime.type)
        sha256 = weights.sha256 or sha256_of(weights.path)
        predictor = Predictor(network, runtime, embeddings, weights.name, sha256)
        models.append(EvaluatedModel(weights.name, sha256, predictor))
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise EvaluationError(
            f"Two of --weights have the same name in tables ({', '.join(twice)}): rename one of the files"
        )
    return models


def fingerprint(model: EvaluatedModel, options: EvaluationOptions, rules: MetricRules) -> str:
    """Hash of everything that decides the value of a result besides the case, 16 hex digits."""
    return facts_hash(
        {
            "protocol": PROTOCOL,
            "model": model.describe(),
            "options": options.deciding(),
            "rules": rules.model_dump(mode="json"),
        }
    )


def facts_hash(facts: dict[str, Any]) -> str:
    """Hash of JSON values, 16 hex digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


logger = logging.getLogger(__name__)

RESULTS_FILE = "results.csv"


@dataclass(frozen=True)
class EvaluationPlan:
    """Cases and rules of an evaluation.

    Attributes:
        pipeline: Pipeline for all cases; None: chosen by the kind of each case.
        title: Name of the data.
        paper: Published results for comparison: method, prompt and values.
    """

    cases: Sequence[EvaluationCase]
    pipeline: PipelineName | None
    rules: MetricRules = field(default_factory=MetricRules)
    title: str = ""
    paper: Sequence[dict[str, str | float]] = ()


@dataclass(frozen=True)
class Evaluation:
    """An evaluation with its results.

    Attributes:
        rows: Rows by case, pipeline, trial and network, computed now or before.
        left_out: Reason by id of each case that could not be used.
        notes: Remarks on the results.
    """

    plan: EvaluationPlan = field(compare=False)
    models: Sequence[EvaluatedModel] = field(compare=False)
    options: EvaluationOptions = field(compare=False)
    rows: list[ResultRow] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, case: EvaluationCase, file: RowsFile[ResultRow]) -> None:
        """Evaluates a case, as far as its results are not in the file yet."""
        rows: list[ResultRow] = []
        try:
            sequence = open_case(case, self.options)
            pipelines = pipelines_for(sequence, self.plan.pipeline)
            if not pipelines:
                raise LabelError(f"The pipeline {self.plan.pipeline} does not support a {sequence.kind}")
            objects = chosen_objects(sequence, case.id, self.options)
            context = CaseContext(case.id, sequence, self.options, self.plan.rules)
            for pipeline in pipelines:
                for trial in pipeline.trials(context, objects):
                    for model in self.models:
                        rows.extend(_rows(context, pipeline, model, trial, file))
        except (ImageError, LabelError) as error:
            self.left_out[case.id] = str(error)
            logger.warning("%s is left out: %s", case.id, error)
            return
        self.rows.extend(rows)
        width, height = sequence.frames.width, sequence.frames.height
        is_clip = any(pipeline.name == "video" for pipeline in pipelines)
        if is_clip and min(width, height) < SMALL_FRAME and 1 in self.options.clicks:
            self.notes.append(
                f"{case.id}: one click is ambiguous on frames of {width} x {height} pixels (the paper "
                "reports 6.6 J&F on the 112 pixels of EchoNet-Dynamic)"
            )


def evaluate(
    plan: EvaluationPlan, models: Sequence[EvaluatedModel], options: EvaluationOptions
) -> Evaluation:
    """Runs all trials that are not in ``results.csv`` yet.

    Raises:
        EvaluationError: no case could be used, or ``results.csv`` has other columns.
        KeyboardInterrupt: all finished trials are on the disk.
    """
    file = results_file(options.output / RESULTS_FILE)
    evaluation = Evaluation(plan, models, options)
    cases = plan.cases[: options.limit] if options.limit else plan.cases
    with logging_redirect_tqdm(), tqdm(cases, unit="image", disable=None, file=sys.stderr) as bar:
        for case in bar:
            bar.set_postfix_str(case.id)
            evaluation.add(case, file)
    if not evaluation.rows:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in evaluation.left_out.items())
        raise EvaluationError(f"Nothing to evaluate in {options.data}: {reasons or 'it has no image'}")
    return evaluation


def open_case(case: EvaluationCase, options: EvaluationOptions) -> LabelledSequence:
    """Opens a case with the options' axis and class."""
    sequence = case.open(options.axis)
    if options.instances:
        sequence = replace(sequence, names=dict.fromkeys(sequence.names, options.instances))
    return sequence


def pipelines_for(sequence: LabelledSequence, wanted: PipelineName | None) -> list[Pipeline]:
    """The wanted pipeline if it fits the case, or all pipelines that suit it."""
    if wanted is None:
        return [pipeline for pipeline in ALL_PIPELINES if sequence.kind in pipeline.suits]
    return [
        pipeline for pipeline in ALL_PIPELINES if pipeline.name == wanted and sequence.kind in pipeline.fits
    ]


def chosen_objects(sequence: LabelledSequence, case: str, options: EvaluationOptions) -> tuple[int, ...]:
    """The evaluated objects of a case: all, or ``options.objects`` of them drawn by the seed."""
    objects = sequence.objects
    if not options.objects or len(objects) <= options.objects:
        return objects
    rng = prompt_rng(options.seed, case, "objects")
    return tuple(sorted(int(value) for value in rng.choice(objects, options.objects, replace=False)))


def _rows(
    case: CaseContext,
    pipeline: Pipeline,
    model: EvaluatedModel,
    trial: PromptTrial,
    file: RowsFile[ResultRow],
) -> list[ResultRow]:
    """The rows of a trial: those of the file, and the missing ones, computed and appended to it."""
    blank = {value: _row(case, model, trial, value) for value in pipeline.expects(trial, case.rules)}
    known = {value: file.get(row.key) for value, row in blank.items()}
    missing = tuple(value for value, row in known.items() if row is None)
    if missing:
        # Objects of one frame are measured together, propagated objects separately.
        again = trial if trial.frame is not None else replace(trial, objects=missing)
        measured = {item.object: item.values for item in pipeline.run(model.predictor, case, again)}
        new = {value: replace(blank[value], values=measured[value]) for value in missing}
        file.append(new.values())
        known |= new
    # The same weights may have had another name before.
    return [replace(row, weights=model.name) for row in known.values() if row is not None]


def _row(case: CaseContext, model: EvaluatedModel, trial: PromptTrial, value: int) -> ResultRow:
    """The row of an object of a trial, without values."""
    return ResultRow(
        run=fingerprint(model, case.options, case.rules),
        weights=model.name,
        pipeline=trial.pipeline,
        image=case.id,
        content=case.sequence.content,
        object=value,
        label=case.sequence.names.get(value, "") if value else "",
        frame=trial.frame,
        prompt=trial.prompt.name,
        frames=trial.prompt.frames,
        values={},
    )
