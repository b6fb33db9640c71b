"""A PACS with sample series, the server on it, and OHIF: ``python -m sample_study.serve_dicom``."""

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
# Centre and width that show the organs, in each image's values.
VIEWS: dict[str, tuple[str, tuple[float, float]]] = {
    "abdomen_ct": ("CT", (60.0, 400.0)),
    "head_mr": ("MR", (400.0, 800.0)),
}
POLL_S = 0.5
STOP_LIMIT_S = 15
MISSING, FAILED = 2, 1


def write_sample(folder: Path) -> None:
    """Writes the volumes of the sample study as DICOM, each a patient of its own, unless they are there.

    Args:
        folder: gets a folder for each series.
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
                # As most scanners number them: the first slice on top, the way OHIF's own export needs.
                instances="descending",
            )


def sample_labels() -> list[str]:
    """What the sample series have to label, in the order of the drawings."""
    return list(dict.fromkeys(name for case in _volumes() for name in case.labels))


def _volumes() -> list[Case]:
    return [case for case in make_cases() if case.name in VIEWS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is interrupted.

    Returns:
        0 after an interruption, 1 if the server ended by itself, 2 where Orthanc is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sample_study.serve_dicom",
        description="Serve the sample series from Orthanc, with OHIF. Further options go to the server.",
    )
    parser.add_argument("--folder", type=Path, default=Path("studies/dicom"), help="of images and labels")
    parser.add_argument("--host", default="127.0.0.1", help="address that the server listens on")
    parser.add_argument("--port", type=int, default=8000, help="its port")
    parser.add_argument("--orthanc-port", type=int, default=None, help="Orthanc's; a free one by default")
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
    """Runs the server until it ends, or is interrupted with us."""
    command = [sys.executable, "-m", "monailabel.main", "start_server"]
    command += ["--app", str(APP), "--studies", pacs.dicomweb_url]
    command += ["--host", options.host, "--port", str(options.port)]
    command += ["--conf", "labels", ",".join(sample_labels()), *others]
    cache = (options.folder / "cache").resolve()
    process = subprocess.Popen(
        command,
        env={**os.environ, "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(cache)},
        start_new_session=True,  # so that what it started itself ends with it
    )
    try:
        _announce(process, options.host, options.port)
        process.wait()
        return FAILED
    finally:
        _stop(process)


def _announce(process: subprocess.Popen[bytes], host: str, port: int) -> None:
    """Says where OHIF is as soon as the server answers."""
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
    # A supervisor ends it with another signal than Ctrl-C, and the shell of a script that starts it in the
    # background makes it deaf to that one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    sys.exit(main())
