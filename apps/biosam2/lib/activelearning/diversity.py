"""Diversity sampling: the image least similar to all labelled ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.activelearning.candidate import Candidate, Placed, Selector, with_unknown

Embeddings = NDArray[np.floating]

# Places chosen greedily, each at the cost of one pass over all images; the rest follows by distance. One
# request uses the first free place, and the order is computed again for the next request.
MOST_PLACES = 32
# Products of points and centres computed at once: 32 MiB of float64 for any datastore.
PRODUCTS = 1 << 22

_UNKNOWN = "no embedding yet, placed at random"


class Diversity(Selector):
    """k-centre greedy on image embeddings (Gonzalez 1985; for active learning Sener and Savarese 2018).

    The next image is the one whose nearest labelled image is farthest away. Without any label it is the most
    typical one: the nearest to the mean of all embeddings. It needs no labels and suits the cold start; it
    ignores what the model is unsure about.
    """

    name = "diversity"
    description = "The image least like those that are labelled"

    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        """All candidates; only those without an embedding are placed at random."""
        seen = [candidate for candidate in candidates if candidate.embedding is not None]
        unseen = [candidate for candidate in candidates if candidate.embedding is None]
        order = k_centre(_stack(seen), _stack(labelled))
        return with_unknown(
            [(seen[place], _why(distance)) for place, distance in order], unseen, _UNKNOWN, rng
        )


def k_centre(points: Embeddings, centres: Embeddings) -> list[tuple[int, float | None]]:
    """Orders points so that each is as far as possible from all earlier ones and from the centres.

    Args:
        points: ``(N, C)`` embeddings.
        centres: ``(M, C)`` existing centres; M may be 0.

    Returns:
        Index of each point and its Euclidean distance to the nearest earlier point or centre; None for a
        first point without any. Ties go to the smaller index.
    """
    if not len(points):
        return []
    points = points.astype(np.float64)  # once: float32 distances would be computed in float64 as well
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
    """``(N,)`` distance of each point to its nearest centre; infinite without any centre.

    ``|p - c|^2 = |p|^2 + |c|^2 - 2 p.c`` finds the nearest centre by one matrix product: 5000 images take a
    fraction of a second instead of several. The distance itself is computed from the two vectors, since a
    difference of large numbers would not be exactly 0 for equal ones.
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
    """``(N,)`` distances of each point to its own centre ``(N, C)`` or to a common one ``(C,)``."""
    found: NDArray[np.float64] = np.linalg.norm(points - centres, axis=1)
    return found


def _stack(candidates: Sequence[Candidate]) -> Embeddings:
    """``(N, C)`` embeddings of the candidates that have one."""
    found = [candidate.embedding for candidate in candidates if candidate.embedding is not None]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)


def _why(distance: float | None) -> str:
    if distance is None:
        return "the most typical image, as a first one"
    return f"least similar to labelled images and images in work: distance {distance:.2f} of at most 2"
