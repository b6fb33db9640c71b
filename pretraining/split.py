"""Which items of a data folder train, and which are held out to measure on: from its manifest alone.

Whole patients are held out where the ids name them. Where they do not, the last ids of a kind are taken:
neighbours in a numbered series may be one patient, so they stay together.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

__all__ = [
    "HELD_OUT",
    "NEVER",
    "TRAINED",
    "kind_of",
    "patient_of",
    "read_manifest",
    "split_of",
    "with_true_masks",
]

TRAINED, HELD_OUT, NEVER = "trained on", "held out", "not for training"
HELD_OUT_PER_KIND = 4  # items, or a few more where patients come whole

# Ids that name a patient: the first group. Every other id is a patient of its own.
_PATIENT = re.compile(
    r"((?:spider|hvsmr|kidneyt2|chd68|pancreas_PANCREAS|ocdc)_\d+|rings_P\d+|sts\d+|msflair_\d{3}"
    r"|busbra_(?:benign|malignant)_\d+)"
)

# Masks of these images follow no edge in them: README.md.
_MISPLACED = ("pulmav_",)


def read_manifest(folder: Path) -> tuple[list[dict], dict[str, str]]:
    """Items of a data folder's manifest.json whose masks can be used, and the split of each id.

    Raises:
        FileNotFoundError: the folder has no manifest.
    """
    items = with_true_masks(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["items"])
    return items, split_of(items)


def with_true_masks(items: list[dict]) -> list[dict]:
    """The items of a manifest but for those whose masks lie beside the objects."""
    return [item for item in items if not item["id"].startswith(_MISPLACED)]


def patient_of(item: dict) -> str:
    """The patient, slide or specimen that an item of a manifest comes from."""
    found = _PATIENT.match(item["id"])
    return found[1] if found else item["id"]


def kind_of(item: dict) -> str:
    """The kind of image an item is, as the manifest names it."""
    return item["modality"]


def split_of(items: list[dict]) -> dict[str, str]:
    """Id to TRAINED, HELD_OUT or NEVER (the manifest forbids it) of every item.

    Of each kind at least four items are held out, where it has so many; kinds with fewer train. A patient's
    items are all on one side, those of other kinds too.
    """
    allowed = [item for item in items if item["may_train_shipped_weights"]]
    by_kind: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for item in sorted(allowed, key=lambda item: item["id"]):
        by_kind[kind_of(item)][patient_of(item)] += 1
    held: set[str] = set()
    for patients in by_kind.values():
        if sum(patients.values()) >= HELD_OUT_PER_KIND:
            held |= _chosen(patients, held)
    out = {item["id"]: NEVER for item in items}
    for item in allowed:
        out[item["id"]] = HELD_OUT if patient_of(item) in held else TRAINED
    return out


def _chosen(patients: dict[str, int], held: set[str]) -> set[str]:
    """The smallest patient that is enough alone, else the last ones; after those already held out."""
    missing = HELD_OUT_PER_KIND - sum(count for name, count in patients.items() if name in held)
    if missing <= 0:
        return set()
    enough = [name for name, count in patients.items() if count >= missing > 1]
    if enough:
        return {min(enough, key=lambda name: patients[name])}
    out: set[str] = set()
    for name in reversed([name for name in patients if name not in held]):
        if missing > 0:
            out.add(name)
            missing -= patients[name]
    return out
