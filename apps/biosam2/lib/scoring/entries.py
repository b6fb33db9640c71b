"""Reading and writing a datastore for scoring: image files, labels, infos, and their change stamps."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException

from lib.engine.checkpoints import Weights
from lib.engine.predictor import Predictor
from lib.errors import ImageNotFoundError
from lib.files import file_stamp
from lib.labels.names import listed_label_info
from lib.scoring.store import scores_folder

logger = logging.getLogger(__name__)

FINAL, ORIGINAL = DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value


@dataclass(frozen=True)
class LabelEntry:
    """A label file of an image.

    Attributes:
        path: Label file.
        info: Label info from the client.
    """

    path: Path
    info: Mapping[str, Any]

    @property
    def label_info(self) -> list[Mapping[str, Any]]:
        """Names of the label values, ``[{"name": ..., "idx": ...}]``; empty if the client sent none."""
        return listed_label_info(self.info)


def image_path(datastore: Datastore, image_id: str) -> Path:
    """File of an image, or its folder of DICOM files; a DICOMweb datastore downloads it now.

    Raises:
        ImageNotFoundError: The datastore has no such image, or cannot load it.
    """
    try:
        uri = datastore.get_image_uri(image_id)
    except Exception as error:
        # DICOMweb clients raise many kinds of exceptions for a failed download.
        raise ImageNotFoundError(f"Image {image_id} cannot be loaded from the datastore: {error}") from error
    if not uri or not Path(uri).exists():
        raise ImageNotFoundError(f"Image {image_id} is no longer in the datastore")
    return Path(uri)


def scores_of(datastore: Datastore, model_dir: Path) -> Path:
    """Folder of a datastore's scores.

    Args:
        datastore: The app's datastore.
        model_dir: Folder of ``registry.yaml``.
    """
    return scores_folder(model_dir, Path(getattr(datastore, "_datastore_path", None) or datastore.name()))


def is_here(datastore: Datastore, image_id: str) -> bool:
    """Whether an image is stored on this machine; an image of a DICOM store may have to be downloaded."""
    ask = getattr(datastore, "is_here", None)
    return ask is None or bool(ask(image_id))


def label_entry(datastore: Datastore, image_id: str, tag: str = FINAL) -> LabelEntry | None:
    """Label of an image; None without a label of this tag, or if its file is missing."""
    label_id = datastore.get_label_by_image_id(image_id, tag)
    if not label_id:
        return None
    uri = datastore.get_label_uri(label_id, tag)
    if not uri or not Path(uri).is_file():
        return None
    return LabelEntry(Path(uri), dict(datastore.get_label_info(label_id, tag) or {}))


def labelled(datastore: Datastore) -> Iterator[tuple[str, LabelEntry]]:
    """Images with a final label, by id; from a DICOM store only those on this machine."""
    for image_id in sorted(datastore.list_images()):
        entry = label_entry(datastore, image_id) if is_here(datastore, image_id) else None
        if entry is not None:
            yield image_id, entry


def stamp(path: Path) -> str:
    """Changes whenever a file, or a file of a folder, is written.

    Raises:
        ImageNotFoundError: The file is missing.
    """
    try:
        return file_stamp(path)
    except OSError as error:
        raise ImageNotFoundError(f"{path.name} is missing: {error}") from error


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
