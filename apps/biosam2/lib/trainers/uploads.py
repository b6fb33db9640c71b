"""Weights that a person brings: published as a version once they were found to fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime, timezone
from typing import BinaryIO

from lib.engine.builder import described, load_network
from lib.engine.checkpoints import Weights, sha256_of
from lib.engine.model_versions import CONFIG_FILE, WEIGHTS_FILE, Version, Versions
from lib.engine.registry import DeviceType, Registry


def publish_upload(source: BinaryIO, service: Weights, registry: Registry, device: DeviceType) -> Version:
    """Serves an uploaded checkpoint from now on; what was served before stays a version to go back to.

    Args:
        source: the file.
        service: the weights in service: the checkpoint has to be of their network.
        registry: of the model folder.
        device: where it will run.

    Raises:
        CheckpointError: it cannot be read, holds more than tensors, or is of another network.
    """
    versions = Versions(registry.folder)
    with versions.new_folder() as folder:
        path = folder / WEIGHTS_FILE
        with path.open("wb") as file:
            shutil.copyfileobj(source, file)
        known = described(service, registry, device)
        assert known.config is not None
        shutil.copy(known.config, folder / CONFIG_FILE)
        weights = replace(known, name="the uploaded file", path=path, sha256=None)
        network = load_network(weights, registry, device)
        record = {
            "base": known.base,
            "parent": known.version,
            "image_size": int(network.image_size),
            "rendered_prompts": known.rendered_prompts,
            "sha256": sha256_of(path),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "metrics": {"verdict": "uploaded, not measured"},
        }
        with versions.unchanged():
            version = versions.add(folder, {**record, "before": versions.current()})
            versions.switch(version.name)
        return version
