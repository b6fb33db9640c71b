"""The mean of two files of weights: `python -m pretraining.mean ONE.pt OTHER.pt OUT.pt`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


def mean_weights(one: Path, other: Path, object_score: float = 0.0) -> dict[str, torch.Tensor]:
    """The mean of two networks of one architecture, in their own number format.

    Weights of one training have a mean that is often better than each (Wortsman et al. 2022, model soups).

    Args:
        one: File of weights, ``{"model": state_dict}``.
        other: Another one.
        object_score: Number that is added to the logit of the object score.
    """
    files = (torch.load(path, map_location="cpu", weights_only=True) for path in (one, other))
    first, second = (file["model"] for file in files)
    means = {
        name: ((value.float() + second[name].float()) / 2).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }
    means[SCORE_BIAS] = means[SCORE_BIAS] + object_score
    return means


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the mean."""
    parser = argparse.ArgumentParser(prog="python -m pretraining.mean", description=__doc__)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--object-score", type=float, default=0.0, help="added to the object score's logit")
    options = parser.parse_args(argv)
    torch.save({"model": mean_weights(options.one, options.other, options.object_score)}, options.out)


if __name__ == "__main__":
    main()
