"""Automatic segmentation of nuclei: precision, recall and time per megapixel on labelled pictures.

    python -m benchmarks.nuclei [--data DIR] [--model NAME] [--every N] [--fit WHAT]

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
from dataclasses import astuple, dataclass
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
from lib.pathology.nuclei import Stain, detections, stain_of
from lib.pathology.opening import open_slide
from lib.pathology.request import patch_scale
from lib.settings import Settings

MODELS = Path(__file__).resolve().parents[1] / "apps" / "biosam2" / "model"
PREFIXES = ("dsb", "tnbc", "nuins")
FOUND_FROM = 0.5
# The weights were fitted on every fifth picture of dsb and on the first two of tnbc and of nuins, and the
# others are measured. The thresholds were tuned on the same ones, and on all of nuins.
FITTED_EVERY, FITTED_OTHERS = 5, 2


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
        chosen = [path for index, path in enumerate(paths) if _is_fitted(prefix, index) == fitted]
        for path in chosen[::every]:
            labels = np.asarray(Image.open(folder / "labels" / "final" / path.name)).astype(int)
            yield Picture(path, _kind(prefix, path), labels)


def _is_fitted(prefix: str, index: int) -> bool:
    return index % FITTED_EVERY == 0 if prefix == "dsb" else index < FITTED_OTHERS


def _kind(prefix: str, path: Path) -> str:
    if prefix != "dsb":
        return f"H&E ({prefix})"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    stain = stain_of(pixels)
    if stain.is_fluorescent:
        return "fluorescence (dsb)"
    return "stains (dsb)" if stain.is_coloured else "bright field, grey (dsb)"


def measure(predictor: Predictor, folder: Path, every: int) -> dict[str, Tally]:
    """Tallies by kind."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    images = ImageCache(0, 1 << 26)
    for picture in pictures(folder, False, every):
        with open_slide(picture.path, images) as slide:
            start, cpu_start = time.perf_counter(), time.process_time()
            found = segment_nuclei(
                SlidePredictor(slide, predictor, patch_scale(slide)), [(0, 0, slide.width, slide.height)]
            )
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


def fit(predictor: Predictor, folder: Path, what: str) -> dict[bool, tuple[float, ...]]:
    """Weights of the score of ``proposals`` or of the quality of ``masks``, by whether pictures are coloured.

    They are those of a logistic regression; each picture counts the same.
    """
    rows: dict[bool, list[NDArray[np.float64]]] = {True: [], False: []}
    hits: dict[bool, list[NDArray[np.bool_]]] = {True: [], False: []}
    for picture in pictures(folder, True):
        stain = stain_of(np.asarray(Image.open(picture.path).convert("RGB")))
        found = _proposals(picture, stain) if what == "proposals" else _masks(picture, predictor)
        inputs, is_hit = (np.array(column) for column in zip(*found, strict=True))
        rows[stain.is_coloured].append(inputs)
        hits[stain.is_coloured].append(is_hit)
    return {kind: _regression(rows[kind], hits[kind]) for kind in rows}


def _regression(rows: list[NDArray[np.float64]], hits: list[NDArray[np.bool_]]) -> tuple[float, ...]:
    values, signs = np.concatenate(rows), np.where(np.concatenate(hits), 1.0, -1.0)
    middle, spread = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    middle[0], spread[0] = 0.0, 1.0
    inputs = (values - middle) / spread
    weights = np.concatenate([np.full(len(part), len(inputs) / len(rows) / len(part)) for part in rows])

    def loss(found: NDArray[np.float64]) -> float:
        losses = weights * np.logaddexp(0, -signs * (inputs @ found))
        return float(losses.sum() + (found[1:] ** 2).sum() / 2)

    found = minimize(loss, np.zeros(inputs.shape[1])).x / spread
    found[0] -= found[1:] @ middle[1:]
    return tuple(round(float(value), 2) for value in found)


def _proposals(picture: Picture, stain: Stain) -> Iterator[tuple[NDArray[np.float64], bool]]:
    """Measurements of all pieces of stain, and whether each is a nucleus."""
    for found in detections(stain):
        overlaps = _ious(found.labels, picture.labels).max(axis=1)
        yield from zip(found.measurements, overlaps > FOUND_FROM, strict=True)


def _masks(picture: Picture, predictor: Predictor) -> Iterator[tuple[NDArray[np.float64], bool]]:
    """Measurements of the masks of all proposals, and whether each is a nucleus."""
    with open_slide(picture.path, ImageCache(0, 1 << 26)) as slide:
        region = (0, 0, slide.width, slide.height)
        for item, features in candidates(SlidePredictor(slide, predictor, patch_scale(slide)), region, 1.0):
            yield np.array([1.0, *astuple(features)]), picture.best_iou(item.area)[1] > FOUND_FROM


def _ious(found: NDArray[np.int_], labels: NDArray[np.int_]) -> NDArray[np.float64]:
    """(N, M) IoU of numbered pieces with numbered nuclei."""
    count = int(labels.max()) + 1
    pairs = np.bincount((found * count + labels).ravel(), minlength=(int(found.max()) + 1) * count)
    common = pairs.reshape(-1, count).astype(float)
    either = common.sum(axis=1, keepdims=True) + common.sum(axis=0) - common
    return (common / np.maximum(either, 1))[1:, 1:]


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
        "--fit",
        choices=("proposals", "masks"),
        help="fit the weights of a score on the pictures that are not measured",
    )
    arguments = parser.parse_args()
    if arguments.data is None or next(pictures(arguments.data, bool(arguments.fit)), None) is None:
        parser.error(f"there is no labelled picture of nuclei: {TRAINING_VARIABLE} or --data names a folder")
    predictor = PredictorPool(Settings(model=arguments.model, device="cpu"), MODELS).get()
    if arguments.fit:
        print("WEIGHTS =", fit(predictor, arguments.data, arguments.fit))
        return
    print(f"Weights: {predictor.name}\n")
    print("| kind | pictures | nuclei | precision | recall | s per megapixel | CPU s per megapixel |")
    print("|---|---|---|---|---|---|---|")
    for kind, tally in measure(predictor, arguments.data, arguments.every).items():
        print(tally.row(kind))


if __name__ == "__main__":
    main()
