"""Propagation from one box: what it gains by comparing each slice with the prompted ones.

A box on the middle slice of each object, Dice of the whole volume; all volumes of the data pack and those of
the training pack that no training uses. ``make bench-propagation`` runs it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.items import DATA_VARIABLE, ROOT, TRAINING_VARIABLE, Item, find_pack, read_items
from benchmarks.publish import write_report
from benchmarks.server import APP
from benchmarks.tables import number
from benchmarks.targets import Target, choose_targets
from lib.engine.likeness import Likeness
from lib.engine.network import Features
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.engine.propagation import ASSENT
from lib.engine.zoomed_propagation import propagate_zoomed
from lib.evaluation.results import markdown_table
from lib.images.reading import read_image
from lib.metrics.segmentation import dice
from lib.prompts.types import FramePrompts
from lib.settings import Settings
from lib.transforms.frames import FrameStack

LEAST_SLICES = 4
OBJECTS = 4  # of an image of the training pack
# Weights of what is like the object, beside what is unlike it; None compares nothing.
WEIGHTS = (None, 0.0, 0.25, 0.5)
# The atlas is one image of its kind that trains, as those of the data pack are.
_ATLAS = "cit168_t1"


class Nothing(Likeness):
    """Learns nothing, so that no slice is compared with the prompted ones."""

    def add(self, frame: Hashable, features: Features, mask: NDArray) -> None:
        """Forgets the frame at once."""

    def copy(self) -> Nothing:
        """Another that learns nothing: a propagation follows the object with a copy."""
        return Nothing()


def targets() -> Iterator[Target]:
    """The objects that are followed."""
    for variable, most in ((DATA_VARIABLE, None), (TRAINING_VARIABLE, OBJECTS)):
        pack = find_pack(variable)
        for item in read_items(pack) if pack else []:
            wanted = most is None or not item.seen or item.id == _ATLAS
            if item.is_volume and wanted and item.read_label().shape[2] >= LEAST_SLICES:
                yield from choose_targets(item, item.read_label())[:most]


def kind_of(item: Item) -> str:
    """Row of an image: one for each data set and modality."""
    return f"{item.id.split('_')[0].rstrip('0123456789ab')}, {item.modality} ({item.split})"


def followed(predictor: Predictor, target: Target, weight: float | None) -> float:
    """Dice of an object that is followed with one weight."""
    image = read_image(target.item.image, 1 << 28)
    frames = FrameStack(image.array, 2, image.window(None), image.digest)
    prompts = {target.middle: FramePrompts.of_box(np.array(target.box(target.middle), np.float32))}
    bank = predictor.new_bank()
    bank.likeness = Nothing() if weight is None else Likeness(weight)
    found = np.zeros_like(target.voxels)
    for _, index, result in propagate_zoomed(predictor, frames, [prompts], bank=bank):
        found[:, :, index] = result.mask.T
    return dice(found, target.voxels)


def report(scores: Mapping[str, Sequence[Sequence[float]]], weights: str) -> str:
    """The section of RESULTS.md."""
    heads = ["kind", "objects", *("none" if weight is None else f"{weight:g}" for weight in WEIGHTS)]
    means = {kind: np.mean(rows, axis=0) for kind, rows in scores.items()}
    rows = [[kind, f"{len(scores[kind])}", *map(number, means[kind])] for kind in scores]
    total = ["mean", "", *map(number, np.mean(list(means.values()), axis=0))]
    text = (
        f"Weights: {weights}. Columns: weight of places that are like the object on the prompted slices, "
        "beside those that are unlike it; none compares with the slice before alone. "
        f"In service: {ASSENT:g}."
    )
    return "\n\n".join([text, markdown_table(heads, [*rows, total])])


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark and writes its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(argv)
    predictor = PredictorPool(Settings(), APP / "model").get()
    scores: dict[str, list[list[float]]] = defaultdict(list)
    for target in targets():
        row = [followed(predictor, target, weight) for weight in WEIGHTS]
        print(target.item.id, target.name, np.round(row, 3).tolist(), flush=True)
        scores[kind_of(target.item)].append(row)
    if not scores:
        raise SystemExit(f"No real images: {DATA_VARIABLE} and {TRAINING_VARIABLE} name no folders")
    write_report(
        report(scores, f"{predictor.name}, {predictor.image_size} px"), options.output, "propagation"
    )


if __name__ == "__main__":
    main()
