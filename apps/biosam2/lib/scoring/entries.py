"""Infos of a datastore's images for scoring, and the identity of scores and weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException

from lib.datastores.label_entries import stamp
from lib.engine.checkpoints import Weights
from lib.engine.predictor import Predictor
from lib.scoring.store import scores_folder

logger = logging.getLogger(__name__)


def scores_of(datastore: Datastore, model_dir: Path) -> Path:
    """Folder of a datastore's scores.

    Args:
        datastore: The app's datastore.
        model_dir: Folder of ``registry.yaml``.
    """
    return scores_folder(model_dir, Path(getattr(datastore, "_datastore_path", None) or datastore.name()))


def weights_key(weights: Weights, predictor: Predictor) -> str:
    """Identifies weights by content, input size and precision."""
    content = weights.sha256[:16] if weights.sha256 else stamp(weights.path)
    precision = str(predictor.runtime.dtype).removeprefix("torch.")
    return f"{weights.name} {content} at {predictor.image_size} px {precision}"


def read_info(datastore: Datastore, image_id: str) -> Mapping[str, Any]:
    """Info of an image; empty if the datastore has none."""
    try:
        return dict(datastore.get_image_info(image_id) or {})
    except (ImageNotFoundException, NotImplementedError):
        return {}


def write_info(datastore: Datastore, image_id: str, facts: Mapping[str, Any]) -> bool:
    """Writes facts into the info of an image unless they are there already.

    Args:
        datastore: The app's datastore; without infos nothing is written, since scores have their own files.
        image_id: Image id; nothing is written for a removed image.
        facts: Plain JSON without NaN.

    Returns:
        Whether anything was written.

    Raises:
        ValueError: A fact is NaN or infinite, which JSON clients cannot read.
    """
    plain = json.loads(json.dumps(dict(facts), allow_nan=False))
    present = read_info(datastore, image_id)
    if all(name in present and present[name] == value for name, value in plain.items()):
        return False
    try:
        datastore.update_image_info(image_id, plain)
    except (ImageNotFoundException, NotImplementedError) as error:
        logger.info("Info of %s not written: %s", image_id, error)
        return False
    return True
