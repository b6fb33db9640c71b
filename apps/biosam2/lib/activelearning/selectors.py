"""Orders of candidates for labelling: random, by name, diversity, uncertainty, and a hybrid of the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


@dataclass(frozen=True, eq=False)
class Candidate:
    """One image of the datastore, labelled or not.

    Attributes:
        id: Image id.
        score: Model uncertainty, 0 (sure) to 1 (unsure); None if the image is not scored yet.
        embedding: ``(C,)`` float32, mean-pooled and L2-normalised; None if the image is not scored yet.
        labels: Classes drawn by a person or, without a label, found by the model.
        slice_index: Suggested slice to open; None if all slices are equal.
        confidence: Confidence of the label that ``biosam2_auto`` has saved, 0 to 1; None without one.
    """

    id: str
    score: float | None = None
    embedding: NDArray[np.float32] | None = None
    labels: tuple[str, ...] = ()
    slice_index: int | None = None
    confidence: float | None = None


Candidates = Sequence[Candidate]
# A candidate and the reason for its place in an order.
Placed = tuple[Candidate, str]


@dataclass(frozen=True)
class Choice:
    """One candidate at its place in an order.

    Attributes:
        rank: Place in the order, 0 for the image to label next.
        strategy: Name of the selector.
        why: Reason for this place, as text for annotators.
    """

    id: str
    rank: int
    score: float | None
    strategy: str
    why: str
    slice_index: int | None


class Selector(ABC):
    """Orders candidates for labelling."""

    name: ClassVar[str]
    description: ClassVar[str]

    def rank(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Choice]:
        """Ranks all candidates, best first. Their order in the argument has no influence.

        Args:
            candidates: Images without a final label that nobody works on.
            labelled: Images with a final label, and images that somebody works on.
            rng: Only source of randomness: equal states and candidates give equal orders.
        """
        by_id = sorted(candidates, key=lambda candidate: candidate.id)
        return [
            Choice(candidate.id, rank, candidate.score, self.name, why, candidate.slice_index)
            for rank, (candidate, why) in enumerate(self.order(by_id, labelled, rng))
        ]

    @abstractmethod
    def order(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Placed]:
        """All candidates with the reason for their place, best first; arguments of ``rank``, sorted by id."""


def shuffled(candidates: Candidates, rng: np.random.Generator) -> list[Candidate]:
    """The candidates in random order."""
    return [candidates[place] for place in rng.permutation(len(candidates))]


def with_unknown(
    known: Sequence[Placed], unknown: Candidates, why: str, rng: np.random.Generator
) -> list[Placed]:
    """Inserts candidates without a score or embedding, for a reason ``why``, at random places of an order.

    Of ``n`` candidates an unknown one comes first with probability ``1 / n``, as if drawn at random: known
    images neither starve it nor are displaced by it. If nothing is known, the whole order is random.
    """
    total = len(known) + len(unknown)
    drawn = set(rng.choice(total, len(unknown), replace=False).tolist())
    ordered, random = iter(known), iter(shuffled(unknown, rng))
    return [(next(random), why) if place in drawn else next(ordered) for place in range(total)]


class Random(Selector):
    """Uniformly random order: the baseline that every other strategy has to beat."""

    name = "random"
    description = "Any image, by chance"

    def order(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Placed]:
        """All candidates; every order is equally likely."""
        why = f"drawn at random from {len(candidates)} images"
        return [(candidate, why) for candidate in shuffled(candidates, rng)]


class First(Selector):
    """Ascending order of ids, for numbered studies."""

    name = "first"
    description = "The first image by name"

    def order(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Placed]:
        """All candidates; nothing is drawn."""
        return [(candidate, f"{self.name} by name of {len(candidates)} images") for candidate in candidates]


class Last(First):
    """Descending order of ids."""

    name = "last"
    description = "The last image by name"

    def order(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Placed]:
        """All candidates; nothing is drawn."""
        return super().order(candidates[::-1], labelled, rng)


Embeddings = NDArray[np.floating]

# Places chosen greedily, each at the cost of one pass over all images; the rest follows by distance. One
# request uses the first free place, and the order is computed again for the next request.
MOST_PLACES = 32
# Products of points and centres computed at once: 32 MiB of float64 for any datastore.
PRODUCTS = 1 << 22

_UNKNOWN = "no embedding yet, placed at random"
_FIRST = "the most typical image, as a first one"
_FAR = "least similar to labelled images and images in work: distance {:.2f} of at most 2"


class Diversity(Selector):
    """k-centre greedy on image embeddings (Gonzalez 1985; for active learning Sener and Savarese 2018).

    The next image is the one whose nearest labelled image is farthest away. Without any label it is the most
    typical one: the nearest to the mean of all embeddings. It needs no labels and suits the cold start; it
    ignores what the model is unsure about.
    """

    name = "diversity"
    description = "The image least like those that are labelled"

    def order(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Placed]:
        """All candidates; only those without an embedding are placed at random."""
        seen = [candidate for candidate in candidates if candidate.embedding is not None]
        unseen = [candidate for candidate in candidates if candidate.embedding is None]
        known = [
            (seen[place], _FIRST if distance is None else _FAR.format(distance))
            for place, distance in k_centre(_stack(seen), _stack(labelled))
        ]
        return with_unknown(known, unseen, _UNKNOWN, rng)


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


def _stack(candidates: Candidates) -> Embeddings:
    """``(N, C)`` embeddings of the candidates that have one."""
    found = [candidate.embedding for candidate in candidates if candidate.embedding is not None]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)


UNSCORED = "not scored yet, placed at random"
UNLABELLED = "no pre-label yet, placed at random"


def _by_number(
    numbers: Sequence[tuple[Candidate, float | None]], what: str, unknown: str, rng: np.random.Generator
) -> list[Placed]:
    """Ascending order of numbers, named ``what``; candidates without one are at random places.

    Negative numbers make a descending order. ``unknown`` is the reason of candidates without a number.
    """
    known = [(candidate, number) for candidate, number in numbers if number is not None]
    known.sort(key=lambda pair: pair[1])
    placed = [
        (candidate, f"{what} {abs(number):.2f}, rank {place} of {len(known)}")
        for place, (candidate, number) in enumerate(known, 1)
    ]
    return with_unknown(placed, [item for item, number in numbers if number is None], unknown, rng)


class Uncertainty(Selector):
    """Descending order of scores.

    Greedy: similar images have similar scores and follow each other.
    """

    name = "uncertainty"
    description = "The image that the model is least sure about"

    def order(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Placed]:
        """All candidates; only those without a score are placed at random."""
        numbers = [(item, None if item.score is None else -item.score) for item in candidates]
        return _by_number(numbers, "uncertainty", UNSCORED, rng)


class LeastConfident(Selector):
    """Ascending order of the confidence of pre-labels (``biosam2_auto``)."""

    name = "least_confident"
    description = "The image whose pre-label the model is least confident about"

    def order(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Placed]:
        """All candidates; only those without a pre-label are placed at random."""
        numbers = [(item, item.confidence) for item in candidates]
        return _by_number(numbers, "pre-label with confidence", UNLABELLED, rng)


# Labelled images below which scores are ignored: a model with little training is unsure about everything
# unlike its pretraining data, which says little about what it could learn.
COLD_START = 4
# Labels after which the noise has fallen to a half, a third, a quarter...
FADING = 8


class Hybrid(Selector):
    """Diversity until ``cold_start`` images are labelled, then noisy uncertainty balanced over labels.

    *Noise.* A candidate of uncertainty rank r comes next with probability proportional to ``r ** -power``:
    power noise on ranks (Kirsch et al. 2021, "Stochastic batch acquisition", softrank), sampled as
    ``-power * log(r)`` plus Gumbel noise. Ranks are used because scores lie close together: 0.26 would hardly
    be likelier than 0.19. With n labels ``power = 1 + (n - cold_start) / fading``: sampling starts near
    random and approaches the greedy order as the model learns.

    *Balance.* Every second choice picks the label found in the fewest images so far, and the first candidate
    of the noisy order with that label. The other choices take the first candidate of all, so that images
    without a label are not left behind.

    Args:
        cold_start: Labelled images from which on scores are used.
        fading: Labels after which the power grows by one.
    """

    name = "hybrid"
    description = "Diverse images first, then those that the model is unsure about, of every label"

    def __init__(self, cold_start: int = COLD_START, fading: float = FADING):
        self._cold_start = cold_start
        self._fading = fading

    def order(self, candidates: Candidates, labelled: Candidates, rng: np.random.Generator) -> list[Placed]:
        """All candidates; the order of diversity if none has a score."""
        scored = [candidate for candidate in candidates if candidate.score is not None]
        if len(labelled) < self._cold_start or not scored:
            return Diversity().order(candidates, labelled, rng)
        unscored = [candidate for candidate in candidates if candidate.score is None]
        power = 1 + (len(labelled) - self._cold_start) / self._fading
        # Equal scores share the mean of their ranks.
        ranks = rankdata([-(candidate.score or 0.0) for candidate in scored])
        keys = rng.gumbel(size=len(scored)) - power * np.log(ranks)
        noisy = [scored[place] for place in np.argsort(-keys, kind="stable")]
        return with_unknown(list(_balanced(noisy, labelled)), unscored, UNSCORED, rng)


def _balanced(order: Candidates, labelled: Candidates) -> Iterator[Placed]:
    """A noisy order, best first, with every second choice taken from the rarest label.

    The number of labelled images decides whether the first choice is a balanced one.
    """
    counts = Counter(label for candidate in labelled for label in candidate.labels)
    remaining = dict.fromkeys(order)
    names = sorted({label for candidate in order for label in candidate.labels})
    of_label = {name: deque(candidate for candidate in order if name in candidate.labels) for name in names}
    # A single label needs no balancing.
    balances = len(names) > 1
    for turn in range(len(labelled), len(labelled) + len(order)):
        for queue in of_label.values():
            while queue and queue[0] not in remaining:
                queue.popleft()
        left = [name for name in names if of_label[name]] if balances and turn % 2 else []
        rarest = min(left, key=lambda name: counts[name]) if left else None
        chosen = next(iter(remaining)) if rarest is None else of_label[rarest][0]
        why = f"uncertainty {chosen.score:.2f}, drawn with noise"
        if rarest is not None:
            why += f" for label {rarest}, found in {counts[rarest]} images so far"
        yield chosen, why
        del remaining[chosen]
        counts.update(chosen.labels)


_ALL = (Random, First, Last, Diversity, Uncertainty, Hybrid, LeastConfident)
SELECTORS: Mapping[str, type[Selector]] = MappingProxyType({selector.name: selector for selector in _ALL})
