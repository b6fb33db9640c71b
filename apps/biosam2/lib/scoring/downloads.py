"""Which images of a DICOM store are downloaded to be scored: few, of thousands that nobody asked for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from monailabel.interfaces.datastore import Datastore

from lib.scoring.fingerprints import is_here

# Images that are tried for each that may be downloaded: a store that is away is not asked for all it has.
TRIES = 5


def to_try(datastore: Datastore, most: int) -> list[str]:
    """Images without a label that are not on this machine, by chance: each call tries others.

    Where some cannot be had, the others come all the same.

    Args:
        datastore: of the images.
        most: that may be downloaded.
    """
    away = [image_id for image_id in datastore.get_unlabeled_images() if not is_here(datastore, image_id)]
    np.random.default_rng().shuffle(away)
    return away[: most * TRIES]


def downloaded(datastore: Datastore, tried: Iterable[str]) -> int:
    """How many of them are on this machine now."""
    return sum(is_here(datastore, image_id) for image_id in tried)
