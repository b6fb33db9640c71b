"""Automatic segmentation of nuclei: precision, recall and time per megapixel on labelled pictures.

    python -m benchmarks.nuclei [--data DIR] [--model NAME] [--every N] [--mixed] [--fit WHAT]

The pictures are those of the training pack (BIOSAM2_TRAINING_DATA), or of another folder in the layout of
MONAI Label's datastore (``*.png`` and ``labels/final/*.png`` with one value per nucleus) whose names begin
with dsb (fluorescence and stains), tnbc or nuins (haematoxylin and eosin). They are segmented as the server
does, at an unknown pixel size. A nucleus is found if an outline has an IoU above 0.5 with it.
With --mixed they are corners of pictures of tnbc and nuins put together on one slide, pale and dark tissue
side by side, at 0.25 micrometres per pixel.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from lib.pathology.nuclei import Stain, detections, stain_of
from lib.pathology.opening import open_slide
from lib.pathology.request import patch_scale
from lib.settings import Settings

MODELS = Path(__file__).resolve().parents[1] / "apps" / "biosam2" / "model"
PREFIXES = ("dsb", "tnbc", "nuins")
FOUND_FROM = 0.5
# The weights were fitted on every fifth picture of dsb and on the first two of tnbc and of nuins, and the
# others are measured, but for --mixed. The thresholds were tuned on the same ones, and on all of nuins.
FITTED_EVERY, FITTED_OTHERS = 5, 2
# Pictures on the mixed slide, in a row of it, the side in pixels of a corner, and micrometres per pixel.
MIXED, MIXED_COLUMNS, MIXED_SIDE, MIXED_MPP = 10, 5, 320, 0.25
# Slides of all stained pictures in random order that the quality is fitted on as well, and their columns and
# corners: without them, masks along the border of pale and dark tissue had the highest quality.
FITTED_MIXED, FITTED_COLUMNS, FITTED_SIDE = 3, 3, 256


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
        mpp: Micrometres per pixel, or None where unknown.
    """

    path: Path
    kind: str
    labels: NDArray[np.int_]
    mpp: float | None = None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3)."""
        return np.asarray(Image.open(self.path).convert("RGB"))

    @contextmanager
    def opened(self, predictor: Predictor) -> Iterator[SlidePredictor]:
        """The picture as a slide."""
        with open_slide(self.path, ImageCache(0, 1 << 26)) as slide:
            slide.mpp = self.mpp
            yield SlidePredictor(slide, predictor, patch_scale(slide))

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


def side_by_side(
    path: Path, parts: Sequence[Picture], columns: int, side: int, mpp: float | None = None
) -> Picture:
    """Upper left corners of pictures put together.

    Args:
        path: File that is written.
        parts: Pictures, row by row.
        columns: Number of them in a row.
        side: Side of a corner in pixels; white is added to smaller pictures.
        mpp: Micrometres per pixel of the new picture, or None where unknown.
    """
    size = (-(-len(parts) // columns) * side, columns * side)
    pixels, labels = np.full((*size, 3), 255, np.uint8), np.zeros(size, int)
    for number, part in enumerate(parts):
        top, left = (place * side for place in divmod(number, columns))
        corner = part.labels[:side, :side]
        place = np.s_[top : top + corner.shape[0], left : left + corner.shape[1]]
        pixels[place] = part.pixels[:side, :side]
        labels[place] = np.where(corner, corner + labels.max(), 0)
    Image.fromarray(pixels).save(path)
    return Picture(path, "side by side", labels, mpp)


def mixed(folder: Path, scratch: Path) -> Picture:
    """The slide of tnbc and nuins side by side.

    Args:
        folder: Folder of the pictures.
        scratch: Folder that it is written to.
    """
    parts = [*pictures(folder, True), *pictures(folder, False)]
    chosen = sorted(
        (part for part in parts if not part.path.name.startswith("dsb")),
        key=lambda part: (PREFIXES.index(part.path.name.split("_")[0]), part.path),
    )
    return side_by_side(scratch / "mixed.png", chosen[:MIXED], MIXED_COLUMNS, MIXED_SIDE, MIXED_MPP)


def measure(predictor: Predictor, chosen: Iterable[Picture]) -> dict[str, Tally]:
    """Tallies by kind."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for picture in chosen:
        with picture.opened(predictor) as slide:
            start, cpu_start = time.perf_counter(), time.process_time()
            found = segment_nuclei(slide, [(0, 0, slide.slide.width, slide.slide.height)])
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
    with tempfile.TemporaryDirectory() as scratch:
        for picture in _fitted(folder, Path(scratch) if what == "masks" else None):
            stain = stain_of(picture.pixels)
            found = _proposals(picture, stain) if what == "proposals" else _masks(picture, predictor)
            inputs, is_hit = (np.array(column) for column in zip(*found, strict=True))
            rows[stain.is_coloured].append(inputs)
            hits[stain.is_coloured].append(is_hit)
    return {kind: _regression(rows[kind], hits[kind]) for kind in rows}


def _fitted(folder: Path, scratch: Path | None) -> Iterator[Picture]:
    """Pictures that weights are fitted on, and slides of the stained ones where ``scratch`` is a folder."""
    chosen = list(pictures(folder, True))
    yield from chosen
    if scratch is None:
        return
    stained = [picture for picture in chosen if stain_of(picture.pixels).is_coloured]
    random = np.random.default_rng(0)
    for number in range(FITTED_MIXED):
        parts = [stained[index] for index in random.permutation(len(stained))]
        yield side_by_side(scratch / f"{number}.png", parts, FITTED_COLUMNS, FITTED_SIDE)


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
    """Measurements of the masks of all proposals that the quality uses, and whether each is a nucleus."""
    with picture.opened(predictor) as slide:
        found, model = candidates(slide, (0, 0, slide.slide.width, slide.slide.height), 1.0)
        for item, features in found:
            values = [getattr(features, name) for name in model.weights]
            yield np.array([1.0, *values]), picture.best_iou(item.area)[1] > FOUND_FROM


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
    parser.add_argument("--mixed", action="store_true", help="measure one slide of pictures side by side")
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
    with tempfile.TemporaryDirectory() as scratch:
        chosen = (
            [mixed(arguments.data, Path(scratch))]
            if arguments.mixed
            else pictures(arguments.data, False, arguments.every)
        )
        for kind, tally in measure(predictor, chosen).items():
            print(tally.row(kind))


if __name__ == "__main__":
    main()
