"""Fine-tuned weights that were published: a folder for each version, and one name that says which is served.

    model/versions/v0001/   weights.pt, network.yaml, version.json, report.html, ...
    model/current           the name of the version in service

A folder is complete before it gets its name, and ``current`` is replaced in one step, so that a crash at any
moment leaves what was served. Nothing is ever overwritten: going back is naming another version.

A training and the server publish from processes of their own. One lock, ``versions/lock``, is held while a
version gets its number and while ``current`` changes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lib.errors import CheckpointError
from lib.files import has_ended, is_old, sync, this_process, write_atomically

logger = logging.getLogger(__name__)

CURRENT_FILE = "current"
VERSIONS_FOLDER = "versions"
WEIGHTS_FILE = "weights.pt"
CONFIG_FILE = "network.yaml"
RECORD_FILE = "version.json"
# What ``lib.engine.openvino_export`` makes of weights lies beside them.
OPENVINO_FOLDER = "openvino"
_LOCK_FILE = "lock"
_NAME = re.compile(r"v(\d{4,})")


class Version(BaseModel):
    """What is known of a published version.

    Attributes:
        name: ``v0001`` and so on.
        base: the registry's name, or the path, of the weights that its first ancestor started from.
        parent: the version that it was trained from; None where that was the base.
        before: the version in service when it was made, to go back to; None where that was the base.
        image_size: side of the network's input in pixels.
        rendered_prompts: see ``registry.yaml``.
        sha256: SHA-256 of the weights.
        created: UTC, ISO 8601.
        metrics: what was measured before and after, numbers and texts.
        options: Options of the training.
        data: the images that it learned from and was measured on.
        meta_settings: see ``registry.yaml``; fine-tuned weights run without them.
        single_mask: whether one mask is decoded where SAM 2 would choose among three: fine-tuned ones do.
        calibration: Calibration of predicted IoU times presence, as ``lib.metrics.calibration`` writes it;
            empty for uploaded weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    base: str
    parent: str | None
    before: str | None
    image_size: int
    rendered_prompts: bool
    sha256: str
    created: str
    metrics: dict[str, Any] = {}
    options: dict[str, Any] = {}
    data: list[dict[str, Any]] = []
    calibration: dict[str, Any] = {}
    meta_settings: bool = False
    single_mask: bool = True

    @model_validator(mode="before")
    @classmethod
    def _of_older_app(cls, fields: Any) -> Any:
        """Records did not tell the two apart at first."""
        return {"before": fields.get("parent"), **fields} if isinstance(fields, dict) else fields


class Versions:
    """The versions of one model folder.

    Args:
        model_dir: the folder of ``registry.yaml``. Nothing is made in it before the first version.
        keep: Number of versions whose weights are kept: the newest, and as many steps back from the one in
            service, which is always kept. 0 keeps all. Records and reports are never deleted.
    """

    def __init__(self, model_dir: Path, keep: int = 0):
        self._keep = keep
        self._folder = model_dir / VERSIONS_FOLDER
        self._current = model_dir / CURRENT_FILE
        # For a thread that holds it already it is open.
        self._lock = FileLock(self._folder / _LOCK_FILE)

    def names(self) -> list[str]:
        """All complete versions that can be served, oldest first."""
        return [name for name in self._all_names() if self.weights_path(name).exists()]

    def _all_names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        found = [path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=_number)

    def folder(self, name: str) -> Path:
        """Where the files of a version lie."""
        return self._folder / name

    def weights_path(self, name: str) -> Path:
        """The checkpoint of a version."""
        return self._folder / name / WEIGHTS_FILE

    def config_path(self, name: str) -> Path:
        """The configuration of a version's network."""
        return self._folder / name / CONFIG_FILE

    def read(self, name: str) -> Version:
        """The record of a version.

        Raises:
            CheckpointError: no version has this name, or its record cannot be read.
        """
        if name not in self._all_names():
            known = ", ".join(self.names()) or "none was published yet"
            raise CheckpointError(f"Unknown version {name!r} (available: {known})")
        path = self._folder / name / RECORD_FILE
        try:
            return Version.model_validate_json(path.read_text())
        except (OSError, ValidationError, ValueError) as error:
            raise CheckpointError(f"the record of version {name} cannot be read: {error}") from error

    def current(self) -> str | None:
        """The name of the version in service; None where the base is."""
        try:
            name = self._current.read_text().strip()
        except FileNotFoundError:
            return None
        return name or None

    def lineage(self) -> Iterator[Version]:
        """The version in service, then its ancestors: what to serve where the first cannot be loaded."""
        name = self.current()
        while name is not None:
            version = self.read(name)
            if self.weights_path(name).exists():
                yield version
            name = version.parent

    def before(self, name: str) -> str | None:
        """The version to go back to from another: the nearest that is kept; None for the base weights."""
        kept = set(self.names())
        return next((version for version in self._way_back(name) if version in kept), None)

    def _way_back(self, name: str | None) -> Iterator[str]:
        while name is not None and (name := self.read(name).before) is not None:
            yield name

    def switch(self, name: str | None) -> None:
        """Serves a version from now on; None for the base weights.

        Raises:
            CheckpointError: no version has this name.
        """
        if name is not None and not self.weights_path(self.read(name).name).exists():
            raise CheckpointError(f"the weights of {name} were deleted (--conf keep_versions {self._keep})")
        with self.unchanged():
            write_atomically(self._current, f"{name or ''}\n".encode())
            self._prune()

    def _prune(self) -> None:
        """Deletes the weights of versions that are neither new nor steps back from the one in service."""
        names, current = self.names(), self.current()
        if self._keep:
            back = itertools.islice(self._way_back(current), self._keep)
            kept = {current, *names[-self._keep :], *back}
            for name in set(names) - kept:
                logger.info("The weights of version %s are deleted: keep_versions is %d", name, self._keep)
                self.weights_path(name).unlink(missing_ok=True)
                shutil.rmtree(self.folder(name) / OPENVINO_FOLDER, ignore_errors=True)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Nobody else publishes, or goes back, until it ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            yield

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """A folder for the files of a version to be. It is deleted where it was not given to ``add``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.sweep()
        folder = Path(tempfile.mkdtemp(prefix=f".new-{this_process()}-", dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, folder: Path, record: Mapping[str, Any]) -> Version:
        """Makes a complete version of a folder of ``new_folder``. It is not served yet.

        Args:
            folder: with ``weights.pt`` and ``network.yaml`` in it.
            record: the fields of ``Version`` but its name.
        """
        with self.unchanged():
            number = max((_number(name) for name in self._all_names()), default=0) + 1
            version = Version(name=f"v{number:04d}", **record)
            write_atomically(folder / RECORD_FILE, version.model_dump_json(indent=2).encode())
            _sync_tree(folder)
            folder.chmod(0o755)  # mkdtemp made it for its owner alone
            folder.replace(self._folder / version.name)
            sync(self._folder)
            return version

    def sweep(self) -> None:
        """Deletes folders that a killed training left behind."""
        for path in self._folder.glob(".new-*"):
            if has_ended(path.name.split("-")[1]) or is_old(path):
                shutil.rmtree(path, ignore_errors=True)


def save_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Writes a checkpoint as SAM 2 has it, under the key ``model``.

    Raises:
        OSError: The disk is full.
    """
    save_tensors(path, {"model": {name: value.detach().cpu() for name, value in state.items()}})


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Writes what ``torch.load`` reads with ``weights_only``, in one step.

    Raises:
        OSError: The disk is full; torch itself would raise something that does not say so.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def _number(name: str) -> int:
    return int(name.removeprefix("v"))


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
    sync(folder)
