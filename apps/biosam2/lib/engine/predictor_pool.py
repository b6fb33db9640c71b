"""The networks in service: one per device, loaded at the first use, shared by every task."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path

import torch

from lib.child_process import belongs_to_server
from lib.engine.builder import load_network
from lib.engine.checkpoints import Weights, candidates, sha256_of
from lib.engine.model_versions import Versions
from lib.engine.network import EmbeddingCache
from lib.engine.openvino_export import convert_in_child
from lib.engine.openvino_parts import is_chosen, parts_folder
from lib.engine.predictor import Predictor
from lib.engine.prefetching import Prefetcher
from lib.engine.registry import Registry
from lib.engine.runtime import InteractivePriority, Runtime, resolve_device
from lib.errors import CheckpointError
from lib.settings import Settings

logger = logging.getLogger(__name__)

_MIB = 1 << 20
# The name, for going back, of the weights that were there before any version.
BASE = "base"


class PredictorPool:
    """Predictors by device. Constructing one reads nothing and loads nothing.

    Args:
        settings: App settings (`--conf`).
        model_dir: Folder of ``registry.yaml`` and the weights.
    """

    def __init__(self, settings: Settings, model_dir: Path):
        self.registry = Registry(model_dir)
        self._settings = settings
        self._embeddings = EmbeddingCache(settings.embedding_cache_mb * _MIB)
        self.versions = Versions(model_dir, settings.keep_versions)
        self.priority = InteractivePriority(model_dir)
        self.prefetcher = Prefetcher(settings.prefetch, self._embeddings, self.priority)
        self._loaded: dict[torch.device, tuple[Predictor, Weights]] = {}
        self._published: dict[torch.device, str | None] = {}
        self._served: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def embedding_bytes(self) -> int:
        """Memory of the kept image embeddings in bytes."""
        return self._embeddings.used

    @property
    def encoded(self) -> int:
        """Number of frames that networks have encoded."""
        return self._embeddings.encoded

    def get(self, device: str | None = None) -> Predictor:
        """The predictor of a device; see ``served``."""
        return self.served(device)[0]

    def weights(self, device: str | None = None) -> Weights:
        """The weights in service on a device; see ``served``."""
        return self.served(device)[1]

    def served(self, device: str | None = None) -> tuple[Predictor, Weights]:
        """The predictor of a device, and its weights: of two calls, each may find others in service.

        They are loaded now if they are not yet, or if others were published since.

        Args:
            device: Device of the request; None or empty for the app's own.

        Raises:
            DeviceError: for a device that does not exist here.
            CheckpointError: when no weights can be loaded, the bundled ones included.
        """
        target = resolve_device(device or self._settings.device)
        with self._lock:
            published = self.versions.current()
            if target not in self._loaded or self._published[target] != published:
                self._loaded[target] = self._load(target)
                self._published[target] = published
            return self._loaded[target]

    def roll_back(self, version: str) -> None:
        """Serves a published version from now on, or the weights that were there before all of them.

        Args:
            version: Name of the version, or ``base``.

        Raises:
            CheckpointError: no version has this name.
        """
        self.versions.switch(None if version == BASE else version)

    def status(self) -> dict[str, dict[str, str]]:
        """Which weights are in service and why, by device, and which were refused and why."""
        return {"served": dict(self._served), "refused": dict(self._refused)}

    def _load(self, device: torch.device) -> tuple[Predictor, Weights]:
        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        runtime = Runtime(device, self._settings.precision)
        for weights in candidates(self._settings, self.registry, runtime.type):
            try:
                return self._predictor(weights, runtime), weights
            except CheckpointError as error:
                self._refused[weights.name] = str(error)
                logger.error("Weights refused, going on with the next: %s", error)
        raise CheckpointError(
            "no weights could be loaded: " + "; ".join(self._refused.values() or ["none is present"])
        )

    def _predictor(self, weights: Weights, runtime: Runtime) -> Predictor:
        network = load_network(weights, self.registry, runtime.type)
        # Loading has checked a known sha256 already, and a large file takes a second to hash.
        version = weights.sha256 or sha256_of(weights.path)
        predictor = Predictor(network, runtime, self._embeddings, weights.name, version)
        precision = str(runtime.dtype).removeprefix("torch.")
        summary = f"{weights.name} ({weights.reason}), {predictor.image_size} px, {precision}"
        self._served[str(runtime.device)] = summary
        logger.info("Serving %s on %s", summary, runtime.device)
        if self._settings.runtime == "compile":
            predictor.use_compiler()
        if openvino_dtype(self._settings, runtime) is not None:
            folder = parts_folder(weights, version, predictor.image_size, runtime.dtype)
            arguments = (predictor, weights, folder, summary)
            if folder.exists():
                # At once, and torch's first run with the memory that it takes is spared.
                self._use_openvino(*arguments)
            else:
                threading.Thread(
                    target=self._use_openvino, args=arguments, name="openvino", daemon=True
                ).start()
        return predictor

    def _use_openvino(self, predictor: Predictor, weights: Weights, folder: Path, summary: str) -> None:
        """Converts the network where it was not yet, and goes over from torch to OpenVINO."""
        device = str(predictor.runtime.device)
        try:
            if not folder.exists():
                logger.info("Converting %s for OpenVINO; torch computes meanwhile", weights.name)
                convert_in_child(weights, self.registry.folder, predictor.runtime.dtype, folder)
            predictor.use_openvino(folder, self._settings.threads)
        except Exception as error:
            # OpenVINO, the disk and the conversion raise many kinds, and torch serves with all of them.
            logger.warning("OpenVINO is not used for %s, torch goes on: %s", weights.name, error)
            shutil.rmtree(folder, ignore_errors=True)
            return
        logger.info("OpenVINO computes %s on %s", weights.name, device)
        if self._served.get(device) == summary:
            self._served[device] = f"{summary}, OpenVINO"


def openvino_dtype(settings: Settings, runtime: Runtime | None = None) -> torch.dtype | None:
    """Number format in which OpenVINO computes a network of the server; None where torch does.

    Args:
        settings: App settings (`--conf`).
        runtime: Device; the app's own by default.
    """
    runtime = runtime or Runtime(resolve_device(settings.device), settings.precision)
    # A program that uses the engine for a moment would wait for a conversion.
    chosen = belongs_to_server() and is_chosen(settings.runtime, runtime.type)
    return runtime.dtype if chosen else None
