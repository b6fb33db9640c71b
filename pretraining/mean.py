"""The mean of files of weights: `python -m pretraining.mean ONE.pt OTHER.pt [MORE.pt ...] OUT.pt`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


def mean_weights(paths: Sequence[Path], object_score: float = 0.0) -> dict[str, torch.Tensor]:
    """The mean of networks of one architecture, in their own number format.

    Weights of one training have a mean that is often better than each (Wortsman et al. 2022, model soups).

    Args:
        paths: Files of weights, ``{"model": state_dict}``.
        object_score: Number that is added to the logit of the object score.
    """
    files = [torch.load(path, map_location="cpu", weights_only=True)["model"] for path in paths]
    means = {
        name: torch.stack([file[name].float() for file in files]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in files[0].items()
    }
    means[SCORE_BIAS] = means[SCORE_BIAS] + object_score
    return means


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the mean."""
    parser = argparse.ArgumentParser(prog="python -m pretraining.mean", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="files of weights")
    parser.add_argument("out", type=Path)
    parser.add_argument("--object-score", type=float, default=0.0, help="added to the object score's logit")
    options = parser.parse_args(argv)
    torch.save({"model": mean_weights(options.files, options.object_score)}, options.out)


if __name__ == "__main__":
    main()
