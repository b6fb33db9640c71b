"""Accuracy of the server on images with ground truth, beside GrabCut and random walker.

Images come from the data pack (environment variable BIOSAM2_DATA) and from the part of the training pack
that training never uses (BIOSAM2_TRAINING_DATA), or from the sample study without a pack. The server gets
copies of the images alone. ``make bench-accuracy`` runs it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from benchmarks.accuracy_report import (
    aims_table,
    as_frame,
    group_table,
    rival_sentences,
    split_table,
    to_csv,
)
from benchmarks.client import Viewer
from benchmarks.items import ROOT, TRAINING_VARIABLE, Item, find_items, find_pack, held_out_items
from benchmarks.server import APP, running_server
from benchmarks.sheet import draw_sheet
from benchmarks.targets import choose_targets
from benchmarks.trials import Trial, run_trial

# Sample of the training pack: with it a run takes less than ten minutes on one core.
ITEMS_PER_KIND, OBJECTS_PER_ITEM = 4, 1

PROTOCOL = """\
Box: tight around the object's largest island on the slice where that is largest. Clicks: the first in the
island's middle, each next one in the middle of the largest mistake of our last mask. Propagation: a box on
the object's middle slice, Dice of the whole volume. GrabCut: OpenCV, same box, same 8-bit slice, 5
iterations; in grey tissue it often keeps nothing, so the filled box stands beside it. Random walker:
scikit-image on at most 256 pixels a side, the same clicks, the image's border as background; with "own
clicks" each next click corrects its own mask instead. Images: trained on; held out (whole patients,
`pretraining/split.py`); not for training (excluded by the manifest). A correction is harmful if it lowers
Dice by more than 0.02; a click is disobeyed if its pixel has the other label in the answer."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    add = parser.add_argument
    add("--conf", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="option of the app")
    add("--port", type=int, default=8122, help="a free port")
    add("--items", nargs="*", default=[], help="only images with one of these words in their ids")
    add("--per-kind", type=int, default=ITEMS_PER_KIND, help="most images of a kind of the training pack")
    add("--objects", type=int, default=OBJECTS_PER_ITEM, help="most objects per image of the training pack")
    add("--quick", action="store_true", help="one object per image, five slices propagated")
    add("--reach", type=int, help="most slices to either side in a propagation; default: all")
    add("--no-baselines", dest="baselines", action="store_false", help="skip the classical methods")
    add("--before", type=Path, help="accuracy.json of an earlier run, for a column beside this one")
    add("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    return parser.parse_args(argv)


def all_items(work: Path, per_kind: int) -> tuple[list[Item], list[Item], str]:
    """Images of the data pack (or phantoms), of the training pack, and a sentence about them."""
    items, about = find_items(work)
    pack = find_pack(TRAINING_VARIABLE)
    if pack is None:
        return items, [], f"{about} No training pack: {TRAINING_VARIABLE} names no folder."
    return items, held_out_items(pack, per_kind), about


def copy_images(items: Sequence[Item], studies: Path) -> None:
    """Creates a datastore of the images alone, each named by its id."""
    studies.mkdir(parents=True)
    for item in items:
        suffix = ".nii.gz" if item.image.name.endswith(".nii.gz") else item.image.suffix
        shutil.copyfile(item.image, studies / f"{item.id}{suffix}")


def measure(
    items: Sequence[Item], viewer: Viewer, options: argparse.Namespace, objects: int | None = None
) -> Iterator[Trial]:
    """Runs all trials, image by image.

    Args:
        items: Images.
        viewer: Client of the server.
        options: The command line.
        objects: Most objects per image; None for all.
    """
    for item in items:
        started = time.monotonic()
        image = item.read_image()
        targets = choose_targets(item, item.read_label())[: 1 if options.quick else objects]
        for target in targets:
            reach = 2 if options.quick else options.reach
            yield run_trial(viewer, target, image, baselines=options.baselines, reach=reach)
        print(f"{item.id}: {len(targets)} objects, {time.monotonic() - started:.0f} s", flush=True)


def report(
    trials: Sequence[Trial], about: str, weights: str, before: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The whole report as Markdown."""
    frame = as_frame(trials)
    parts = [
        f"{about}\n\nWeights: {weights}.",
        aims_table(trials, before),
        split_table(frame),
        group_table(frame, ["group", "split"]),
        "\n".join(f"- {sentence}" for sentence in rival_sentences(frame)),
        group_table(frame, ["image", "modality", "split"]),
        PROTOCOL,
    ]
    return "\n\n".join(parts) + "\n"


def write(trials: Sequence[Trial], text: str, folder: Path) -> None:
    """Writes the report, every number, and the contact sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accuracy.md").write_text(text, encoding="utf-8")
    (folder / "accuracy.csv").write_text(to_csv(as_frame(trials)), encoding="utf-8")
    numbers = [
        {
            "image": trial.target.item.id,
            "object": trial.target.name,
            "slice": trial.target.index,
            "corrections": [trial.harmful, trial.corrections],
            "disobeyed": [trial.disobeyed, trial.clicks],
            **trial.dice,
        }
        for trial in trials
    ]
    (folder / "accuracy.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    draw_sheet(trials).save(folder / "accuracy.png")


def main(argv: list[str] | None = None) -> None:
    """Measures, prints the report and writes it."""
    options = arguments(argv)
    trials: list[Trial] = []
    before = json.loads(options.before.read_text(encoding="utf-8")) if options.before else []
    with tempfile.TemporaryDirectory(prefix="biosam2_accuracy_", ignore_cleanup_errors=True) as work:
        own, held_out, about = all_items(Path(work), options.per_kind)
        if options.items:
            own, held_out = (
                [item for item in items if any(word in item.id for word in options.items)]
                for items in (own, held_out)
            )
        print(about, flush=True)
        studies = Path(work) / "datastore"
        copy_images([*own, *held_out], studies)
        with running_server(APP, studies, options.port, dict(options.conf), name="our server") as server:
            viewer, weights = Viewer(server.url), served_weights(server.url)
            # Ctrl-C ends the measurement; the report has what was measured until then.
            with suppress(KeyboardInterrupt):
                trials.extend(measure(own, viewer, options))
                trials.extend(measure(held_out, viewer, options, options.objects))
    text = report(trials, about, weights, before)
    write(trials, text, options.output)
    print(text)
    print(f"Written to {options.output}/accuracy.md, .csv, .json and .png")


def served_weights(url: str) -> str:
    """Name and reason of the served weights, from ``/info/``."""
    model = requests.get(f"{url}/info/", timeout=60).json()["models"]["biosam2_box"]
    return "; ".join(model.get("weights", {}).get("served", {}).values())


if __name__ == "__main__":
    main()
