"""The networks that are compared: weights by name, opened and ready."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lib.engine.builder import load_network
from lib.engine.checkpoints import named_weights, sha256_of
from lib.engine.embeddings import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime, resolve_device
from lib.errors import EvaluationError
from lib.evaluation.options import Options
from lib.evaluation.protocol import Rules
from lib.settings import Settings

# Raised whenever the same options would give other numbers, so that old rows are not taken for new ones.
PROTOCOL = 1
_MIB = 1 << 20


@dataclass(frozen=True, eq=False)
class Entrant:
    """One network.

    Attributes:
        name: for tables.
        sha256: of its weights.
        predictor: the network on its device.
    """

    name: str
    sha256: str
    predictor: Predictor

    def describe(self) -> dict[str, Any]:
        """What its results depend on."""
        runtime = self.predictor.runtime
        return {
            "sha256": self.sha256,
            "image_size": self.predictor.image_size,
            "device": runtime.type,
            "precision": str(runtime.dtype).removeprefix("torch."),
        }


def open_entrants(options: Options) -> list[Entrant]:
    """Loads every network that is named.

    Raises:
        CheckpointError: weights are absent, damaged or of another architecture.
        DeviceError: the device does not exist here.
        EvaluationError: two of the weights would have one name.
    """
    settings = Settings(device=options.device, image_size=options.image_size, model_dir=options.model_dir)
    registry = Registry(options.model_dir)
    runtime = Runtime(resolve_device(options.device), settings.precision)
    embeddings = EmbeddingCache(settings.embedding_cache_mb * _MIB)
    entrants: list[Entrant] = []
    for name in dict.fromkeys(options.weights):
        weights = named_weights(name, settings, registry, runtime.type, "named by --weights")
        network = load_network(weights, registry, runtime.type)
        sha256 = weights.sha256 or sha256_of(weights.path)
        predictor = Predictor(network, runtime, embeddings, weights.name, sha256)
        entrants.append(Entrant(weights.name, sha256, predictor))
    _require_different(entrants)
    return entrants


def fingerprint(entrant: Entrant, options: Options, rules: Rules) -> str:
    """Names everything that decides the value of a row, in 16 hex digits."""
    facts = {
        "protocol": PROTOCOL,
        "entrant": entrant.describe(),
        "options": options.deciding(),
        "rules": {**asdict(rules), "labelled_slices": sorted(rules.labelled_slices)},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _require_different(entrants: Sequence[Entrant]) -> None:
    names = [entrant.name for entrant in entrants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(
            f"two of --weights are called {', '.join(twice)}, and a table could not tell them apart: "
            "rename one of the files"
        )
