"""What the choice of the next image is worth: simulated annotation against chance, phantoms and real images.

Each store of labelled images is annotated several times by chance and by ``hybrid``: two labels, a short
training, a measurement, two more labels, and so on (``python -m lib.evaluation active-learning``). Phantoms
with hard and easy cases first; then pictures of nuclei, of electron microscopy, and slices of BraTS, where
there is a data pack. ``make bench-active-learning`` runs it and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.hard_and_easy import write_store
from benchmarks.items import ROOT, Item, find_data, read_items
from benchmarks.publish import write_report
from benchmarks.tables import number
from lib.evaluation.results import markdown_table
from lib.evaluation.simulation import run_active_learning

CHANCE, HYBRID = "random", "hybrid"
# Every fourth slice of a volume: neighbouring slices are nearly the same image.
SLICE_STEP = 4
# Smallest object of a tile in pixels.
LEAST_PIXELS = 40
READING = (
    "Area: mean Dice over the range of labels; in brackets: 95% bootstrap interval (over the seeds) of the "
    "difference to random. Share: share of random's labels at which the mean curve first reaches the last "
    "Dice of random. The bundled weights were trained on images of all real kinds but BraTS, so a few labels "
    "teach them little there."
)


@dataclass(frozen=True)
class Store:
    """Labelled images for a simulated annotation.

    Attributes:
        name: Name of the table row.
        write: Function that writes the images and their labels to a folder.
        options: Options for ``python -m lib.evaluation active-learning``.
    """

    name: str
    write: Callable[[Path], object]
    options: tuple[str, ...]


def stores(items: Sequence[Item]) -> list[Store]:
    """The stores: phantoms, then those with images in the data pack.

    Args:
        items: Images of a data pack; may be empty.
    """
    nuclei = [item for item in items if item.rule == "instances"]
    tissue = [item for item in items if item.rule == "components"]
    brains = [item for item in items if item.id.startswith("brats") and item.id.endswith("t1c")]
    found = [
        Store("phantoms", write_store, _options("image", 64, "test*", seeds=10, rounds=6, objects=30)),
    ]
    if nuclei:
        options = _options("image", 64, "0.3", seeds=5, rounds=4, objects=30)
        found.append(Store("nuclei", lambda folder: _write_tiles(nuclei, folder, 64), options))
    if len(tissue) > 1:
        options = _options("image", 128, f"{tissue[-1].id}*", seeds=3, rounds=3, objects=24)
        found.append(Store("EM", lambda folder: _write_tiles(tissue, folder, 128), options))
    if len(brains) > 1:
        options = _options("slice", 128, brains[-1].id, seeds=4, rounds=4, objects=24)
        found.append(Store("BraTS slices", lambda folder: _write_slices(brains, folder), options))
    return found


def _options(unit: str, size: int, test: str, *, seeds: int, rounds: int, objects: int) -> tuple[str, ...]:
    pairs = {"unit": unit, "image-size": size, "test": test, "seeds": seeds, "rounds": rounds}
    pairs |= {"objects": objects, "steps": 25, "strategies": f"{CHANCE},{HYBRID}"}
    return tuple(f"--{name}={value}" for name, value in pairs.items())


def _write_tiles(items: Sequence[Item], folder: Path, side: int) -> None:
    """Writes square tiles of pictures, each with its objects numbered from 1."""
    labels = _labels_of(folder)
    for item in items:
        picture, objects = item.read_image()[:, :, 0].swapaxes(0, 1), item.read_label()[:, :, 0].T
        if item.rule == "components":
            objects, _ = ndimage.label(objects > 0)
        for number_, (y, x) in enumerate(_corners(objects.shape, side)):
            tile = _numbered(objects[y : y + side, x : x + side])
            if tile.any():
                name = f"{item.id}_{number_:02}.png"
                Image.fromarray(picture[y : y + side, x : x + side].astype(np.uint8)).save(folder / name)
                Image.fromarray(tile).save(labels / name)


def _corners(shape: tuple[int, ...], side: int) -> Iterator[tuple[int, int]]:
    for y in range(0, shape[0] - side + 1, side):
        for x in range(0, shape[1] - side + 1, side):
            yield y, x


def _numbered(objects: NDArray) -> NDArray[np.uint8]:
    """The sufficiently large objects, numbered from 1."""
    values, counts = np.unique(objects[objects > 0], return_counts=True)
    found = np.zeros(objects.shape, np.uint8)
    for value, index in enumerate(values[counts >= LEAST_PIXELS].tolist(), start=1):
        found[objects == index] = value
    return found


def _write_slices(items: Sequence[Item], folder: Path) -> None:
    """Writes every fourth slice of volumes, with the whole tumour as one label."""
    labels = _labels_of(folder)
    for item in items:
        affine = np.diag([1.0, 1.0, SLICE_STEP, 1.0])
        image = item.read_image()[..., ::SLICE_STEP].astype(np.float32)
        mask = (item.read_label()[..., ::SLICE_STEP] > 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{item.id}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), labels / f"{item.id}.nii.gz")


def _labels_of(folder: Path) -> Path:
    labels = folder / "labels" / "final"
    labels.mkdir(parents=True, exist_ok=True)
    return labels


def simulate(store: Store, work: Path) -> dict[str, Any]:
    """Simulates the annotation of a store; earlier results are reused.

    Args:
        store: Store.
        work: Folder for its images and results.

    Returns:
        Content of ``curve.json``.
    """
    images = work / "images"
    store.write(images)
    run_active_learning([f"--data={images}", f"--output={work / 'curve'}", *store.options])
    found: dict[str, Any] = json.loads((work / "curve" / "curve.json").read_text(encoding="utf-8"))
    return found


def row(name: str, result: dict[str, Any]) -> list[str]:
    """Table row of a store: both areas, the gain, and the share of labels."""
    chance, hybrid = (
        {item["strategy"]: item for item in result["strategies"]}[key] for key in (CHANCE, HYBRID)
    )
    gain, needed = hybrid["gain"], hybrid["needed"]["value"]
    return [
        name,
        str(result["options"]["seeds"]),
        str(hybrid["labels"][-1]),
        number(chance["area"]["value"], 4),
        f"{number(hybrid['area']['value'], 4)} ({gain['low']:+.4f} to {gain['high']:+.4f})",
        number(chance["mean"][-1], 4),
        number(hybrid["mean"][-1], 4),
        "never" if needed is None else f"{needed:.0%}",
    ]


def report(rows: Sequence[Sequence[str]]) -> str:
    """The table with an explanation, as Markdown."""
    header = ["images", "seeds", "labels", "area, random", "area, hybrid"]
    header += ["last Dice, random", "last Dice, hybrid", "share"]
    return "\n\n".join([markdown_table(header, rows), READING]) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Simulates, prints the report and writes it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.active_learning", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    parser.add_argument("--only", nargs="*", default=[], help="stores whose names begin with these")
    options = parser.parse_args(argv)
    data = find_data()
    rows = []
    for store in stores(read_items(data) if data else []):
        if not options.only or store.name.startswith(tuple(options.only)):
            name = store.name.lower().replace(" ", "_")
            rows.append(row(store.name, simulate(store, options.output / "active_learning" / name)))
            print(report(rows), flush=True)
    write_report(report(rows), options.output, "active_learning")


if __name__ == "__main__":
    main()
