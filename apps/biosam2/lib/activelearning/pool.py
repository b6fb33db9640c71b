"""The datastore's images as candidates: labelled or not, with scores and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.activelearning.candidate import Candidate
from lib.datastores.label_entries import AUTOMATIC
from lib.infers.automatic import NAME as AUTO
from lib.labels.names import listed_label_info
from lib.scoring.store import ImageScore, ScoreStore


@dataclass(frozen=True)
class Pool:
    """Images of a datastore at one moment.

    Attributes:
        unlabelled: Ids of images without a final label.
        labelled: Ids of images with a final label.
    """

    unlabelled: tuple[str, ...]
    labelled: tuple[str, ...]


def read_pool(datastore: Datastore) -> Pool:
    """Divides the images by whether they have a final label."""
    images = datastore.list_images()
    unlabelled = set(datastore.get_unlabeled_images())
    unlabelled = {name for name in unlabelled if not was_labelled_here(datastore, name)}
    return Pool(
        tuple(name for name in images if name in unlabelled),
        tuple(name for name in images if name not in unlabelled),
    )


def was_labelled_here(datastore: Datastore, name: str) -> bool:
    """Whether this server holds a final label of an image.

    MONAI Label refreshes the segmentations of a DICOMweb store every two hours only; a label saved through
    this server is in the local part at once. Other datastores are not asked: each question would be a request
    over the network.
    """
    local = isinstance(datastore, LocalDatastore)
    return local and bool(datastore.get_label_by_image_id(name, DefaultLabelTag.FINAL))


def read_candidates(images: Iterable[str], datastore: Datastore, scores: ScoreStore) -> dict[str, Candidate]:
    """Candidates by image id.

    A score of weights no longer in service is used until there is a new one. Embeddings of different weights
    are not comparable: only those of the weights that scored the most images are used.

    Args:
        images: Image ids.
        datastore: Source of the classes of labelled images.
        scores: Source of uncertainty, embedding, and classes found by the model.
    """
    found = {name: scores.get(name) for name in images}
    weights = Counter(score.weights for score in found.values() if score is not None)
    common = max(weights, key=lambda name: (weights[name], name), default="")
    return {name: _candidate(name, datastore, score, common) for name, score in found.items()}


def _candidate(name: str, datastore: Datastore, score: ImageScore | None, common: str) -> Candidate:
    drawn, confidence = _drawn_classes(name, datastore), _confidence(name, datastore)
    if score is None:
        return Candidate(name, labels=drawn, confidence=confidence)
    return Candidate(
        id=name,
        score=score.score,
        embedding=score.embedding if score.weights == common else None,
        labels=drawn or score.labels,
        slice_index=score.slice_index,
        confidence=confidence,
    )


def _confidence(name: str, datastore: Datastore) -> float | None:
    """Least confidence of the labels that ``biosam2_auto`` has saved of an image; None without any."""
    if not isinstance(datastore, LocalDatastore):
        return None
    infos = (datastore.get_label_info(name, tag) or {} for tag in datastore.get_labels_by_image_id(name))
    scores = [info["params"]["score"] for info in infos if info.get("model") == AUTO and info.get(AUTOMATIC)]
    return min(scores, default=None)


def _drawn_classes(name: str, datastore: Datastore) -> tuple[str, ...]:
    """Classes of the final label, as far as the client named them."""
    if not was_labelled_here(datastore, name):
        return ()
    info = datastore.get_label_info(name, DefaultLabelTag.FINAL) or {}
    names = (item.get("name") for item in listed_label_info(info))
    return tuple(dict.fromkeys(str(item) for item in names if item))
