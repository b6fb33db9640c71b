"""Teacher forcing of object presence for training.

In inference a step answers "absent" with a constant mask, which has no gradient. Here mask decoding uses the
ground truth of presence; the predicted score is kept for its own loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lib.engine.network import Network

# A logit that leaves no doubt, as SAM 2's own training sets it.
CERTAIN = 10.0


@contextmanager
def told_presence(network: Network, present: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Tells the steps within whether each object is on its frame.

    Masks of present objects always get a gradient, and memories and object pointers are those of the truth
    (Meta's ``teacher_force_obj_scores_for_mem``). An object that is absent trains the occlusion head and
    nothing below it, as BioSAM-2 has it: "if GT is empty, no mask loss; the occlusion head always".

    Args:
        network: Network, of which ``segment`` and ``track`` are called within.
        present: Ground truth of each row, (B,) bool.

    Yields:
        A list that gets the network's own object logits (B, 1) of each decoding, in order.
    """
    told = torch.where(present, CERTAIN, -CERTAIN)[:, None]
    said: list[torch.Tensor] = []

    def keep_gradient_of_present(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (torch.where(present[:, None], inputs[0], inputs[0].detach()),)

    def tell(_: Any, __: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        *others, object_logits = output
        said.append(object_logits.float())
        return (*others, told.to(object_logits.dtype))

    decoder = network.sam_mask_decoder
    hooks = [
        decoder.pred_obj_score_head.register_forward_pre_hook(keep_gradient_of_present),
        decoder.register_forward_hook(tell),
    ]
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()
