"""MONAI Label's strategies: the next image for one annotator, and why."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.strategy import Strategy
from numpy.typing import NDArray

from lib.activelearning.leases import Annotator, LeaseBook
from lib.activelearning.selectors import SELECTORS, Candidate, Choice, Random, Selector
from lib.datastores.label_entries import AUTOMATIC
from lib.errors import ImageNotFoundError, PromptError
from lib.infers.automatic import NAME as AUTO
from lib.labels.values import UNNAMED_CLIENT, listed_label_info
from lib.pathology.opening import tissue_of
from lib.scoring.store import ImageScore, ScoreStore


@dataclass(frozen=True)
class Pool:
    """Ids of a datastore's images at one moment, without and with a final label."""

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


def next_patch(
    request: Mapping[str, Any], rng: np.random.Generator, tissue: NDArray[np.bool_] | None = None
) -> list[int] | None:
    """Chooses a random patch ``[x, y, width, height]`` in pixels, no larger than the image.

    Args:
        request: ``patch_size`` and ``image_size``, each ``[width, height]``.
        rng: Random generator.
        tissue: bool (h, w), tissue on an overview of the image; the patch's centre lies on it. None for
            anywhere.

    Returns:
        The patch; None where one of the two sizes is missing or zero.

    Raises:
        PromptError: A size is no pair of whole numbers.
    """
    patch, image = (_size(request, name) for name in ("patch_size", "image_size"))
    if not all(patch) or not all(image):
        return None
    width, height = (min(of_patch, of_image) for of_patch, of_image in zip(patch, image, strict=True))
    if tissue is None:
        x, y = (int(rng.integers(image[axis] - side + 1)) for axis, side in enumerate((width, height)))
        return [x, y, width, height]
    rows, columns = np.nonzero(tissue)
    chosen = int(rng.integers(len(rows)))
    x, y = (
        round((index[chosen] + rng.random()) / size * image[axis] - side / 2)
        for axis, (index, size, side) in enumerate(
            zip((columns, rows), tissue.shape[::-1], (width, height), strict=True)
        )
    )
    return [min(max(0, x), image[0] - width), min(max(0, y), image[1] - height), width, height]


def _size(request: Mapping[str, Any], name: str) -> tuple[int, int]:
    value = request.get(name) or (0, 0)
    whole = isinstance(value, (list, tuple)) and all(type(side) is int and side >= 0 for side in value)
    if not whole or len(value) != 2:
        raise PromptError(f"{name} is {value!r}; it must be [width, height] in pixels")
    return value[0], value[1]


logger = logging.getLogger(__name__)

# Key of the answer that holds the choice; the route merges it into the answer.
CHOICE = "choice"
# Key of the request for the annotator's address and browser, added by the route.
ANNOTATOR = "annotator"

_LEASES_FILE = "leases.json"
_OWN = "already assigned to you and without a final label"
_LAST = "already assigned to you; no other image is free"
_NAMED = "requested by name"


def all_strategies(default: str, lease_minutes: float, scores: ScoreStore) -> dict[str, Strategy]:
    """Every strategy by name; all share one lease book, with leases of some minutes.

    ``random`` is ``default``: OHIF cannot ask for another strategy, so the server decides.
    """
    leases = LeaseBook(lease_minutes, file=scores.folder / _LEASES_FILE)
    strategies: dict[str, Strategy] = {}
    for asked in SELECTORS:
        name = default if asked == Random.name else asked
        description = SELECTORS[name].description + ("" if name == asked else f" (--conf strategy {name})")
        strategies[asked] = NextImage(name, SELECTORS[name](), description, scores, leases)
    return strategies


