"""How undecided the mask's boundary is: entropy in a band around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

# Half the band's width, as a share of the mask grid's side: 2 cells of the bundled weights' 64, 8 of the 256
# of SAM 2 at 1024 px. Over a whole slice, entropy would measure how much background there is.
BAND_SHARE = 1 / 32


def boundary_entropy(logits: NDArray[np.float32], radius: int | None = None) -> float | None:
    """Mean binary entropy, in bits, of a mask's probabilities near its boundary.

    H(p) = -p log2 p - (1 - p) log2 (1 - p) with p = sigmoid(logit), over the cells that lie at most
    ``radius`` steps (4-neighbours) on either side of the mask's outline. Where the edge of the frame cuts the
    object off there is no outline.

    Args:
        logits: (h, w) of the mask grid; the mask is where they are above 0.
        radius: in cells; ``BAND_SHARE`` of the grid's height by default, at least 1.

    Returns:
        0 (decided) to 1 (undecided); None where the mask is empty or fills the frame and has no boundary.
    """
    mask = logits > 0
    if not mask.any() or mask.all():
        return None
    steps = radius if radius is not None else max(1, round(BAND_SHARE * logits.shape[0]))
    grown = ndimage.binary_dilation(mask, iterations=steps)
    shrunk = ndimage.binary_erosion(mask, iterations=steps, border_value=1)
    return float(binary_entropy(logits[grown & ~shrunk]).mean())


def binary_entropy(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Entropy in bits of sigmoid(logit): 1 at a logit of 0, falling to 0 on both sides."""
    # log p = -log(1 + e^-x) keeps its digits where p itself is 0 or 1.
    x = np.abs(np.asarray(logits, dtype=np.float64))
    nats = np.log1p(np.exp(-x)) + x * expit(-x)
    entropy: NDArray[np.float64] = nats / np.log(2)
    return entropy
