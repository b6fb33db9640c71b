"""Runs the demo: ``python -m demo``.

Exit code: 0 if the masks are good enough, 1 if not, 2 if the demo could not run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.client import InferenceError, Viewer
from benchmarks.server import ServerError, running_server
from demo.picture import draw
from demo.report import judge, latencies, table
from demo.session import Session, work_through
from demo.targets import OBJECTS, targets
from sample_study.files import read_cases, truth_folder, write_study

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "apps" / "biosam2"
# Structures in the picture: one of each kind.
DRAWN = ("liver", "left kidney", "lesion", "cell 1")


def main() -> int:
    """Reads the command line and runs the demo."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Prompt the sample study over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="where the server is, if one runs")
    parser.add_argument(
        "--port", type=int, default=8000, help="its port; without a server, one is started on it"
    )
    parser.add_argument("--studies", type=Path, default=ROOT / "studies" / "sample", help="the sample study")
    parser.add_argument(
        "--picture", type=Path, default=ROOT / "outputs" / "demo.png", help="where the picture goes"
    )
    options = parser.parse_args()
    if not truth_folder(options.studies).exists():
        write_study(options.studies)
    try:
        with server(options.host, options.port, options.studies) as url:
            sessions = run(url, options.studies)
    except (ServerError, InferenceError, requests.RequestException) as error:
        print(f"The demo could not run: {error}", file=sys.stderr)
        return 2
    return show(sessions, options.picture)


@contextmanager
def server(host: str, port: int, studies: Path) -> Iterator[str]:
    """URL of a running server, or of one that is started for the demo.

    Raises:
        ServerError: the server does not start, or the running one does not serve the sample study.
    """
    url = f"http://{host}:{port}"
    try:
        tasks = requests.get(f"{url}/info/", timeout=30).json()["models"]
    except requests.ConnectionError:
        print("Starting a server ...", flush=True)
        with running_server(APP, studies.resolve(), port) as started:
            yield started.url
        return
    except (ValueError, KeyError, TypeError):
        raise ServerError(
            f"{url} is not a MONAI Label server; choose another port: make demo PORT=8001"
        ) from None
    missing = [name for name in OBJECTS if not _serves(url, name)]
    if "biosam2_point" not in tasks or missing:
        raise ServerError(
            f"the server at {url} does not serve this app with the sample study; stop it, or choose another "
            "port: make demo PORT=8001"
        )
    print(f"Using the server at {url}")
    yield url


def _serves(url: str, image: str) -> bool:
    return requests.head(f"{url}/datastore/image", params={"image": image}, timeout=30).ok


def run(url: str, studies: Path) -> list[Session]:
    """Segments every structure."""
    viewer = Viewer(url)
    sessions = []
    for target in targets(read_cases(studies)):
        print(f"Segmenting {target.label} in {target.case.name} ...", flush=True)
        sessions.append(work_through(viewer, target))
    return sessions


def show(sessions: Sequence[Session], picture: Path) -> int:
    """Prints the table and writes the picture. Returns the exit code."""
    weights = sessions[0].clicked[0].params.get("model")
    print(f"\nweights: {weights}; Dice against the truth\n\n{table(sessions)}")
    print(f"\nmedian time from request to mask\n\n{latencies(sessions)}")
    drawn = [session for session in sessions if session.target.label in DRAWN]
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(drawn).save(picture)
    print(f"\npicture: {picture}")
    failures = judge(sessions).failures
    for failure in failures:
        print(f"NOT GOOD ENOUGH: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
