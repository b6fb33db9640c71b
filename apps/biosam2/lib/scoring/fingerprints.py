"""The files of a datastore and of the model, and whether they are still what they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.engine.checkpoints import Weights
from lib.engine.predictor import Predictor
from lib.errors import ImageNotFoundError
from lib.files import file_stamp
from lib.labels.names import listed_label_info
from lib.scoring.store import scores_folder

FINAL, ORIGINAL = DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value


@dataclass(frozen=True)
class LabelEntry:
    """A label of an image, as a file.

    Attributes:
        path: of the label.
        info: what the client said of it.
    """

    path: Path
    info: Mapping[str, Any]

    @property
    def label_info(self) -> list[Mapping[str, Any]]:
        """Names of its values, ``[{"name": ..., "idx": ...}]``; empty where the client sent none."""
        return listed_label_info(self.info)


def image_path(datastore: Datastore, image_id: str) -> Path:
    """The file of an image, or its folder of DICOM files; a DICOMweb datastore downloads it now.

    Raises:
        ImageNotFoundError: the datastore has no such image, or cannot have it.
    """
    try:
        uri = datastore.get_image_uri(image_id)
    except Exception as error:
        # A download fails in as many ways as there are clients of DICOMweb.
        raise ImageNotFoundError(f"{image_id} cannot be had from the datastore: {error}") from error
    if not uri or not Path(uri).exists():
        raise ImageNotFoundError(f"{image_id} is not in the datastore any more")
    return Path(uri)


def scores_of(datastore: Datastore, model_dir: Path) -> Path:
    """The folder of what scorings keep of a datastore.

    Args:
        datastore: of the images.
        model_dir: the folder of ``registry.yaml``.
    """
    return scores_folder(model_dir, Path(getattr(datastore, "_datastore_path", None) or datastore.name()))


def is_here(datastore: Datastore, image_id: str) -> bool:
    """Whether an image lies on this machine already: that of a DICOM store may have to be downloaded."""
    ask = getattr(datastore, "is_here", None)
    return ask is None or bool(ask(image_id))


def label_entry(datastore: Datastore, image_id: str, tag: str = FINAL) -> LabelEntry | None:
    """A label of an image; None where it has none with this tag, or its file is gone."""
    label_id = datastore.get_label_by_image_id(image_id, tag)
    if not label_id:
        return None
    uri = datastore.get_label_uri(label_id, tag)
    if not uri or not Path(uri).is_file():
        return None
    return LabelEntry(Path(uri), dict(datastore.get_label_info(label_id, tag) or {}))


def labelled(datastore: Datastore) -> Iterator[tuple[str, LabelEntry]]:
    """The images that have a final label, by id; of a DICOM store, those that lie here already."""
    for image_id in sorted(datastore.list_images()):
        entry = label_entry(datastore, image_id) if is_here(datastore, image_id) else None
        if entry is not None:
            yield image_id, entry


def stamp(path: Path) -> str:
    """Another one whenever a file, or a file of a folder, was written again.

    Raises:
        ImageNotFoundError: it is gone.
    """
    try:
        return file_stamp(path)
    except OSError as error:
        raise ImageNotFoundError(f"{path.name} is gone: {error}") from error


def weights_key(weights: Weights, predictor: Predictor) -> str:
    """What tells weights, and the way they are run, from others: their content where it is known."""
    content = weights.sha256[:16] if weights.sha256 else stamp(weights.path)
    precision = str(predictor.runtime.dtype).removeprefix("torch.")
    return f"{weights.name} {content} at {predictor.image_size} px {precision}"
