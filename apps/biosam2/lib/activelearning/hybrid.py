"""Hybrid: diversity first, then uncertainty with noise that fades, spread over the labels.

After "class-stratified, scheduled, power-noised predictive entropy" (ClaSP PE, arXiv 2601.13677), which was
found to beat random choice in 3-D segmentation where plain uncertainty did not.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from lib.activelearning.candidate import Candidate, Choice
from lib.activelearning.diversity import diverse_order
from lib.activelearning.ordering import Placed, by_id, choices, with_unknown
from lib.activelearning.uncertainty import UNSCORED

# Until so many images are labelled, the model's doubts say little of what it could learn: it has hardly been
# trained, and doubts everything that is unlike its pretraining. Diversity does not ask it.
COLD_START = 4
# Labels after which the noise has fallen to a half, a third, a quarter...
FADING = 8


class Hybrid:
    """Diversity until ``cold_start`` images are labelled, then noisy uncertainty spread over the labels.

    *Noise.* The candidate of rank r by uncertainty is next with a probability in proportion to
    ``r ** -power``: power noise on ranks (Kirsch et al. 2021, "Stochastic batch acquisition", softrank),
    drawn as ``-power * log(r)`` plus Gumbel noise. On ranks, because scores lie close together: of 0.26 and
    0.19 the first would hardly be likelier than the second. With n labels
    ``power = 1 + (n - cold_start) / fading``: it begins with chance that covers the pool, and ends near the
    greedy order, when the scores are those of a model that has learned.

    *Spread.* Every second choice takes the label that is in the fewest images so far, and of the candidates
    in which the model found it the first of the noisy order. The other choices take the first of all, so that
    neither a rare label nor an image without one has to wait.

    Args:
        cold_start: labelled images from which on the scores count.
        fading: labels after which the power has grown by one.
    """

    def __init__(self, cold_start: int = COLD_START, fading: float = FADING):
        self._cold_start = cold_start
        self._fading = fading

    def rank(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Choice]:
        """All candidates. Where none has a score it is the order of diversity, at any time."""
        scored = [one for one in by_id(candidates) if one.score is not None]
        if len(labelled) < self._cold_start or not scored:
            return choices("hybrid", diverse_order(candidates, labelled, rng))
        unscored = [one for one in by_id(candidates) if one.score is None]
        known = list(_spread(self._noisy(scored, len(labelled), rng), labelled))
        return choices("hybrid", with_unknown(known, unscored, UNSCORED, rng))

    def _noisy(self, scored: Sequence[Candidate], labels: int, rng: np.random.Generator) -> list[Candidate]:
        power = 1 + (labels - self._cold_start) / self._fading
        # Equal scores share the mean of their ranks.
        ranks = rankdata([-(one.score or 0.0) for one in scored])
        keys = rng.gumbel(size=len(scored)) - power * np.log(ranks)
        return [scored[place] for place in np.argsort(-keys, kind="stable")]


def _spread(order: Sequence[Candidate], labelled: Sequence[Candidate]) -> Iterator[Placed]:
    """The order with every second choice from the rarest label.

    Args:
        order: noisy, best first.
        labelled: what there is of each label; their number says whose turn it is.
    """
    counts = Counter(label for one in labelled for label in one.labels)
    waiting = dict.fromkeys(order)
    names = sorted({label for one in order for label in one.labels})
    of_label = {name: deque(one for one in order if name in one.labels) for name in names}
    # With one label there is nothing to spread.
    spreads = len(names) > 1
    for turn in range(len(labelled), len(labelled) + len(order)):
        for queue in of_label.values():
            while queue and queue[0] not in waiting:
                queue.popleft()
        left = [name for name in names if of_label[name]] if spreads and turn % 2 else []
        rarest = min(left, key=lambda name: counts[name]) if left else None
        chosen = next(iter(waiting)) if rarest is None else of_label[rarest][0]
        yield chosen, _why(chosen, rarest, counts)
        del waiting[chosen]
        counts.update(chosen.labels)


def _why(chosen: Candidate, label: str | None, counts: Mapping[str, int]) -> str:
    why = f"uncertainty {chosen.score:.2f}, drawn with noise"
    return why if label is None else f"{why} for the label {label}, which {counts[label]} others have"