class NextImage(Strategy):
    """Answers "next sample" with the best image that nobody else works on.

    *Assignment.* A named annotator (signed in, or named in Slicer) gets the same image until its final
    label is saved or the lease expires, so that nothing is lost when a viewer is closed; ``skip: true``
    moves on to the next one. An unnamed annotator (OHIF, QuPath, a fresh Slicer) gets another image at
    each request, since the button says *next*, and holds all of them until their leases expire; when no
    image is free they get the one they have held longest. Images of other annotators are never given out:
    without a free image the answer is that of an empty pool, and the log has the reason. An image that
    cannot be opened counts as skipped.

    *Named image.* QuPath asks for the next patch of the open picture; the request names the image.
    """

    def __init__(
        self,
        name: str,
        selector: Selector,
        description: str,
        scores: ScoreStore,
        leases: LeaseBook,
        rng: Callable[[], np.random.Generator] = np.random.default_rng,
    ):
        super().__init__(description)
        self._name = name
        self._selector = selector
        self._scores = scores
        self._leases = leases
        self._rng = rng

    def info(self) -> dict[str, Any]:
        """Description and options for ``/info/``; viewers let people change the options."""
        return {"description": self.description, "config": {"skip": False}}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Chooses the next image.

        Args:
            request: ``client_id``, ``skip``; from QuPath also ``image``, ``patch_size`` and ``image_size``.
            datastore: The app's datastore.

        Returns:
            Image id and, under ``choice``, score, rank, strategy, reason and slice; None if no image is left.

        Raises:
            ImageNotFoundError: The requested image is not in the datastore.
            PromptError: A size in the request is invalid.
            BusyError: The image has to be downloaded and the store does not send it.
        """
        annotator, pool = _annotator_of(request), read_pool(datastore)
        if request.get("image"):
            answer = self._named(annotator, request, pool, datastore)
        else:
            if request.get("skip"):
                self._leases.skip(annotator)
            choice = self._choose(annotator, pool, datastore)
            if choice is None:
                self._log_nothing_left(pool)
                return None
            answer = _answer(choice)
        try:
            # MONAI Label opens it next, but could not end the lease of an image that fails to open.
            datastore.get_image_uri(answer["id"])
        except Exception:
            self._leases.skip(annotator, answer["id"])
            raise
        return answer

    def _choose(self, annotator: Annotator, pool: Pool, datastore: Datastore) -> Choice | None:
        ranked: dict[str, Choice] = {}

        def rank(free: Sequence[str], held: Sequence[str]) -> Iterator[str]:
            known = read_candidates((*free, *held, *pool.labelled), datastore, self._scores)
            beside = [known[name] for name in (*pool.labelled, *held)]
            for choice in self._selector.rank([known[name] for name in free], beside, self._rng()):
                # Its label may have been saved during ranking.
                if not was_labelled_here(datastore, choice.id):
                    ranked[choice.id] = choice
                    yield choice.id

        taken = self._leases.take(annotator, pool.unlabelled, rank)
        if taken is None:
            return None
        return ranked.get(taken) or self._unranked(taken, _OWN if annotator.is_named else _LAST, datastore)

    def _unranked(self, image: str, why: str, datastore: Datastore) -> Choice:
        candidate = read_candidates([image], datastore, self._scores)[image]
        return Choice(image, 0, candidate.score, self._name, why, candidate.slice_index)

    def _named(
        self, annotator: Annotator, request: Mapping[str, Any], pool: Pool, datastore: Datastore
    ) -> dict[str, Any]:
        known, image = (*pool.unlabelled, *pool.labelled), str(request["image"])
        # QuPath sends the name of "My Slide" as "My%20Slide".
        image = image if image in known else unquote(image)
        if image not in known:
            raise ImageNotFoundError(f"Unknown image {image!r}; /datastore/ lists the ids")
        tissue = tissue_of(Path(datastore.get_image_uri(image))) if request.get("patch_size") else None
        patch = next_patch(request, self._rng(), tissue)
        if image in pool.unlabelled and not self._leases.open(annotator, image):
            logger.warning("Image %s is open in two viewers: it was requested by name", image)
        return {**_answer(self._unranked(image, _NAMED, datastore)), **({"bbox": patch} if patch else {})}

    def _log_nothing_left(self, pool: Pool) -> None:
        if not pool.unlabelled:
            logger.info("No next image: all %d images have a final label", len(pool.labelled))
            return
        logger.warning(
            "No next image: all %d without a final label are with annotators; a lease ends in %.0f minutes",
            len(pool.unlabelled),
            (self._leases.next_end_s(pool.unlabelled) or 0.0) / 60,
        )


def _annotator_of(request: Mapping[str, Any]) -> Annotator:
    """Identified by ``client_id`` unless it is a viewer's default, else by address and browser."""
    client = request.get("client_id")
    if client and client != UNNAMED_CLIENT:
        return Annotator(f"client {client}", is_named=True)
    return Annotator(f"unnamed {request.get(ANNOTATOR, '')}", is_named=False)


def _answer(choice: Choice) -> dict[str, Any]:
    told = asdict(choice)
    image, slice_index = told.pop("id"), told.pop("slice_index")
    return {"id": image, CHOICE: {**told, "slice": slice_index}}
