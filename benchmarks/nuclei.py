"""Automatic segmentation of nuclei: precision, recall and time per megapixel on labelled pictures.

    python -m benchmarks.nuclei [--data DIR] [--model NAME] [--every N] [--fit]

The pictures are those of the training pack (BIOSAM2_TRAINING_DATA), or of another folder in the layout of
MONAI Label's datastore (``*.png`` and ``labels/final/*.png`` with one value per nucleus) whose names begin
with dsb (fluorescence and stains), tnbc or nuins (haematoxylin and eosin). They are segmented as the server
does, at an unknown pixel size. A nucleus is found if an outline has an IoU above 0.5 with it.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize
from shapely.geometry import Polygon
from skimage import draw

from benchmarks.items import TRAINING_VARIABLE, find_pack
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.images.cache import ImageCache
from lib.pathology.automatic_segmentation import candidates, segment_nuclei
from lib.pathology.interactive import SlidePredictor
from lib.pathology.nuclei import stain_map
from lib.pathology.opening import open_slide
from lib.settings import Settings

MODELS = Path(__file__).resolve().parents[1] / "apps" / "biosam2" / "model"
PREFIXES = ("dsb", "tnbc", "nuins")
FOUND_FROM = 0.5
# The weights were fitted on every fifth picture, and the others are measured. The thresholds were tuned on
# every fifth picture of dsb, and on all pictures of tnbc and nuins, which have ten in all.
FITTED_EVERY = 5
# Mean difference of a picture's channels below which it is grey.
_COLOURLESS = 8.0


@dataclass
class Tally:
    """Counts over pictures of one kind."""

    pictures: int = 0
    nuclei: int = 0
    outlines: int = 0
    hits: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def row(self, kind: str) -> str:
        """A line of the table in Markdown."""
        precision, recall = self.hits / max(self.outlines, 1), self.hits / max(self.nuclei, 1)
        return (
            f"| {kind} | {self.pictures} | {self.nuclei} | {precision:.2f} | {recall:.2f} "
            f"| {self.seconds / self.megapixels:.1f} | {self.cpu_seconds / self.megapixels:.1f} |"
        )


@dataclass(frozen=True, eq=False)
class Picture:
    """One labelled picture.

    Attributes:
        path: File.
        kind: Kind of microscopy.
        labels: int (H, W), one number per nucleus.
    """

    path: Path
    kind: str
    labels: NDArray[np.int_]

    @property
    def count(self) -> int:
        """Number of nuclei."""
        return len(np.unique(self.labels)) - 1

    def best_iou(self, area: Polygon) -> tuple[int, float]:
        """Number of the nucleus that an outline overlaps most, and the IoU with it."""
        corners = np.asarray(area.exterior.coords) - 0.5
        rows, columns = draw.polygon(corners[:, 1], corners[:, 0], self.labels.shape)
        sizes = np.bincount(self.labels.ravel())
        shared = np.bincount(self.labels[rows, columns], minlength=len(sizes))
        shared[0] = 0
        best = int(np.argmax(shared))
        return best, float(shared[best] / (len(rows) + sizes[best] - shared[best])) if shared[best] else 0.0


def pictures(folder: Path, fitted: bool, every: int = 1) -> Iterator[Picture]:
    """Labelled pictures of a folder.

    Args:
        folder: Folder of the pictures.
        fitted: Whether those that the weights were fitted on are listed, or the others.
        every: Step through the list of each name.
    """
    for prefix in PREFIXES:
        paths = sorted(folder.glob(f"{prefix}_*.png"))
        chosen = [path for index, path in enumerate(paths) if (index % FITTED_EVERY == 0) == fitted]
        for path in chosen[::every]:
            labels = np.asarray(Image.open(folder / "labels" / "final" / path.name)).astype(int)
            yield Picture(path, _kind(prefix, path), labels)


def _kind(prefix: str, path: Path) -> str:
    if prefix != "dsb":
        return f"H&E ({prefix})"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    if stain_map(pixels)[1]:
        return "fluorescence (dsb)"
    colours = pixels.max(axis=2).astype(float) - pixels.min(axis=2)
    return "stains (dsb)" if colours.mean() >= _COLOURLESS else "bright field, grey (dsb)"


def measure(predictor: Predictor, folder: Path, every: int) -> dict[str, Tally]:
    """Tallies by kind."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    images = ImageCache(0, 1 << 26)
    for picture in pictures(folder, False, every):
        with open_slide(picture.path, images) as slide:
            start, cpu_start = time.perf_counter(), time.process_time()
            found = segment_nuclei(SlidePredictor(slide, predictor, 1.0), [(0, 0, slide.width, slide.height)])
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        ious = [picture.best_iou(item.area) for item in found]
        kinds = ["all", picture.kind, *(["all stains"] if "fluorescence" not in picture.kind else [])]
        for tally in (tallies[kind] for kind in kinds):
            tally.pictures += 1
            tally.nuclei += picture.count
            tally.outlines += len(found)
            tally.hits += len({number for number, iou in ious if iou > FOUND_FROM})
            tally.megapixels += picture.labels.size / 1e6
            tally.seconds += seconds
            tally.cpu_seconds += cpu_seconds
    return tallies


def fit(predictor: Predictor, folder: Path) -> list[float]:
    """Weights of the logistic regression in ``lib.pathology.automatic_segmentation``."""
    values, hits = [], []
    images = ImageCache(0, 1 << 26)
    for picture in pictures(folder, True):
        with open_slide(picture.path, images) as slide:
            region = (0, 0, slide.width, slide.height)
            for item, features in candidates(SlidePredictor(slide, predictor, 1.0), region, 1.0):
                values.append([*vars(features).values()])
                hits.append(picture.best_iou(item.area)[1] > FOUND_FROM)
    inputs = np.column_stack([np.ones(len(values)), np.array(values)])
    signs = np.where(hits, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -signs * (inputs @ weights)).sum() + (weights[1:] ** 2).sum() / 2)

    fitted = minimize(loss, np.zeros(inputs.shape[1]), method="BFGS")
    return [round(float(value), 1) for value in fitted.x]


def main() -> None:
    """Prints a table in Markdown, or the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    pack = find_pack(TRAINING_VARIABLE)
    parser.add_argument(
        "--data", type=Path, default=pack and pack / "image2d", help="folder of pictures and labels"
    )
    parser.add_argument("--model", help="weights, by default the best ones present")
    parser.add_argument("--every", type=int, default=1, help="measure every Nth picture")
    parser.add_argument(
        "--fit", action="store_true", help="fit the weights of the quality on every fifth picture"
    )
    arguments = parser.parse_args()
    if arguments.data is None or next(pictures(arguments.data, arguments.fit), None) is None:
        parser.error(f"there is no labelled picture of nuclei: {TRAINING_VARIABLE} or --data names a folder")
    predictor = PredictorPool(Settings(model=arguments.model, device="cpu"), MODELS).get()
    if arguments.fit:
        print("WEIGHTS =", tuple(fit(predictor, arguments.data)))
        return
    print(f"Weights: {predictor.name}\n")
    print("| kind | pictures | nuclei | precision | recall | s per megapixel | CPU s per megapixel |")
    print("|---|---|---|---|---|---|---|")
    for kind, tally in measure(predictor, arguments.data, arguments.every).items():
        print(tally.row(kind))


if __name__ == "__main__":
    main()
