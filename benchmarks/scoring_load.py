"""Latency of clicks while images are scored in the background, compared with an idle server.

One server scores a store of volumes while clicks are sent. The scoring process is stopped and continued in
turns of a few seconds (SIGSTOP, SIGCONT), so that both cases meet the same machine. Linux and macOS only:
``make bench-scoring``.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import requests

from benchmarks.client import VIEWER_OPTIONS, Viewer
from benchmarks.items import ROOT
from benchmarks.machine import machine
from benchmarks.publish import write_report
from benchmarks.server import APP, RunningServer, copy_bundled, running_server
from benchmarks.tables import number
from benchmarks.volumes import write_volumes
from lib.evaluation.results import markdown_table
from lib.scoring.store import scores_folder

SCORING, ALONE = "while scoring", "alone"
FIRST, AGAIN = "first click on a slice", "another click on it"
SHAPE = (192, 192, 48)
CLICKS_AGAIN = 4
# Pause between clicks in seconds.
PAUSE_S = 0.2
START_LIMIT_S = 240.0

Seconds = dict[tuple[str, str], list[float]]


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_load", description=__doc__)
    parser.add_argument("--images", type=int, default=200, help="volumes that wait for a score")
    parser.add_argument("--turns", type=int, default=6, help="of each of the two ways")
    parser.add_argument("--turn-seconds", type=float, default=6.0)
    parser.add_argument("--port", type=int, default=8140)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    return parser.parse_args(argv)


def clicks(viewer: Viewer, image: str, index: int) -> Iterator[tuple[str, float]]:
    """A first click on a new slice, then more clicks on it."""
    i, j, _ = SHAPE
    for number_ in range(1 + CLICKS_AGAIN):
        point = [i // 2 + i // 10 + number_, j // 2, index]
        answer = viewer.infer("biosam2_point", image, {"foreground": [point], **VIEWER_OPTIONS})
        yield AGAIN if number_ else FIRST, answer.seconds


def scoring_process(server: RunningServer) -> psutil.Process:
    """The scoring process of MONAI Label.

    Raises:
        RuntimeError: it did not start in time.
    """
    give_up = time.monotonic() + START_LIMIT_S
    while time.monotonic() < give_up:
        for child in psutil.Process(server.pid).children(recursive=True):
            if "scoring" in child.cmdline():
                return child
        time.sleep(PAUSE_S)
    raise RuntimeError("the scoring has not started")


def measure(
    server: RunningServer, images: Sequence[str], scores: Path, options: argparse.Namespace
) -> Seconds:
    """Sends clicks in turns, from the first score on."""
    viewer = Viewer(server.url)
    list(clicks(viewer, images[-1], 0))
    requests.post(
        f"{server.url}/scoring/biosam2_uncertainty", json={}, timeout=START_LIMIT_S
    ).raise_for_status()
    process = scoring_process(server)
    while not scores.is_dir() or not any(scores.iterdir()):
        time.sleep(PAUSE_S)
    seconds: Seconds = {}
    places = iter((image, index) for image in reversed(images) for index in range(1, SHAPE[2]))
    for turn in range(2 * options.turns):
        way = (SCORING, ALONE)[turn % 2]
        process.send_signal(signal.SIGCONT if way == SCORING else signal.SIGSTOP)
        end = time.monotonic() + options.turn_seconds
        while time.monotonic() < end:
            for kind, taken in clicks(viewer, *next(places)):
                seconds.setdefault((kind, way), []).append(taken)
            time.sleep(PAUSE_S)
    if not process.is_running():
        raise RuntimeError("All volumes were scored before the last turn: increase --images")
    process.kill()
    return seconds


def report(seconds: Seconds, scored: int, facts: str) -> str:
    """The table with an explanation, as Markdown."""
    rows = []
    for kind in (FIRST, AGAIN):
        busy, alone = (statistics.median(seconds[kind, way]) for way in (SCORING, ALONE))
        counts = f"{len(seconds[kind, SCORING])}, {len(seconds[kind, ALONE])}"
        rows.append([kind, number(1000 * busy, 0), number(1000 * alone, 0), f"{busy / alone:.2f}", counts])
    header = ["ms, median", SCORING, ALONE, "ratio", "n"]
    about = f"{scored} volumes were scored during the turns with scoring. {facts}."
    return "\n\n".join([markdown_table(header, rows), about]) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Measures, prints the report and writes it."""
    options = arguments(argv)
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    with tempfile.TemporaryDirectory(prefix="biosam2_scoring_") as folder:
        work = Path(folder)
        model_dir = copy_bundled(APP, work / "model")
        images = write_volumes(work / "studies", SHAPE, options.images)
        conf = {"model_dir": str(model_dir)}
        scores = scores_folder(model_dir, work / "studies")
        with running_server(APP, work / "studies", options.port, conf) as server:
            seconds = measure(server, images, scores, options)
        text = report(seconds, len(list(scores.glob("*.json"))), facts)
    write_report(text, options.output, "scoring_load")
    print(text)


if __name__ == "__main__":
    main()
