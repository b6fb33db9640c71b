"""``python -m lib.evaluation``: measures weights as the BioSAM-2 paper does."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from lib.errors import exit_code
from lib.evaluation.cases import list_cases
from lib.evaluation.datasets import DatasetPreset, read_presets
from lib.evaluation.options import EvaluationOptions, parse_options
from lib.evaluation.protocol import MetricRules
from lib.evaluation.report import PAGE_FILE, write_outputs
from lib.evaluation.runner import EvaluationPlan, evaluate, open_models
from lib.evaluation.simulation import run_active_learning

# First argument that selects simulated annotation, a command with its own options.
ACTIVE_LEARNING = "active-learning"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        Exit code: 0 with the results written, 2 after an error (one line on stderr), 130 after Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    given = list(sys.argv[1:] if arguments is None else arguments)

    def command() -> int:
        print(run_active_learning(given[1:]) if given[:1] == [ACTIVE_LEARNING] else run_evaluation(given))
        return 0

    return exit_code(command)


def run_evaluation(arguments: Sequence[str]) -> str:
    """Evaluates and writes the results.

    Returns:
        The tables in Markdown.
    """
    presets = read_presets()
    options = parse_options(arguments, sorted(presets))
    plan = plan_for(options, presets[options.preset] if options.preset else None)
    models = open_models(options)
    evaluation = evaluate(plan, models, options)
    tables = write_outputs(evaluation)
    return "\n".join(
        [
            *(table.markdown() for table in tables if not table.detail),
            f"{len(evaluation.rows)} rows, {len(evaluation.left_out)} images left out: "
            f"{options.output / PAGE_FILE}",
        ]
    )


def plan_for(options: EvaluationOptions, preset: DatasetPreset | None) -> EvaluationPlan:
    """The cases of the folder and the rules of their evaluation."""
    rules = MetricRules() if preset is None else preset.rules()
    if options.tolerance_mm is not None:
        changed = {"tolerance_mm": {}, "default_tolerance_mm": options.tolerance_mm}
        rules = rules.model_copy(update=changed)
    pipeline = None if options.pipeline == "all" else options.pipeline
    if preset is None:
        return EvaluationPlan(list_cases(options.data), pipeline, rules, options.data.resolve().name)
    if pipeline not in (None, preset.pipeline):
        # The preset's metrics belong to its own pipeline.
        rules = rules.model_copy(update={"metrics": None})
        return EvaluationPlan(preset.cases(options.data), pipeline, rules, preset.title)
    return EvaluationPlan(preset.cases(options.data), preset.pipeline, rules, preset.title, preset.paper)


if __name__ == "__main__":
    sys.exit(main())
