"""``python -m lib.evaluation``: measures weights as the BioSAM-2 paper does."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from lib.errors import BioSam2Error
from lib.evaluation.active_learning.simulation import run_active_learning
from lib.evaluation.datasets import Preset, read_presets
from lib.evaluation.datastore import list_cases
from lib.evaluation.models import open_entrants
from lib.evaluation.options import Options, parse_options
from lib.evaluation.outputs import PAGE_FILE, write_outputs
from lib.evaluation.protocol import Rules
from lib.evaluation.runner import Plan, evaluate

# As the shell has it for a process that Ctrl-C ended.
INTERRUPTED = 130
FAILED = 2
# The first argument for simulated annotation, which has options of its own.
ACTIVE_LEARNING = "active-learning"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 with the results written, 2 with one line of reason, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == [ACTIVE_LEARNING]:
            print(run_active_learning(given[1:]))
            return 0
        presets = read_presets()
        options = parse_options(given, list(presets))
        plan = plan_for(options, presets[options.preset] if options.preset else None)
        entrants = open_entrants(options)
        outcome = evaluate(plan, entrants, options)
        tables = write_outputs(plan, entrants, options, outcome)
    except BioSam2Error as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED
    print("\n".join(table.markdown() for table in tables if not table.detail))
    print(f"{len(outcome.rows)} rows, {len(outcome.left_out)} images left out: {options.output / PAGE_FILE}")
    return 0


def plan_for(options: Options, preset: Preset | None) -> Plan:
    """The cases of the folder and the rules that they are rated by.

    Raises:
        EvaluationError: the folder is not what it should be.
    """
    rules = Rules() if preset is None else preset.rules()
    if options.tolerance_mm is not None:
        rules = replace(rules, tolerance_mm={}, default_tolerance_mm=options.tolerance_mm)
    pipeline = None if options.pipeline == "all" else options.pipeline
    if preset is None:
        return Plan(list_cases(options.data), pipeline, rules, options.data.resolve().name)
    if pipeline not in (None, preset.pipeline):
        # The preset's metrics are those of its own pipeline.
        return Plan(preset.cases(options.data), pipeline, replace(rules, metrics=None), preset.title)
    return Plan(preset.cases(options.data), preset.pipeline, rules, preset.title, preset.paper)


if __name__ == "__main__":
    sys.exit(main())
