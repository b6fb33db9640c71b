"""Hybrid sampling: diversity first, then noisy uncertainty balanced over the labels.

After "class-stratified, scheduled, power-noised predictive entropy" (ClaSP PE, arXiv 2601.13677), which was
found to beat random sampling in 3-D segmentation where plain uncertainty did not.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from lib.activelearning.candidate import Candidate, Placed, Selector, with_unknown
from lib.activelearning.diversity import Diversity
from lib.activelearning.uncertainty import UNSCORED

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

    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        """All candidates; the order of diversity if none has a score."""
        scored = [candidate for candidate in candidates if candidate.score is not None]
        if len(labelled) < self._cold_start or not scored:
            return Diversity().order(candidates, labelled, rng)
        unscored = [candidate for candidate in candidates if candidate.score is None]
        known = list(_balanced(self._noisy(scored, len(labelled), rng), labelled))
        return with_unknown(known, unscored, UNSCORED, rng)

    def _noisy(self, scored: Sequence[Candidate], labels: int, rng: np.random.Generator) -> list[Candidate]:
        power = 1 + (labels - self._cold_start) / self._fading
        # Equal scores share the mean of their ranks.
        ranks = rankdata([-(candidate.score or 0.0) for candidate in scored])
        keys = rng.gumbel(size=len(scored)) - power * np.log(ranks)
        return [scored[place] for place in np.argsort(-keys, kind="stable")]


def _balanced(order: Sequence[Candidate], labelled: Sequence[Candidate]) -> Iterator[Placed]:
    """The order with every second choice taken from the rarest label.

    Args:
        order: Noisy order, best first.
        labelled: Labelled images; their number decides whether the first choice is a balanced one.
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
        yield chosen, _why(chosen, rarest, counts)
        del remaining[chosen]
        counts.update(chosen.labels)


def _why(chosen: Candidate, label: str | None, counts: Mapping[str, int]) -> str:
    why = f"uncertainty {chosen.score:.2f}, drawn with noise"
    return why if label is None else f"{why} for label {label}, found in {counts[label]} images so far"
