"""Segmentation without a prompt: from a few labelled images to others of the same kind, on real images.

Of each kind some images are labelled and the others segmented: by memory (``confidence``, which
``biosam2_auto`` serves, and ``fifo``, for which the labelled images are the frames of a video before each of
the others), by an affine registration that moves the most similar labelled mask, and by a trained
``auto_head``. ``make bench-one-prompt`` runs it. With ``--fine-tune`` memory is measured with the bundled
weights and with those that *Train* makes of the labelled images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from benchmarks.items import (
    DATA_VARIABLE,
    ROOT,
    TRAINING_VARIABLE,
    Item,
    find_pack,
    read_items,
)
from benchmarks.publish import write_report
from benchmarks.server import APP, copy_bundled
from benchmarks.tables import number
from lib.engine.builder import described
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.evaluation.results import markdown_table
from lib.images.reading import read_image
from lib.images.writing import write_mask
from lib.labels.labelled_slices import image_frames
from lib.metrics.segmentation import dice
from lib.settings import MemoryPolicy, Settings
from lib.trainers.auto_head import HeadLearner, measure, one_prompts
from lib.trainers.config import TrainingPlan, TrainOptions
from lib.trainers.frames import LabelledFrames, LabelledImage, prepare_frames
from lib.trainers.training import train
from lib.transforms.sampling import evenly_spaced

Mask = NDArray[np.bool_]

COUNTS, HEAD_COUNTS = (1, 2, 4, 8), (4, 16)
FIFO: MemoryPolicy = "fifo"
CONFIDENCE: MemoryPolicy = "confidence"
POLICIES = (FIFO, CONFIDENCE)
REGISTRATION, HEAD = "registration", "auto_head"
TAUGHT = (4, 8)  # labelled images of a fine-tuning
MOST_TESTS = 8
CROP = 256  # pixels of a quarter of an EM image
SLICES = 10  # of a volume whose slices are images of their own
REGISTERED_SIDE = 128  # most pixels along a side while images are registered
_HEAD_OPTIONS = TrainOptions(max_epochs=20, steps_per_epoch=10, batch_size=4)
_BUDGET = 1 << 30
_VOXELS = 1 << 28
_OBJECT = "object"

# Pictures by the start of their ids, the word of their modality, and the label that is looked for.
PICTURES = {
    "nuclei, fluorescence": ("dsb_", "fluorescence", None),
    "polyp, endoscopy": ("hkvasir_", "", None),
    "optic disc, fundus": ("idridod_", "", None),
    "fetal head, ultrasound": ("hc18_", "", None),
    "kidney, MR slices": ("kidneyt2_", "", "kidney"),
    "aorta, CT slices": ("chd68_", "", "aorta"),
}


@dataclass(frozen=True)
class Example:
    """One labelled image.

    Attributes:
        frames: Frames with the label ``object``.
        seen: Whether it trained the bundled weights.
        files: Its files.
        group: Images of one group are labelled together or segmented together; empty for images of their own.
    """

    frames: LabelledFrames
    seen: bool
    files: LabelledImage
    group: str = ""

    @property
    def truth(self) -> Mask:
        """(T, H, W), all objects together."""
        values, times = self.frames.names, range(len(self.frames))
        return np.stack([np.any([self.frames.mask(t, value) for value in values], axis=0) for t in times])

    @property
    def levels(self) -> NDArray[np.float32]:
        """(T, H, W) grey levels."""
        return np.stack([self.frames[t].mean(axis=2) for t in range(len(self.frames))]).astype(np.float32)


class Collection:
    """Writes images of a kind to a folder and opens them as a training would.

    Args:
        folder: Folder for copies.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._count = 0

    def picture(self, levels: NDArray[np.uint8], mask: Mask, seen: bool, group: str = "") -> Example:
        """An image (H, W) or (H, W, 3) with its mask (H, W)."""
        self._count += 1
        image, label = (self._folder / f"{part}{self._count}.png" for part in ("image", "label"))
        Image.fromarray(levels).save(image)
        Image.fromarray(mask.astype(np.uint8)).save(label)
        return self._opened(image, label, seen, group)

    def volume(self, item: Item) -> Example:
        """A volume with all labels of its file as one."""
        self._count += 1
        image = read_image(item.image, _VOXELS)
        labels = np.asfortranarray((item.read_label() > 0).astype(np.uint8))
        return self._opened(item.image, write_mask(labels, image, ".nii.gz"), bool(item.seen), "")

    def _opened(self, image: Path, label: Path, seen: bool, group: str) -> Example:
        info = [{"name": _OBJECT, "idx": 1}]
        labelled = LabelledImage(f"{self._count}", image, label, info)
        return Example(prepare_frames(labelled, self._folder / "frames", _VOXELS), seen, labelled, group)


