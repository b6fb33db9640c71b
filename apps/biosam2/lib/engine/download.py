"""Downloads a checkpoint of the registry: ``python -m lib.engine.download sam2.1_hiera_tiny``.

The only place that uses the network, and only when a person asks. A download that was cut off goes on where
it stopped, and a file takes its place in the model folder only when its sha256 is right.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import requests
from tqdm import tqdm

from lib.engine.checkpoints import require_sha256, sha256_of
from lib.engine.registry import Entry, Registry, record_path
from lib.errors import CheckpointError

MODEL_DIR = Path(__file__).resolve().parents[2] / "model"

# Seconds to connect and seconds without a byte: without a network a person knows within ten seconds.
_TIMEOUT = (4.0, 30.0)
_BLOCK = 1 << 20


def fetch(name: str, registry: Registry) -> Path:
    """Downloads a checkpoint with a progress bar, or finds it there already.

    Args:
        name: Name in the registry.
        registry: Registry of the folder to download to.

    Returns:
        The file.

    Raises:
        CheckpointError: unknown name, nothing to download, no network, or a wrong sha256.
    """
    entry, path = registry.entry(name), registry.path(name)
    if path.is_file():
        require_sha256(path, registry.recorded_sha256(name), name)
        return path
    if entry.url is None:
        raise CheckpointError(f"{name} is bundled with the app and is not downloaded; {path} is missing")
    part = path.with_name(path.name + ".part")
    try:
        _download(entry.url, part, path.name)
    except requests.RequestException as error:
        raise CheckpointError(
            f"{name} could not be downloaded from {entry.url}: {type(error).__name__}. "
            f"Check the network and run the same command again, it goes on where it stopped; or download "
            f"the file elsewhere and put it at {path}"
        ) from error
    sha256 = registry.recorded_sha256(name)
    try:
        require_sha256(part, sha256, name)
    except CheckpointError:
        part.unlink()
        raise
    if sha256 is None:
        record_path(path).write_text(sha256_of(part) + "\n")
    part.replace(path)
    return path


def _download(url: str, part: Path, title: str) -> None:
    start = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the part is whole already
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0
        total = int(response.headers.get("Content-Length", 0)) + start
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(desc=title, initial=start, total=total or None, unit="B", unit_scale=True) as bar,
        ):
            for block in response.iter_content(_BLOCK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())


def _consents(name: str, entry: Entry, accepted: bool) -> bool:
    sys.stdout.write(f"{name}: licence {entry.licence}\n")
    if entry.permissive or accepted:
        return True
    if not sys.stdin.isatty():
        sys.stdout.write("This licence is not permissive. Add --accept-licence to say that you may use it.\n")
        return False
    return input("This licence is not permissive. May you use these weights under it? [y/N] ").lower() == "y"


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 when the checkpoint lies in the model folder, 1 with a reason when it does not."""
    parser = argparse.ArgumentParser(description="Download a checkpoint of the registry.")
    parser.add_argument("model", help="a name of model/registry.yaml")
    parser.add_argument(
        "--accept-licence", action="store_true", help="agree to a licence that is not permissive"
    )
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR, help="the folder with registry.yaml")
    options = parser.parse_args(arguments)
    registry = Registry(options.model_dir)
    try:
        if not _consents(options.model, registry.entry(options.model), options.accept_licence):
            return 1
        path = fetch(options.model, registry)
    except CheckpointError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
