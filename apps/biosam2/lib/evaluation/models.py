"""The evaluated networks: weights by name, loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lib.engine.builder import load_network
from lib.engine.checkpoints import named_weights, sha256_of
from lib.engine.embeddings import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime, resolve_device
from lib.errors import EvaluationError
from lib.evaluation.options import EvaluationOptions
from lib.evaluation.protocol import MetricRules
from lib.settings import Settings

# Increased whenever the same options give other numbers, so that old results are not reused.
PROTOCOL = 1
_MIB = 1 << 20


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """One network."""

    name: str
    sha256: str
    predictor: Predictor

    def describe(self) -> dict[str, Any]:
        """What its results depend on."""
        return {"sha256": self.sha256, **described(self.predictor.runtime, self.predictor.image_size)}


def described(runtime: Runtime, image_size: int) -> dict[str, Any]:
    """What results depend on besides the weights."""
    return {
        "image_size": image_size,
        "device": runtime.type,
        "precision": str(runtime.dtype).removeprefix("torch."),
    }


def open_models(options: EvaluationOptions) -> list[EvaluatedModel]:
    """Loads all named networks.

    Raises:
        CheckpointError: weights are absent, damaged or have another architecture.
        DeviceError: the device does not exist.
        EvaluationError: two weights have the same name.
    """
    settings = Settings(device=options.device, image_size=options.image_size, model_dir=options.model_dir)
    registry = Registry(options.model_dir)
    runtime = Runtime(resolve_device(options.device), settings.precision)
    embeddings = EmbeddingCache(settings.embedding_cache_mb * _MIB)
    models: list[EvaluatedModel] = []
    for name in dict.fromkeys(options.weights):
        weights = named_weights(name, settings, registry, runtime.type, "named by --weights")
        network = load_network(weights, registry, runtime.type)
        sha256 = weights.sha256 or sha256_of(weights.path)
        predictor = Predictor(network, runtime, embeddings, weights.name, sha256)
        models.append(EvaluatedModel(weights.name, sha256, predictor))
    _require_different(models)
    return models


def fingerprint(model: EvaluatedModel, options: EvaluationOptions, rules: MetricRules) -> str:
    """Hash of everything that decides the value of a result besides the case, 16 hex digits."""
    return facts_hash(
        {
            "protocol": PROTOCOL,
            "model": model.describe(),
            "options": options.deciding(),
            "rules": rules.model_dump(mode="json"),
        }
    )


def facts_hash(facts: dict[str, Any]) -> str:
    """Hash of JSON values, 16 hex digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _require_different(models: Sequence[EvaluatedModel]) -> None:
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(
            f"Two of --weights have the same name in tables ({', '.join(twice)}): rename one of the files"
        )
