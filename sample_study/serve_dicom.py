"""Serves the sample series from Orthanc with OHIF: ``python -m sample_study.serve_dicom``."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import requests

from sample_study.case import Case
from sample_study.dicom import write_series
from sample_study.files import make_cases
from sample_study.orthanc import Orthanc, OrthancMissingError

APP = Path(__file__).resolve().parent.parent / "apps" / "biosam2"
# Modality, window centre and width of each image.
VIEWS: dict[str, tuple[str, tuple[float, float]]] = {
    "abdomen_ct": ("CT", (60.0, 400.0)),
    "head_mr": ("MR", (400.0, 800.0)),
}
POLL_S = 0.5
STOP_LIMIT_S = 15
MISSING, FAILED = 2, 1


def write_sample(folder: Path) -> None:
    """Writes the volumes of the sample study as DICOM, one patient each, unless they exist.

    Args:
        folder: Parent folder of the series folders.
    """
    for case in _volumes():
        modality, window = VIEWS[case.name]
        target = folder / case.name
        if not target.exists() and case.affine is not None:
            write_series(
                target,
                case.image,
                case.affine,
                modality=modality,
                window=window,
                patient=case.name,
                description=case.name,
                # Like most scanners, and as OHIF's export needs: the first slice is the topmost.
                instances="descending",
            )


def sample_labels() -> list[str]:
    """Label names of the sample series."""
    return list(dict.fromkeys(name for case in _volumes() for name in case.labels))


def _volumes() -> list[Case]:
    return [case for case in make_cases() if case.name in VIEWS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is interrupted.

    Returns:
        0 after an interruption, 1 if the server ended, 2 if Orthanc is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sample_study.serve_dicom",
        description="Serve the sample series from Orthanc, with OHIF. Further options go to the server.",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("studies/dicom"), help="folder of images and labels"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of the server")
    parser.add_argument("--port", type=int, default=8000, help="port of the server")
    parser.add_argument("--orthanc-port", type=int, default=None, help="port of Orthanc; default: a free one")
    options, others = parser.parse_known_args(arguments)
    try:
        with suppress(KeyboardInterrupt), Orthanc(options.folder / "orthanc", options.orthanc_port) as pacs:
            write_sample(options.folder / "series")
            pacs.store(options.folder / "series")
            print(f"Orthanc holds {len(pacs.series())} series: {pacs.url}", flush=True)
            return _serve(pacs, options, others)
    except OrthancMissingError as error:
        print(error, file=sys.stderr)
        return MISSING
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _serve(pacs: Orthanc, options: argparse.Namespace, others: list[str]) -> int:
    """Runs the server until it ends or this process is interrupted."""
    command = [sys.executable, "-m", "monailabel.main", "start_server"]
    command += ["--app", str(APP), "--studies", pacs.dicomweb_url]
    command += ["--host", options.host, "--port", str(options.port)]
    command += ["--conf", "labels", ",".join(sample_labels()), *others]
    cache = (options.folder / "cache").resolve()
    process = subprocess.Popen(
        command,
        env={**os.environ, "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(cache)},
        start_new_session=True,  # its own process group, so that its children end with it
    )
    try:
        _announce(process, options.host, options.port)
        process.wait()
        return FAILED
    finally:
        _stop(process)


def _announce(process: subprocess.Popen[bytes], host: str, port: int) -> None:
    """Prints the address of OHIF as soon as the server answers."""
    address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    while process.poll() is None:
        with suppress(requests.RequestException):
            if requests.get(f"{address}/info/", timeout=POLL_S).ok:
                print(f"\nOHIF: open {address}/ohif/ (Ctrl-C ends all)\n", flush=True)
                return
        time.sleep(POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)
            return


if __name__ == "__main__":
    # Supervisors end processes with SIGTERM, and background jobs of scripts ignore SIGINT by default.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    sys.exit(main())
