"""Gain of fine-tuning: trains on the MR of some patients and measures on another patient, for each in turn.

For every BraTS patient of the data pack, a server with the bundled weights gets all images, and the labels
(whole tumour) of the other patients. The same random clicks on the patient's slices are sent before and after
``POST /train/biosam2``, over HTTP, without a restart. ``make bench-finetuning`` runs it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import nibabel
import numpy as np
import requests

from benchmarks.client import Viewer
from benchmarks.items import ROOT, Item, find_data, read_items
from benchmarks.machine import machine
from benchmarks.publish import write_report
from benchmarks.server import APP, copy_bundled, running_server
from benchmarks.tables import number
from lib.evaluation.results import markdown_table
from lib.metrics.segmentation import dice
from lib.prompts.simulation import jittered_box, random_clicks

TRAINER = "biosam2"
SLICES = 20  # per image, evenly spaced over the tumour
REPEATS = 2  # random prompts per slice
LEAST_PIXELS = 50  # smallest tumour area on a slice
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class PatientResult:
    """Result for one patient.

    Attributes:
        patient: Held-out patient.
        taught_on: Ids of the labelled images.
        before: Mean Dice by kind of prompt before the training.
        after: Mean Dice by kind of prompt with the weights in service after the training.
        minutes: Duration of the training.
        message: Final message of the training.
    """

    patient: str
    taught_on: list[str]
    before: Mapping[str, float]
    after: Mapping[str, float]
    minutes: float
    message: str


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetuning", description=__doc__)
    parser.add_argument("--preset", default="decoder", choices=["decoder", "paper", "video"])
    parser.add_argument("--minutes", type=float, default=15.0, help="most that a training may take")
    parser.add_argument("--option", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--conf", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--patients", nargs="*", default=[], help="only these held-out patients")
    parser.add_argument("--port", type=int, default=8123, help="a free port")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    return parser.parse_args(argv)


def patient_of(item: Item) -> str:
    """``0005`` of ``brats_0005_flair``."""
    return item.id.split("_")[1]


def write_datastore(items: Sequence[Item], held_out: str, studies: Path) -> list[str]:
    """Writes all images, and the labels of all but one patient. Returns the labelled ids."""
    labels = studies / "labels" / "final"
    labels.mkdir(parents=True)
    for item in items:
        shutil.copyfile(item.image, studies / f"{item.id}.nii.gz")
        if patient_of(item) != held_out:
            source = nibabel.Nifti1Image.from_filename(item.label)
            tumour = (np.asarray(source.dataobj) > 0).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(tumour, source.affine), labels / f"{item.id}.nii.gz")
    return [item.id for item in items if patient_of(item) != held_out]


def measure(viewer: Viewer, items: Sequence[Item]) -> dict[str, float]:
    """Mean Dice of one click, three clicks and a box over slices of the images; prompts are reproducible."""
    scores: dict[str, list[float]] = defaultdict(list)
    for item in items:
        tumour = item.read_label() > 0
        slices = np.flatnonzero(tumour.sum((0, 1)) >= LEAST_PIXELS)
        for k in slices[np.linspace(0, len(slices) - 1, min(SLICES, len(slices))).astype(int)].tolist():
            truth = tumour[:, :, k].T
            for repeat in range(REPEATS):
                rng = np.random.default_rng([k, repeat])
                for kind, model, prompts in prompts_for(truth, k, rng):
                    found = viewer.infer(model, item.id, {**prompts, "result_extension": ".nrrd"})
                    scores[kind].append(dice(found.mask()[:, :, k].T, truth))
    return {kind: mean(values) for kind, values in scores.items()}


def prompts_for(truth: np.ndarray, k: int, rng: np.random.Generator) -> list[tuple[str, str, dict[str, Any]]]:
    """Kind, task and request parameters for a slice's tumour (H, W)."""
    clicks = [[int(x), int(y), k] for x, y in random_clicks(truth, 3, rng)]
    x0, y0, x1, y1 = (float(value) for value in jittered_box(truth, rng))
    return [
        ("1 click", "biosam2_point", {"foreground": clicks[:1], "background": []}),
        ("3 clicks", "biosam2_point", {"foreground": clicks, "background": []}),
        ("box", "biosam2_box", {"roi": [x0, x1, y0, y1, k, k + 1]}),
    ]