def kinds(work: Collection, words: Sequence[str] = ()) -> Iterator[tuple[str, list[Example]]]:
    """Every kind of image with its examples; with ``words`` those whose name has one of them."""
    data, more = find_pack(DATA_VARIABLE), find_pack(TRAINING_VARIABLE)
    items = read_items(data) if data else []
    pictures = read_items(more) if more else []
    for kind, examples in _sources(work, items, pictures):
        if not words or any(word in kind for word in words):
            yield kind, list(examples)


def _sources(
    work: Collection, items: Sequence[Item], pictures: Sequence[Item]
) -> Iterator[tuple[str, Iterable[Example]]]:
    """Every kind of image with its examples, which are opened as they are asked for."""
    cells = [item for item in items if item.id.startswith("isbi_em")]
    yield "cells, EM", chain.from_iterable(_crops(work, item) for item in cells)
    for kind, (start, word, name) in PICTURES.items():
        chosen = [item for item in pictures if item.id.startswith(start) and word in item.modality]
        named = [item for item in chosen if name in (None, *item.names.values())]
        yield kind, (_picture(work, item, name) for item in named)
    tumours = [item for item in items if item.id.startswith("brats") and item.id.endswith("t1c")]
    yield (
        "tumour, BraTS slices",
        chain.from_iterable(_slices(work, item, list(item.names.values())) for item in tumours),
    )
    abdomen = [item for item in items if item.id == "ts_abdomen_ct"]
    for organ in ("liver", "spleen", "kidney_left"):
        yield (
            f"{organ}, CT slices",
            chain.from_iterable(_slices(work, item, [organ], apart=False) for item in abdomen),
        )
    for modality in ("CT", "MR T1"):
        chosen = [item for item in pictures if item.id.startswith("sts") and item.modality == modality]
        yield f"sarcoma, {modality} volumes", (work.volume(item) for item in chosen)


def _crops(work: Collection, item: Item) -> Iterator[Example]:
    levels, mask = item.read_image()[:, :, 0].T, item.read_label()[:, :, 0].T > 0
    for top in range(0, levels.shape[0], CROP):
        for left in range(0, levels.shape[1], CROP):
            part = np.s_[top : top + CROP, left : left + CROP]
            yield work.picture(levels[part], mask[part], bool(item.seen), item.id)


def _picture(work: Collection, item: Item, name: str | None) -> Example:
    levels = np.swapaxes(item.read_image()[:, :, 0], 0, 1)
    wanted = [value for value, other in item.names.items() if name in (None, other)]
    label = item.read_label()[:, :, 0].T
    mask = np.isin(label, wanted) if name else label > 0
    return work.picture(np.ascontiguousarray(levels, np.uint8), mask, bool(item.seen))


def _slices(work: Collection, item: Item, names: Sequence[str], apart: bool = True) -> Iterator[Example]:
    """Slices of a volume as pictures, evenly spaced over those that hold an object.

    Args:
        work: Folder for the pictures.
        item: Volume.
        names: Labels that are looked for, all together.
        apart: Whether no other slice of the volume is labelled for one that is segmented.
    """
    frames = image_frames(read_image(item.image, _VOXELS))
    wanted = [value for value, name in item.names.items() if name in set(names)]
    masks = np.isin(item.read_label(), wanted)
    held = np.flatnonzero(masks.sum(axis=(0, 1)) >= 50)
    group = item.id if apart else ""
    for place in evenly_spaced(len(held), SLICES if apart else MOST_TESTS + max(HEAD_COUNTS)):
        yield work.picture(frames[held[place]], masks[:, :, held[place]].T, bool(item.seen), group)


def divided(examples: Sequence[Example], rng: np.random.Generator) -> tuple[list[Example], list[Example]]:
    """Images to label, in random order, and images to segment, of which training saw as few as possible."""
    groups = sorted({item.group for item in examples if item.group})
    if groups:
        tests = [item for item in examples if item.group == groups[-1]]
    else:
        order = sorted(rng.permutation(len(examples)), key=lambda place: examples[place].seen)
        tests = [examples[place] for place in order]
    tests = tests[: min(MOST_TESTS, len(examples) - max(COUNTS))]
    rest = [item for item in examples if not any(item is test for test in tests)]
    if groups:
        rest = [item for item in rest if item.group != groups[-1]]
    return [rest[place] for place in rng.permutation(len(rest))], tests


def remembered(
    predictor: Predictor, labelled: Sequence[Example], tests: Sequence[Example], policy: MemoryPolicy
) -> float:
    """Mean Dice of one-prompt segmentation with a memory policy."""
    segmenters = one_prompts(predictor, [item.frames for item in labelled], [_OBJECT], policy)
    return measure(segmenters, [item.frames for item in tests])[_OBJECT]


