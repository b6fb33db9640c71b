"""``python -m lib.batch``: segments, encodes or scores an archive, in one process or on a Ray cluster."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

from lib.batch.runner import SCORE, BatchRun, BatchRunner, Executor, Images, batch_request
from lib.batch.workers import AppOptions, InProcess, RayWorkers, scoring_run
from lib.errors import PromptError, exit_code
from lib.infers.automatic import NAME as AUTO
from lib.infers.task import EMBED
from lib.scoring.uncertainty import NAME as UNCERTAINTY

# Exit code where images failed.
FAILED = 1


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lib.batch", description=__doc__)
    parser.add_argument("--app", required=True, help="folder of main.py")
    parser.add_argument("--studies", required=True, help="folder, or the address of a DICOMweb server")
    parser.add_argument("--conf", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--model", default=AUTO, help=f"a task of the server, {EMBED} or {SCORE}")
    parser.add_argument("--images", default="all", choices=get_args(Images), help="by labels of people")
    parser.add_argument("--params", default="{}", type=json.loads, help="JSON as POST /batch/infer takes it")
    parser.add_argument("--ray", help="Ray cluster: auto, local or its address; one process without it")
    parser.add_argument("--cpus", type=int, default=1, help="cores of each of Ray's workers")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of each of Ray's workers")
    options = parser.parse_args(argv)
    if not isinstance(options.params, dict):
        parser.error("--params must be a JSON object")
    return options


def run_batch(options: argparse.Namespace) -> BatchRun:
    """Works on the images, and tells the progress in the log.

    Raises:
        BioSam2Error: The options cannot be used.
    """
    where = AppOptions(options.app, options.studies, tuple(map(tuple, options.conf)))
    app = where.open()
    _require_task(app, options.model)
    request, limit = batch_request(options.model, options.params)
    if options.model == SCORE:
        scoring_run(app, request)  # refuses options that it does not know
    work: Executor = (
        RayWorkers(where, options.ray, options.cpus, options.gpus) if options.ray else InProcess(where)
    )
    run = BatchRun({**request, "images": options.images}, getpass.getuser())
    with _alone(app, options.model):
        BatchRunner(work, app.datastore()).execute(run, options.images, limit)
        if options.model == SCORE:
            scoring_run(app, request).recalibrate(app.datastore().list_images())
    return run


def _require_task(app: Any, model: str) -> None:
    known = [*app.models, EMBED, SCORE]
    if model not in known:
        raise PromptError(f"Unknown model {model!r} (available: {', '.join(known)})")
    if model == EMBED and app.engines.disk is None:
        raise PromptError("embeddings are not kept on disk: add CONF=embedding_disk_gb=50")


def _alone(app: Any, model: str) -> AbstractContextManager[None]:
    """Images are scored by one run at a time."""
    is_scoring = model == SCORE
    found: AbstractContextManager[None] = (
        app.scoring_methods[UNCERTAINTY].alone(app.datastore()) if is_scoring else nullcontext()
    )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        Exit code: 0 with all images done, 1 where some failed, 2 for options that cannot be used, 130 after
        Ctrl-C.
    """
    options = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("lib.batch").setLevel(logging.INFO)

    def command() -> int:
        run = run_batch(options)
        print(f"{run.status}: {run.done} done, {run.skipped} skipped, {run.failed} failed of {run.total}")
        return FAILED if run.failed or run.status != "DONE" else 0

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