def train(url: str, options: Mapping[str, Any]) -> tuple[float, str]:
    """Trains as a viewer does. Returns the minutes and the final message."""
    started = time.monotonic()
    requests.post(f"{url}/train/{TRAINER}", json=dict(options), timeout=60).raise_for_status()
    while requests.get(f"{url}/train/", timeout=60).json()["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(POLL_SECONDS)
    stats = requests.get(f"{url}/info/", timeout=60).json()["train_stats"][TRAINER]
    return (time.monotonic() - started) / 60, stats["message"]


def run_patient(
    items: Sequence[Item], patient: str, options: argparse.Namespace, work: Path
) -> PatientResult:
    """Trains on the other patients and measures on one."""
    model_dir = copy_bundled(APP, work / "model")
    taught_on = write_datastore(items, patient, work / "studies")
    held_out = [item for item in items if patient_of(item) == patient]
    conf = {"model_dir": str(model_dir), **dict(options.conf)}
    wanted = {
        "preset": options.preset,
        "max_minutes": options.minutes,
        **{name: json.loads(value) for name, value in options.option},
    }
    with running_server(APP, work / "studies", options.port, conf, name="our server") as server:
        viewer = Viewer(server.url)
        before = measure(viewer, held_out)
        minutes, message = train(server.url, wanted)
        after = measure(viewer, held_out)
    return PatientResult(patient, taught_on, before, after, minutes, message)


def table(outcomes: Sequence[PatientResult]) -> str:
    """Dice before and after, one row per patient and one for the mean."""
    kinds = list(outcomes[0].before)
    header = ["held out", *(f"{kind}, {when}" for kind in kinds for when in ("before", "after")), "minutes"]
    rows = []
    for outcome in outcomes:
        pairs = [value for kind in kinds for value in (outcome.before[kind], outcome.after[kind])]
        rows.append([outcome.patient, *(number(value) for value in pairs), number(outcome.minutes, 1)])
    means = [
        mean(getattr(outcome, when)[kind] for outcome in outcomes)
        for kind in kinds
        for when in ("before", "after")
    ]
    rows.append(["mean", *(number(value) for value in means), number(mean(o.minutes for o in outcomes), 1)])
    return markdown_table(header, rows)


def report(outcomes: Sequence[PatientResult], options: argparse.Namespace) -> str:
    """The table with its circumstances, as Markdown."""
    facts = machine()
    cores = f"{facts['cores']} core{'s' * (facts['cores'] != '1')} of {facts['processor']}"
    lines = [
        f"`python -m benchmarks.finetuning --preset {options.preset} --minutes {options.minutes:g}`: "
        f"mean Dice on {SLICES} slices of each image of the patient held out, {REPEATS} random prompts each. "
        f"Trained on the other patients' labels, over HTTP, on {cores}.",
        table(outcomes),
        "\n".join(f"- {o.patient}: trained on {', '.join(o.taught_on)}. {o.message}." for o in outcomes),
    ]
    return "\n\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Trains, measures, prints the table and writes it."""
    options = arguments(argv)
    data = find_data()
    if data is None:
        raise SystemExit(
            "This benchmark needs BraTS volumes: set BIOSAM2_DATA to a folder with a manifest.json"
        )
    items = [item for item in read_items(data) if item.rule == "union" and item.is_volume]
    outcomes = []
    for patient in sorted({patient_of(item) for item in items}):
        if options.patients and patient not in options.patients:
            continue
        with tempfile.TemporaryDirectory(prefix="biosam2_finetuning_", ignore_cleanup_errors=True) as work:
            outcomes.append(run_patient(items, patient, options, Path(work)))
        print(table(outcomes[-1:]), outcomes[-1].message, sep="\n", flush=True)
    text = report(outcomes, options)
    write_report(text, options.output, "finetuning")
    print(text)


if __name__ == "__main__":
    main()
