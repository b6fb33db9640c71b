"""Writing what a scoring found into the images' infos, which every client can ask for."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException

logger = logging.getLogger(__name__)


def read_info(datastore: Datastore, image_id: str) -> Mapping[str, Any]:
    """The info of an image; empty where the datastore has none for it."""
    try:
        return dict(datastore.get_image_info(image_id) or {})
    except (ImageNotFoundException, NotImplementedError):
        return {}


def write_info(datastore: Datastore, image_id: str, facts: Mapping[str, Any]) -> bool:
    """Writes facts into the info of an image, where they are not there yet.

    Args:
        datastore: one that keeps no infos is left alone: the scores themselves lie elsewhere.
        image_id: one that has gone meanwhile is left alone too.
        facts: in plain JSON, without NaN.

    Returns:
        Whether anything was written.

    Raises:
        ValueError: a fact is NaN or infinite, which would break every client that asks for it.
    """
    plain = json.loads(json.dumps(dict(facts), allow_nan=False))
    present = read_info(datastore, image_id)
    if all(name in present and present[name] == value for name, value in plain.items()):
        return False
    try:
        datastore.update_image_info(image_id, plain)
    except (ImageNotFoundException, NotImplementedError) as error:
        logger.info("The info of %s is not written: %s", image_id, error)
        return False
    return True