def trained(predictor: Predictor, labelled: Sequence[Example], tests: Sequence[Example]) -> float:
    """Mean Dice of a head that was trained on the labelled images."""
    learner = HeadLearner(predictor, [item.frames for item in labelled], [_OBJECT], _HEAD_OPTIONS, _BUDGET)
    for _ in range(_HEAD_OPTIONS.max_epochs):
        learner.epoch()
    return measure(learner.segmenters(), [item.frames for item in tests])[_OBJECT]


def registered(labelled: Sequence[Example], tests: Sequence[Example]) -> dict[int, float]:
    """Mean Dice of the mask that an affine registration moves, by the number of labelled images.

    Of several labelled images the one counts whose registration ends with the best mutual information.
    """
    scores: dict[int, list[float]] = {count: [] for count in COUNTS}
    for test in tests:
        moved = [_moved(item, test) for item in labelled[: max(COUNTS)]]
        for count in COUNTS:
            _, mask = min(moved[:count], key=lambda pair: pair[0])
            scores[count].append(dice(mask, test.truth))
    return {count: float(np.mean(values)) for count, values in scores.items()}


def _moved(labelled: Example, test: Example) -> tuple[float, Mask]:
    """Metric of an affine registration (Mattes mutual information, lower is better), and the moved mask."""
    fixed, moving = _itk(test.levels), _itk(labelled.levels)
    affine = sitk.AffineTransform(fixed.GetDimension())
    start = sitk.CenteredTransformInitializer(
        fixed, moving, affine, sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 60)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(start, inPlace=True)
    try:
        transform, metric = method.Execute(fixed, moving), method.GetMetricValue()
    except RuntimeError:  # the images do not overlap
        transform, metric = start, 0.0
    mask = sitk.Resample(_itk(labelled.truth.astype(np.float32)), fixed, transform, sitk.sitkLinear, 0.0)
    moved = torch.from_numpy(sitk.GetArrayFromImage(mask)).reshape(1, 1, *_shape3(mask))
    full = F.interpolate(moved, test.truth.shape, mode="trilinear")[0, 0]
    return metric, (full > 0.5).numpy()


def _shape3(image: sitk.Image) -> tuple[int, ...]:
    shape = image.GetSize()[::-1]
    return (1, *shape) if len(shape) == 2 else shape


def _itk(array: NDArray[np.float32]) -> sitk.Image:
    """(T, H, W) reduced to ``REGISTERED_SIDE``, as a picture for T = 1, centred at 0."""
    side = max(array.shape[1:])
    scale = min(1.0, REGISTERED_SIDE / side)
    size = (len(array), round(array.shape[1] * scale), round(array.shape[2] * scale))
    small = F.interpolate(torch.from_numpy(array)[None, None], size, mode="trilinear")[0, 0]
    image = sitk.GetImageFromArray(small.numpy()[0] if len(array) == 1 else small.numpy())
    image.SetOrigin([-(extent - 1) / 2 for extent in image.GetSize()])
    return image


def run(
    predictor: Predictor, work: Path, seed: int, words: Sequence[str] = ()
) -> tuple[list[list[str]], dict[str, list[float]]]:
    """Rows of the table, and the Dice of every kind by method and number of labelled images."""
    rows: list[list[str]] = []
    means: dict[str, list[float]] = {}
    for kind, examples in kinds(Collection(work), words):
        if len(examples) <= max(COUNTS):
            continue
        labelled, tests = divided(examples, np.random.default_rng(seed))
        scores: dict[str, float | None] = {}
        registration = registered(labelled, tests)
        for count in COUNTS:
            for policy in POLICIES:
                scores[f"{policy} {count}"] = remembered(predictor, labelled[:count], tests, policy)
            scores[f"{REGISTRATION} {count}"] = registration[count]
        for count in HEAD_COUNTS:
            enough = len(labelled) >= count
            scores[f"{HEAD} {count}"] = trained(predictor, labelled[:count], tests) if enough else None
        for name, value in scores.items():
            means.setdefault(name, []).extend([] if value is None else [value])
        held_out = sum(not item.seen for item in tests)
        print(kind, {name: number(value) for name, value in scores.items()}, flush=True)
        rows.append([kind, f"{len(tests)} ({held_out})", *(number(scores[name]) for name in columns())])
    return rows, means


def columns() -> list[str]:
    """Methods and numbers of labelled images, as columns."""
    pairs = [(method, count) for method in (REGISTRATION, FIFO, CONFIDENCE) for count in COUNTS]
    return [f"{method} {count}" for method, count in [*pairs, *((HEAD, count) for count in HEAD_COUNTS)]]


