"""Clicks of many clients at once, alone and while one of them propagates through a large volume.

Each client clicks on an image of its own, on a slice whose embedding is cached, and each mask is compared
with the one that the same click had when nobody else worked. The two ways alternate in turns, so that both
meet the same machine: ``make bench-clients``.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import requests

from benchmarks.client import VIEWER_OPTIONS, InferenceError, Viewer
from benchmarks.items import ROOT
from benchmarks.machine import machine
from benchmarks.publish import write_report
from benchmarks.server import APP, copy_bundled, running_server
from benchmarks.tables import number
from benchmarks.volumes import write_volumes
from lib.evaluation.results import markdown_table

ALONE, PROPAGATING = "alone", "while one propagates"
CLICK, INFO = "warm click", "/info/"
SHAPE, LARGE = (192, 192, 48), (512, 512, 300)
# Clicks that each client repeats, as offsets in voxels from the centre of the slice.
OFFSETS = ((15, 0), (18, 3), (22, -4))
INFO_EVERY_S = 0.5
# Clicks per second of 20 clients on two cores: twice what the server answered before it was made faster.
RATE_AIM = 2 * 18.6


@dataclass
class Record:
    """What was measured; filled by several threads.

    Attributes:
        way: Way of the present turn.
        until: Time at which the present turn ends, on the monotonic clock.
        seconds: Times of the answers by kind of request and way.
        errors: Reasons of the requests that failed.
        mixed: Masks that differed from those of the same click alone.
        volumes: Volumes that were propagated to the end.
    """

    way: str = ALONE
    until: float = 0.0
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    mixed: int = 0
    volumes: int = 0

    def add(self, kind: str, way: str, seconds: float) -> None:
        """Takes the time of an answer to a request that was sent and answered in the same turn."""
        if way == self.way:
            self.seconds.setdefault((kind, way), []).append(seconds)


class ClickingClient:
    """A client that clicks on one image.

    Args:
        url: Address of the server.
        image: Id of the image.
    """

    def __init__(self, url: str, image: str):
        self._viewer = Viewer(url)
        self._image = image
        self._expected = [self._click(number)[0] for number in range(len(OFFSETS))]

    def work(self, record: Record, end: threading.Event, pause_s: float) -> None:
        """Clicks, with a pause of half to one and a half times ``pause_s``, until the end."""
        rng = np.random.default_rng(int(self._image[-3:]))
        while not end.wait(pause_s * rng.uniform(0.5, 1.5)):
            number, way = int(rng.integers(len(OFFSETS))), record.way
            try:
                mask, seconds = self._click(number)
            except (InferenceError, requests.RequestException) as error:
                record.errors.append(str(error))
                continue
            record.mixed += mask != self._expected[number]
            record.add(CLICK, way, seconds)

    def _click(self, number: int) -> tuple[str, float]:
        i, j, k = (side // 2 for side in SHAPE)
        point = [i + OFFSETS[number][0], j + OFFSETS[number][1], k]
        answer = self._viewer.infer("biosam2_point", self._image, {"foreground": [point], **VIEWER_OPTIONS})
        return hashlib.sha256(answer.content).hexdigest(), answer.seconds


def ask_for_info(url: str, seconds: float) -> list[float]:
    """Asks for ``/info/`` as viewers do when they connect, until the end; the times of the answers.

    Runs in a process of its own: the clients' threads would hold it up here.
    """
    session, taken, until = requests.Session(), [], time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(INFO_EVERY_S)
        started = time.monotonic()
        session.get(f"{url}/info/", timeout=600).raise_for_status()
        taken.append(time.monotonic() - started)
    return taken


def propagate(url: str, image: str, record: Record, end: threading.Event) -> None:
    """Propagates in all turns with a propagation; closes the connection where such a turn ends."""
    middle = [LARGE[0] // 2 + 50, LARGE[1] // 2, LARGE[2] // 2]
    params = {"foreground": [middle], **VIEWER_OPTIONS}
    while not end.wait(0.1):
        left = record.until - time.monotonic()
        if record.way != PROPAGATING or left <= 0:
            continue
        try:
            Viewer(url, timeout_seconds=left).infer("biosam2_propagate", image, params)
            record.volumes += 1
        except requests.Timeout:
            continue
        except (InferenceError, requests.RequestException) as error:
            record.errors.append(str(error))


@contextmanager
def threads(*works: threading.Thread) -> Iterator[None]:
    """Runs threads until the end."""
    for work in works:
        work.start()
    yield
    for work in works:
        work.join()


def measure(url: str, images: list[str], large: str, options: argparse.Namespace) -> Record:
    """Lets all clients work in turns of the two ways."""
    record, end = Record(), threading.Event()
    clients = [ClickingClient(url, image) for image in images]
    clicking = [threading.Thread(target=client.work, args=(record, end, options.pause)) for client in clients]
    propagation = threading.Thread(target=propagate, args=(url, large, record, end))
    seconds = options.seconds / options.turns
    with ProcessPoolExecutor(1, get_context("spawn")) as other, threads(*clicking, propagation):
        other.submit(ask_for_info, url, 0.0).result()
        for turn in range(2 * options.turns):
            record.until = time.monotonic() + seconds
            record.way = (ALONE, PROPAGATING)[turn % 2]
            taken = other.submit(ask_for_info, url, seconds).result()
            record.seconds.setdefault((INFO, record.way), []).extend(taken)
        end.set()
    return record


def report(
    record: Record, clients: int, seconds: float, facts: Mapping[str, str], rate_aim: float | None = None
) -> str:
    """The table with an explanation, as Markdown."""
    rows = []
    for kind in (CLICK, INFO):
        for way in (ALONE, PROPAGATING):
            taken = np.array(record.seconds.get((kind, way), [np.nan])) * 1000
            median, slow = np.percentile(taken, (50, 95))
            rate = len(taken) / seconds
            aim = rate_aim if (kind, way) == (CLICK, ALONE) else None
            verdict = "" if aim is None else f"≥ {aim:g} ({'kept' if rate >= aim else 'missed'})"
            rows.append([kind, way, number(median, 0), number(slow, 0), number(rate, 1), verdict])
    about = (
        f"{clients} clients, {len(record.errors)} errors, {record.mixed} masks of another click or image; "
        f"{record.volumes} volumes of {' x '.join(map(str, LARGE))} were propagated. "
        + ", ".join(f"{name} {value}" for name, value in facts.items())
        + "."
    )
    found = sorted(set(record.errors))[:5]
    return (
        "\n\n".join([markdown_table(["ms", "", "median", "p95", "per second", "aim"], rows), about, *found])
        + "\n"
    )


def main(argv: list[str] | None = None) -> None:
    """Measures, prints the report and writes it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each of the two ways")
    parser.add_argument("--turns", type=int, default=2, help="of each of the two ways")
    parser.add_argument(
        "--pause", type=float, default=1.0, help="mean seconds between two clicks of a client"
    )
    parser.add_argument("--app", type=Path, default=APP, help="folder of the app, to compare with another")
    parser.add_argument("--port", type=int, default=8141)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="biosam2_clients_") as folder:
        work = Path(folder)
        # With local corrections a repeated click would be answered from memory.
        conf = {"model_dir": str(copy_bundled(APP, work / "model")), "local_corrections": "false"}
        images = write_volumes(work / "studies", SHAPE, options.clients)
        (large,) = write_volumes(work / "studies", LARGE, 1, first_seed=options.clients)
        with running_server(options.app, work / "studies", options.port, conf) as server:
            server.wait_for_openvino("auto")  # whose masks differ from torch's by some voxels
            record = measure(server.url, images, large, options)
    # Clients that pause do not ask for as much as the server can answer.
    aim = None if options.pause else RATE_AIM
    text = report(record, options.clients, options.seconds, machine(), aim)
    write_report(text, options.output, "clients")
    print(text)


if __name__ == "__main__":
    main()
