"""Diversity: the image that is least like all that are labelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.activelearning.candidate import Candidate, Choice
from lib.activelearning.ordering import Placed, by_id, choices, with_unknown

Embeddings = NDArray[np.floating]

# Places that are chosen one after the other, each with those before it in mind. Who asks gets the first that
# is free, and the order is made anew for the next one; each place costs a look at all images. The others
# follow by their distance to what was chosen.
MOST_PLACES = 32
# Products of points and centres that are in memory at once: 32 MiB of float64, whatever the datastore's size.
PRODUCTS = 1 << 22

_UNKNOWN = "not looked at yet, so at a random place"


class Diversity:
    """k-centre greedy on the embeddings (Gonzalez 1985; for active learning Sener and Savarese 2018).

    The next image is the one whose nearest labelled image is the farthest away. While nothing is labelled, it
    is the most typical one: the nearest to the mean of all embeddings. It needs no label to begin with, which
    is why it is for the cold start; what the model is unsure of, it does not know.
    """

    def rank(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Choice]:
        """All candidates; chance only places those without an embedding."""
        return choices("diversity", diverse_order(candidates, labelled, rng))


def diverse_order(
    candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
) -> list[Placed]:
    """The order of ``Diversity``, each candidate with its reason."""
    ordered = by_id(candidates)
    seen = [one for one in ordered if one.embedding is not None]
    unseen = [one for one in ordered if one.embedding is None]
    known = [(seen[place], _why(distance)) for place, distance in k_centre(_stack(seen), _stack(labelled))]
    return with_unknown(known, unseen, _UNKNOWN, rng)


def k_centre(points: Embeddings, centres: Embeddings) -> list[tuple[int, float | None]]:
    """An order of points in which each is as far as possible from those before it and from the centres.

    Args:
        points: ``(N, C)``.
        centres: ``(M, C)`` that are there already; M may be 0.

    Returns:
        The index of each point and its Euclidean distance to the nearest one before it; None for a point that
        has none. Of equal distances the smaller index comes first.
    """
    if not len(points):
        return []
    points = points.astype(np.float64)  # once: distances of float32 are in float64 too
    nearest = _nearest(points, centres.astype(np.float64))
    order: list[tuple[int, float | None]] = []
    left = np.ones(len(points), dtype=bool)
    while left.any() and len(order) < MOST_PLACES:
        if not np.isfinite(nearest).any():
            place, distance = int(np.argmin(_distances(points, points.mean(0)))), None
        else:
            place = int(np.argmax(np.where(left, nearest, -np.inf)))
            distance = float(nearest[place])
        order.append((place, distance))
        left[place] = False
        nearest = np.minimum(nearest, _distances(points, points[place]))
    rest = sorted(np.flatnonzero(left).tolist(), key=lambda place: -nearest[place])
    return order + [(place, float(nearest[place])) for place in rest]


def _nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(N,)``: how far each point is from the centre nearest to it; infinite where there is no centre.

    Which one that is follows from ``|p - c|^2 = |p|^2 + |c|^2 - 2 p.c``, by one matrix product: 5000 images
    are a fraction of a second so, and several one centre at a time. How far it is follows from the two
    themselves: the difference of large numbers is not exact, and equal points would not be at 0.
    """
    if not len(centres):
        return np.full(len(points), np.inf)
    lengths = (centres**2).sum(1)
    rows = max(1, PRODUCTS // len(centres))
    found = [
        np.argmin(lengths - 2 * points[start : start + rows] @ centres.T, axis=1)
        for start in range(0, len(points), rows)
    ]
    return _distances(points, centres[np.concatenate(found)])


def _distances(points: Embeddings, centres: Embeddings) -> NDArray[np.float64]:
    """``(N,)``: from each point to its centre, ``(N, C)``, or to one that is for all, ``(C,)``."""
    found: NDArray[np.float64] = np.linalg.norm(points - centres, axis=1)
    return found


def _stack(candidates: Sequence[Candidate]) -> Embeddings:
    """``(N, C)`` of those that have one."""
    found = [one.embedding for one in candidates if one.embedding is not None]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)


def _why(distance: float | None) -> str:
    if distance is None:
        return "the most typical image, to begin with"
    return f"the least like those that are labelled or in work: distance {distance:.2f} of at most 2"
