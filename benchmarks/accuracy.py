"""How right: our server on images with known truth, beside GrabCut and random walker.

The images are those of a data pack: the folder that BIOSAM2_DATA names. Without one
the sample study's phantoms are measured. The server gets copies of the images alone; truth stays outside.
``make bench-accuracy`` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import requests

from benchmarks.accuracy_report import item_table, mean_table, object_table, to_csv, verdicts
from benchmarks.client import Viewer
from benchmarks.items import MANIFEST, Item, phantom_items, read_items
from benchmarks.server import running_server
from benchmarks.sheet import draw_sheet
from benchmarks.targets import choose_targets
from benchmarks.trials import Trial, run_trial

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "apps" / "biosam2"
DATA_VARIABLE = "BIOSAM2_DATA"
DEFAULT_DATA = ROOT.parent / "shared" / "data"

PROTOCOL = """\
Box: tight around the object's largest island on the slice where that is largest. Clicks: the first in the
island's middle, each next one in the middle of the largest mistake of our last mask. Propagation: a box on
the object's middle slice, Dice of the whole volume. GrabCut: OpenCV, same box, same 8-bit slice, 5
iterations; in grey tissue it often keeps nothing, so the filled box stands beside it. Random walker:
scikit-image, the same clicks, the image's border as background; with "own clicks" each next click mends its
own mask instead. Seen: whether the bundled weights were trained on the image."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument(
        "--conf", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="option of the app"
    )
    parser.add_argument("--port", type=int, default=8122, help="a free port")
    parser.add_argument(
        "--items", nargs="*", default=[], help="only images whose id holds one of these words"
    )
    parser.add_argument("--quick", action="store_true", help="one object per image, five slices propagated")
    parser.add_argument(
        "--reach", type=int, help="most slices to either side that a propagation visits; all by default"
    )
    parser.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="our server alone: minutes less"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    return parser.parse_args(argv)


def find_data() -> Path | None:
    """The data pack's folder, or None where there is none."""
    data = Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA))
    return data if (data / MANIFEST).is_file() else None


def find_items(work: Path) -> tuple[list[Item], str]:
    """The images to measure, and a sentence about them."""
    data = find_data()
    if data is None:
        return phantom_items(work), (
            f"No real images: {DATA_VARIABLE} names no folder with a {MANIFEST}. These are the phantoms of "
            "the sample study, whose truth is exact and whose structures are easy."
        )
    return read_items(data), "Real images with masks."


def copy_images(items: Sequence[Item], studies: Path) -> None:
    """A datastore of the images alone, each under its id."""
    studies.mkdir(parents=True)
    for item in items:
        suffix = ".nii.gz" if item.image.name.endswith(".nii.gz") else item.image.suffix
        shutil.copyfile(item.image, studies / f"{item.id}{suffix}")


def measure(items: Sequence[Item], viewer: Viewer, options: argparse.Namespace) -> list[Trial]:
    """All trials, image by image."""
    trials = []
    for item in items:
        started = time.monotonic()
        image = item.read_image()
        targets = choose_targets(item, item.read_label())
        for target in targets[: 1 if options.quick else None]:
            reach = 2 if options.quick else options.reach
            trials.append(run_trial(viewer, target, image, baselines=options.baselines, reach=reach))
        print(f"{item.id}: {len(targets)} objects, {time.monotonic() - started:.0f} s", flush=True)
    return trials


def short_report(trials: Sequence[Trial], about: str, weights: str) -> str:
    """Means, where ours is not ahead, and a line per image, as Markdown."""
    sentences = "\n".join(f"- {sentence}" for sentence in verdicts(trials))
    parts = [about, f"Weights: {weights}.", mean_table(trials), sentences, item_table(trials), PROTOCOL]
    return "\n\n".join(parts) + "\n"


def write(trials: Sequence[Trial], short: str, folder: Path) -> None:
    """The short report, the whole one, every number, and the contact sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accuracy_short.md").write_text(short, encoding="utf-8")
    (folder / "accuracy.md").write_text(f"{short}\n{object_table(trials)}\n", encoding="utf-8")
    (folder / "accuracy.csv").write_text(to_csv(trials), encoding="utf-8")
    numbers = []
    for trial in trials:
        target = trial.target
        numbers.append({"image": target.item.id, "object": target.name, "slice": target.index, **trial.dice})
    (folder / "accuracy.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    draw_sheet(trials).save(folder / "accuracy.png")


def main(argv: list[str] | None = None) -> None:
    """Measure, print the report and write it with the contact sheet."""
    options = arguments(argv)
    with tempfile.TemporaryDirectory(prefix="biosam2_accuracy_", ignore_cleanup_errors=True) as work:
        items, about = find_items(Path(work))
        if options.items:
            items = [item for item in items if any(word in item.id for word in options.items)]
        print(about, flush=True)
        studies = Path(work) / "datastore"
        copy_images(items, studies)
        with running_server(APP, studies, options.port, dict(options.conf), name="our server") as server:
            trials = measure(items, Viewer(server.url), options)
            weights = served_weights(server.url)
    short = short_report(trials, about, weights)
    write(trials, short, options.output)
    print(short)
    print(f"Written to {options.output}/accuracy.md, .csv, .json and .png")


def served_weights(url: str) -> str:
    """Which weights answered, and why, as ``/info/`` says."""
    model = requests.get(f"{url}/info/", timeout=60).json()["models"]["biosam2_box"]
    return "; ".join(model.get("weights", {}).get("served", {}).values())


if __name__ == "__main__":
    main()