def report(rows: Sequence[Sequence[str]], means: Mapping[str, Sequence[float]], weights: str) -> str:
    """The section of RESULTS.md."""
    mean = ["mean", "", *(number(float(np.mean(means[name]))) for name in columns())]
    table = markdown_table(["mean Dice", "images (unseen)", *columns()], [*rows, mean])
    verdicts = []
    for method in (FIFO, REGISTRATION):
        wins = sum(
            ours >= other
            for count in COUNTS
            for ours, other in zip(means[f"{CONFIDENCE} {count}"], means[f"{method} {count}"], strict=True)
        )
        total = sum(len(means[f"{method} {count}"]) for count in COUNTS)
        verdicts.append(f"- {CONFIDENCE} is at least as good as {method} in {wins} of {total} cases.")
    text = (
        f"Weights: {weights}. The number after a method is that of the labelled images; unseen images did "
        "not train the weights. BraTS slices and EM crops are segmented in other images than those that are "
        "labelled, slices of the abdomen in the same one. The mean of the last column is over the kinds that "
        f"have {max(HEAD_COUNTS)} images to label. {CONFIDENCE} is `biosam2_auto` without a head; the weight "
        "of its feature discriminant was chosen on nuclei, discs, heads, kidneys and aortas of this kind."
    )
    return "\n\n".join([text, table, "\n".join(verdicts)])


def fine_tuned(labelled: Sequence[Example], folder: Path, minutes: float) -> Predictor:
    """The weights in service after *Train*, which publishes what is better on images that it holds out."""
    pool = PredictorPool(Settings(), copy_bundled(APP, folder))
    weights = described(pool.weights(), pool.registry, pool.get().runtime.type)
    plan = TrainingPlan(
        options=TrainOptions(preset="decoder", max_minutes=minutes, multi_gpu=False),
        images=tuple(item.files for item in labelled),
        weights=weights,
        service=weights,
        published=None,
        model_dir=pool.registry.folder,
        device="",
        precision="auto",
        max_voxels=_VOXELS,
        embedding_cache_mb=_BUDGET >> 20,
        started=time.time(),
    )
    train(plan)
    return pool.get()


def run_fine_tuned(
    predictor: Predictor, work: Path, seed: int, words: Sequence[str], minutes: float
) -> list[list[str]]:
    """Rows of bundled and fine-tuned weights, one for each kind and number of labelled images."""
    rows = []
    for kind, examples in kinds(Collection(work), words):
        if len(examples) <= max(COUNTS):
            continue
        labelled, tests = divided(examples, np.random.default_rng(seed))
        for count in TAUGHT:
            taught = fine_tuned(labelled[:count], work / f"model {kind} {count}".replace(" ", "_"), minutes)
            pairs = [(weights, policy) for policy in POLICIES for weights in (predictor, taught)]
            scores = [number(remembered(each, labelled[:count], tests, policy)) for each, policy in pairs]
            held_out = sum(not item.seen for item in tests)
            published = "yes" if taught.name != predictor.name else "no"
            rows.append([kind, f"{len(tests)} ({held_out})", f"{count}", published, *scores])
            print(rows[-1], flush=True)
    return rows


def report_fine_tuned(rows: Sequence[Sequence[str]], weights: str, minutes: float) -> str:
    """The section of RESULTS.md with fine-tuned weights."""
    heads = ["mean Dice", "images (unseen)", "labelled", "published"]
    heads += [f"{policy}, {which}" for policy in POLICIES for which in ("bundled", "fine-tuned")]
    text = (
        f"Bundled weights: {weights}. Fine-tuned: at most {minutes:g} minutes of the preset `decoder` on the "
        "labelled images, which then are the templates. A training publishes what is better on the images "
        "that it holds out of these; where it does not, the bundled weights stay in service. Unseen images "
        "did not train the bundled weights."
    )
    return "\n\n".join([text, markdown_table(heads, rows)])


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark and writes its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="registry name or path of the weights; bundled ones by default")
    parser.add_argument("--fine-tune", type=float, metavar="MINUTES", help="most that a training may take")
    parser.add_argument("--kinds", nargs="*", default=(), help="words of the kinds of image; all by default")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    predictor = PredictorPool(Settings(model=options.model), APP / "model").get()
    weights = f"{predictor.name}, {predictor.image_size} px"
    with tempfile.TemporaryDirectory() as work:
        if minutes := options.fine_tune:
            rows = run_fine_tuned(predictor, Path(work), options.seed, options.kinds, minutes)
            name, text = "one_prompt_finetuned", report_fine_tuned(rows, weights, minutes)
        else:
            rows, means = run(predictor, Path(work), options.seed, options.kinds)
            name, text = "one_prompt", report(rows, means, weights) if rows else ""
    if not rows:
        raise SystemExit(f"No real images: {DATA_VARIABLE} and {TRAINING_VARIABLE} name no folders")
    write_report(text, options.output, name)


if __name__ == "__main__":
    main()
