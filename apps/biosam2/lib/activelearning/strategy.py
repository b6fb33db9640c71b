"""A strategy of MONAI Label: the next image for one annotator, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.candidates import Pool, read_candidates, read_pool, was_labelled_here
from lib.activelearning.leases import Annotator, LeaseBook
from lib.activelearning.patches import next_patch
from lib.errors import ImageNotFoundError
from lib.selection.candidate import Choice, Selector
from lib.signals.store import ScoreStore

logger = logging.getLogger(__name__)

# Key of the answer under which the choice stands; the route spreads it over the answer.
CHOICE = "choice"
# Key of the request under which the route puts who asks, for clients that send no client_id.
ANNOTATOR = "annotator"

_OWN = "yours already, and without a final label"
_LAST = "yours already, and nothing else is free"
_NAMED = "the one that was asked for"


class NextImage(Strategy):
    """Answers "next sample": the best image that nobody else works on.

    *Who gets what.* An annotator with a name (a ``client_id``: Slicer) gets the image that they hold again
    until its final label is saved or the lease ends: so a viewer that was closed loses nothing. With
    ``skip: true`` they pass it over and get the next one. An annotator without a name (OHIF, QuPath) gets
    another image each time, since their button says *next*, and holds them all until their leases end. When
    everything is held, they get that again which they themselves have held the longest. Nobody ever gets what
    somebody else holds: where nothing is left, the answer is that of an empty pool, and the log says why.

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
        """
        annotator = annotator_of(request)
        if request.get("image"):
            return self._named(annotator, request, datastore)
        if request.get("skip"):
            self._leases.pass_over(annotator)
        while True:
            pool = self._pool(datastore)
            choice = self._choose(annotator, pool, datastore)
            # While the order was made others took what was in it, or gave back what was not; or the label of
            # the chosen one was saved. Then all is looked at again.
            if choice is None and self._leases.held_all(pool.unlabelled):
                self._log_nothing_left(pool)
                return None
            if choice is not None and not was_labelled_here(datastore, choice.id):
                return _answer(choice)

    def _pool(self, datastore: Datastore) -> Pool:
        """The images now. Leases of those that were labelled, or are gone, have ended."""
        held = self._leases.held()
        pool = read_pool(datastore)
        self._leases.end(set(held).difference(pool.unlabelled))
        return pool

    def _choose(self, annotator: Annotator, pool: Pool, datastore: Datastore) -> Choice | None:
        if annotator.is_named and (own := self._leases.take(annotator, [])):
            return self._again(own, _OWN, datastore)
        order = {choice.id: choice for choice in self._order(annotator, pool, datastore)}
        taken = self._leases.take(annotator, list(order))
        if taken is None and not annotator.is_named:
            taken = self._leases.take_again(annotator)
        if taken is None:
            return None
        return order.get(taken) or self._again(taken, _OWN if annotator.is_named else _LAST, datastore)

    def _order(self, annotator: Annotator, pool: Pool, datastore: Datastore) -> list[Choice]:
        """All images that are free, best first; those that the annotator passed over once nothing else is."""
        held = set(self._leases.held())
        free = [name for name in pool.unlabelled if name not in held]
        busy = [name for name in pool.unlabelled if name in held]
        passed = self._leases.passed_over(annotator)
        if passed.issuperset(free):
            self._leases.forget_passed_over(annotator)
            passed = set()
        known = read_candidates((*pool.unlabelled, *pool.labelled), datastore, self._scores)
        candidates = [known[name] for name in free if name not in passed]
        return self._selector.rank(candidates, [known[name] for name in (*pool.labelled, *busy)], self._rng())

    def _again(self, image: str, why: str, datastore: Datastore) -> Choice:
        candidate = read_candidates([image], datastore, self._scores)[image]
        return Choice(image, 0, candidate.score, self._name, why, candidate.slice_index)

    def _named(
        self, annotator: Annotator, request: Mapping[str, Any], datastore: Datastore
    ) -> dict[str, Any]:
        image, pool = str(request["image"]), self._pool(datastore)
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
            (self._leases.next_end_s() or 0.0) / 60,
        )


def annotator_of(request: Mapping[str, Any]) -> Annotator:
    """Who asks: by ``client_id``, else by what the route knows of them."""
    if client := request.get("client_id"):
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
