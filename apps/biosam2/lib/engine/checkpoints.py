"""Which weights to serve, and how their file is read: verified, tensors only, never pickled code."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib.engine.model_versions import Version, Versions
from lib.engine.registry import BUNDLED, DeviceType, Registry
from lib.errors import CheckpointError
from lib.settings import Settings

logger = logging.getLogger(__name__)

# The keys under which SAM 2 and those who fine-tuned it keep the tensors.
_STATE_DICT_KEYS = ("model", "state_dict")
_HASH_BLOCK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """A checkpoint that may be served.

    Attributes:
        name: for people and logs.
        path: the file.
        config: the file of the network's configuration; None: found from the shapes of the tensors.
        image_size: side of the network's input in pixels; None: the configuration's own.
        sha256: what the file must hash to; None: not known.
        reason: why it stands at its place in the order.
        rendered_prompts: see ``registry.yaml``.
        meta_settings: see ``registry.yaml``.
        single_mask: whether one mask is decoded where SAM 2 would choose among three: the weights were
            fine-tuned so.
        base: name of the weights that these were fine-tuned from; their own where they were not.
        version: name of the published version that these are; None for others.
    """

    name: str
    path: Path
    config: Path | None
    image_size: int | None
    sha256: str | None
    reason: str
    rendered_prompts: bool = False
    meta_settings: bool = True
    single_mask: bool = False
    base: str = ""
    version: str | None = None


def candidates(settings: Settings, registry: Registry, device: DeviceType) -> Iterator[Weights]:
    """The weights to try, best first: published ones, those of ``--conf model``, those present, the bundled.

    Where ``--conf model`` names weights, versions that were fine-tuned from others are not served.
    """
    yield from _published(settings, registry)
    if settings.model is not None:
        yield named_weights(settings.model, settings, registry, device, "named by --conf model")
    for name in registry.preferred(device):
        if name != BUNDLED and registry.path(name).is_file():
            yield _registered(name, settings, registry, device, f"the best present for {device}")
    yield _registered(BUNDLED, settings, registry, device, "bundled with the app")


def named_weights(
    model: str, settings: Settings, registry: Registry, device: DeviceType, reason: str
) -> Weights:
    """The weights of a registry name, of a published version, or of a path.

    A file that is not in the registry may have its configuration beside it, as ``<file>.yaml``.
    """
    if model in registry.entries:
        return _registered(model, settings, registry, device, reason)
    versions = Versions(registry.folder)
    if model in versions.names():
        return _of_version(versions, versions.read(model), settings, reason)
    path = Path(model).expanduser()
    beside = path.with_suffix(".yaml")
    return Weights(
        name=path.stem,
        path=path,
        config=beside if beside.is_file() else None,
        image_size=settings.image_size,
        sha256=None,
        reason=reason,
        base=model,
    )


def _published(settings: Settings, registry: Registry) -> Iterator[Weights]:
    """The version in service and its ancestors."""
    versions = Versions(registry.folder)
    try:
        for version in versions.lineage():
            if settings.model is None or settings.model in (version.base, version.name):
                reason = f"published, fine-tuned from {version.parent or version.base}"
                yield _of_version(versions, version, settings, reason)
    except CheckpointError as error:
        logger.error("Published weights are left out: %s", error)


def _of_version(versions: Versions, version: Version, settings: Settings, reason: str) -> Weights:
    return Weights(
        name=version.name,
        path=versions.weights_path(version.name),
        config=versions.config_path(version.name),
        image_size=settings.image_size or version.image_size,
        sha256=version.sha256,
        reason=reason,
        rendered_prompts=version.rendered_prompts,
        meta_settings=version.meta_settings,
        single_mask=version.single_mask,
        base=version.base,
        version=version.name,
    )


def _registered(
    name: str, settings: Settings, registry: Registry, device: DeviceType, reason: str
) -> Weights:
    entry = registry.entry(name)
    return Weights(
        name=name,
        path=registry.path(name),
        config=registry.config_path(entry.config),
        image_size=settings.image_size or entry.image_size[device],
        sha256=registry.recorded_sha256(name),
        reason=reason,
        rendered_prompts=entry.rendered_prompts,
        meta_settings=entry.meta_settings,
        base=name,
    )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def require_sha256(path: Path, sha256: str | None, name: str) -> None:
    """Refuses a file of another sha256; anything passes where None is known.

    Raises:
        CheckpointError: with both, and what to do.
    """
    if sha256 is not None and (found := sha256_of(path)) != sha256:
        raise CheckpointError(
            f"{name}: the sha256 of {path} is {found}, it must be {sha256}; "
            "delete the file and fetch it again"
        )


def load_state_dict(weights: Weights) -> dict[str, torch.Tensor]:
    """Reads the tensors of a checkpoint on the CPU, as 32-bit floats.

    Raises:
        CheckpointError: absent, of another sha256, truncated, or holding more than tensors.
    """
    if not weights.path.is_file():
        raise CheckpointError(
            f"{weights.name}: there is no file {weights.path}; `make fetch MODEL={weights.name}` fetches it "
            "when it is in the registry"
        )
    require_sha256(weights.path, weights.sha256, weights.name)
    try:
        content = torch.load(weights.path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{weights.name}: {weights.path} is damaged, or holds more than tensors and is not trusted"
        ) from error
    except Exception as error:
        # The unpickler raises anything on random bytes, from EOFError to IndexError.
        raise CheckpointError(
            f"{weights.name}: {weights.path} is truncated or no checkpoint: {error}"
        ) from error
    return _tensors(content, weights)


def _tensors(content: Any, weights: Weights) -> dict[str, torch.Tensor]:
    for key in _STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{weights.name}: {weights.path} holds no table of tensors")
    other = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise CheckpointError(
            f"{weights.name}: {weights.path} holds more than tensors: {', '.join(map(str, other[:5]))}"
        )
    return {name: value.float() for name, value in content.items()}
