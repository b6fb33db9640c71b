"""The checkpoints that the app knows: ``model/registry.yaml``, read and checked."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import sam2
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lib.errors import CheckpointError

DeviceType = Literal["cpu", "cuda"]

REGISTRY_FILE = "registry.yaml"
BUNDLED = "biosam2_mini"


class Entry(BaseModel):
    """One checkpoint of the registry. The fields are explained at the top of ``registry.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    url: str | None
    bytes: int | None
    sha256: str | None
    config: str
    image_size: dict[DeviceType, int]
    licence: str
    permissive: bool
    rendered_prompts: bool
    meta_settings: bool


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    preference: dict[DeviceType, list[str]]
    weights: dict[str, Entry]


class Registry:
    """The registry of one model folder.

    Args:
        folder: Folder of ``registry.yaml``, the bundled and the downloaded weights.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def _document(self) -> _Document:
        path = self.folder / REGISTRY_FILE
        try:
            return _Document.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise CheckpointError(f"the list of checkpoints {path} cannot be read: {error}") from error

    @property
    def entries(self) -> dict[str, Entry]:
        """Name to entry, in the order of the file."""
        return self._document.weights

    def entry(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            CheckpointError: for a name that is not in the registry, with those that are.
        """
        if name not in self.entries:
            raise CheckpointError(f"Unknown model {name!r} (available: {', '.join(self.entries)})")
        return self.entries[name]

    def preferred(self, device: DeviceType) -> list[str]:
        """Names, best first, for a type of device."""
        return self._document.preference[device]

    def path(self, name: str) -> Path:
        """Where the file of an entry lies or would lie."""
        return self.folder / self.entry(name).file

    def recorded_sha256(self, name: str) -> str | None:
        """The registry's sha256, else the one that was recorded when the file was first fetched."""
        if (known := self.entry(name).sha256) is not None:
            return known
        record = record_path(self.path(name))
        return record.read_text().strip() if record.is_file() else None

    def config_path(self, config: str) -> Path:
        """The file of a configuration: of this folder when it ends in ``.yaml``, else of the sam2 package."""
        if config.endswith(".yaml"):
            return self.folder / config
        return Path(sam2.__file__).parent / "configs" / f"{config}.yaml"


def record_path(checkpoint: Path) -> Path:
    """Where the sha256 of a file is recorded at its first download, when the registry has none."""
    return checkpoint.with_name(checkpoint.name + ".sha256")
