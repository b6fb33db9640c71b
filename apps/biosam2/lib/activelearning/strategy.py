"""A strategy of MONAI Label: the next image for one annotator, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.candidate import Choice, Selector
from lib.activelearning.leases import Annotator, LeaseBook
from lib.activelearning.patches import next_patch
from lib.activelearning.pool import Pool, read_candidates, read_pool, was_labelled_here
from lib.errors import ImageNotFoundError
from lib.labels.annotators import UNNAMED_CLIENT
from lib.scoring.store import ScoreStore

logger = logging.getLogger(__name__)

# Key of the answer under which the choice stands; the route spreads it over the answer.
CHOICE = "choice"
# Key of the request under which the route puts who asks, for clients that send no name.
ANNOTATOR = "annotator"

_OWN = "yours already, and without a final label"
_LAST = "yours already, and nothing else is free"
_NAMED = "the one that was asked for"


class NextImage(Strategy):
    """Answers "next sample": the best image that nobody else works on.

    *Who gets what.* An annotator with a name (who signed in, or entered one in Slicer) gets the image that
    they hold again until its final label is saved or the lease ends: so a viewer that was closed loses
    nothing. With ``skip: true`` they pass it over and get the next one. An annotator without a name (OHIF,
    QuPath, a fresh Slicer) gets another image each time, since their button says *next*, and holds them all
    until their leases end. When everything is held, they get that again which they themselves have held the
    longest. Nobody ever gets what somebody else holds: where nothing is left, the answer is that of an empty
    pool, and the log says why. An image that cannot be had counts as passed over.

    *A named image* (QuPath asks for the next patch of the picture that is open) is given as it was named.

    Args:
        name: of the selector, for the answer.
        selector: orders the images.
        description: for viewers.
        scores: of the images.
        leases: of all strategies together.
        rng: a source of chance for one request.
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
        """What ``/info/`` shows; viewers let people change the options."""
        return {"description": self.description, "config": {"skip": False}}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The next image.

        Args:
            request: ``client_id``, ``skip``, and of QuPath ``image``, ``patch_size`` and ``image_size``.
            datastore: of the app.

        Returns:
            The id and, under ``choice``, score, rank, strategy, reason and slice; None where there is none.

        Raises:
            ImageNotFoundError: the image that the request names is not there.
            PromptError: a size that the request names is none.
            BusyError: the image has to be downloaded, and the store does not send it.
        """
        annotator, pool = _who_asks(request), read_pool(datastore)
        if request.get("image"):
            answer = self._named(annotator, request, pool, datastore)
        else:
            if request.get("skip"):
                self._leases.pass_over(annotator)
            choice = self._choose(annotator, pool, datastore)
            if choice is None:
                self._log_nothing_left(pool)
                return None
            answer = _answer(choice)
        try:
            # MONAI Label does so next: here it is known who would hold what they cannot open.
            datastore.get_image_uri(answer["id"])
        except Exception:
            self._leases.pass_over(annotator, answer["id"])
            raise
        return answer

    def _choose(self, annotator: Annotator, pool: Pool, datastore: Datastore) -> Choice | None:
        ranked: dict[str, Choice] = {}

        def rank(free: Sequence[str], held: Sequence[str]) -> Iterator[str]:
            known = read_candidates((*free, *held, *pool.labelled), datastore, self._scores)
            beside = [known[name] for name in (*pool.labelled, *held)]
            for choice in self._selector.rank([known[name] for name in free], beside, self._rng()):
                # Its label may have been saved while the order was made.
                if not was_labelled_here(datastore, choice.id):
                    ranked[choice.id] = choice
                    yield choice.id

        taken = self._leases.take(annotator, pool.unlabelled, rank)
        if taken is None:
            return None
        return ranked.get(taken) or self._again(taken, _OWN if annotator.is_named else _LAST, datastore)

    def _again(self, image: str, why: str, datastore: Datastore) -> Choice:
        candidate = read_candidates([image], datastore, self._scores)[image]
        return Choice(image, 0, candidate.score, self._name, why, candidate.slice_index)

    def _named(
        self, annotator: Annotator, request: Mapping[str, Any], pool: Pool, datastore: Datastore
    ) -> dict[str, Any]:
        image = str(request["image"])
        if image not in (*pool.unlabelled, *pool.labelled):
            raise ImageNotFoundError(
                f"there is no image {image!r} in the datastore; /datastore/ lists the ids"
            )
        patch = next_patch(request, self._rng())
        if image in pool.unlabelled and not self._leases.open(annotator, image):
            logger.warning("%s is open in two viewers: it was asked for by its name", image)
        return {**_answer(self._again(image, _NAMED, datastore)), **({"bbox": patch} if patch else {})}

    def _log_nothing_left(self, pool: Pool) -> None:
        if not pool.unlabelled:
            logger.info("No next image: all %d have a final label", len(pool.labelled))
            return
        logger.warning(
            "No next image: all %d without a final label are with annotators; a lease ends in %.0f minutes",
            len(pool.unlabelled),
            (self._leases.next_end_s(pool.unlabelled) or 0.0) / 60,
        )


def _who_asks(request: Mapping[str, Any]) -> Annotator:
    """Who asks: by ``client_id`` where it is somebody's own, else by what the route knows of them."""
    client = request.get("client_id")
    if client and client != UNNAMED_CLIENT:
        return Annotator(f"client {client}", is_named=True)
    return Annotator(f"unnamed {request.get(ANNOTATOR, '')}", is_named=False)


def _answer(choice: Choice) -> dict[str, Any]:
    return {
        "id": choice.id,
        CHOICE: {
            "score": choice.score,
            "rank": choice.rank,
            "strategy": choice.strategy,
            "why": choice.why,
            "slice": choice.slice_index,
        },
    }
