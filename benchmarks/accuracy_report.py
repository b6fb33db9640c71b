"""The accuracy benchmark's numbers as Markdown and CSV, and in plain words where ours is not ahead."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import mean

from benchmarks.tables import markdown_table, number
from benchmarks.trials import CLICK_COUNTS, FILLED, GRABCUT, OURS, WALKER, WALKER_OWN, Trial

CLICK_PROMPTS = tuple(f"{count} click" if count == 1 else f"{count} clicks" for count in CLICK_COUNTS)
# (prompt, method) in the order of the columns; the rival of each prompt stands beside ours.
COLUMNS = (
    ("box", OURS),
    ("box", GRABCUT),
    ("box", FILLED),
    *((prompt, method) for prompt in CLICK_PROMPTS for method in (OURS, WALKER)),
    ("propagation", OURS),
)
METHODS = (OURS, GRABCUT, FILLED, WALKER, WALKER_OWN)
RIVALS = {"box": (GRABCUT, FILLED), **dict.fromkeys(CLICK_PROMPTS, (WALKER, WALKER_OWN))}
_SEEN = {True: "yes", False: "no", None: ""}


def value(trial: Trial, prompt: str, method: str) -> float:
    """One coefficient; NaN where it was not measured."""
    return trial.dice.get(prompt, {}).get(method, math.nan)


def mean_dice(trials: Sequence[Trial], prompt: str, method: str) -> float:
    """Mean over the objects that have it; NaN when none has."""
    found = [value(trial, prompt, method) for trial in trials if not math.isnan(value(trial, prompt, method))]
    return mean(found) if found else math.nan


def object_table(trials: Sequence[Trial]) -> str:
    """A line per object."""
    rows = []
    for trial in trials:
        item = trial.target.item
        cells = [number(value(trial, *column), 2) for column in COLUMNS]
        rows.append([item.id, trial.target.name, _SEEN[item.seen], *cells])
    return markdown_table(["image", "object", "seen", *_titles()], rows)


def item_table(trials: Sequence[Trial]) -> str:
    """A line per image, the mean of its objects."""
    rows = []
    for item in dict.fromkeys(trial.target.item.id for trial in trials):
        own = [trial for trial in trials if trial.target.item.id == item]
        first = own[0].target.item
        cells = [number(mean_dice(own, *column), 2) for column in COLUMNS]
        rows.append([item, first.modality, _SEEN[first.seen], str(len(own)), *cells])
    return markdown_table(["image", "modality", "seen", "n", *_titles()], rows)


def mean_table(trials: Sequence[Trial]) -> str:
    """Means over the objects of all images, of those that the weights saw, and of those they did not."""
    rows = []
    for prompt in ("box", *CLICK_PROMPTS, "propagation"):
        for group, own in _groups(trials).items():
            measured = [trial for trial in own if prompt in trial.dice]
            if measured:
                cells = [number(mean_dice(measured, prompt, method), 3) for method in METHODS]
                rows.append([prompt, group, str(len(measured)), *cells])
    titles = [f"{method}, same clicks" if method == WALKER else method for method in METHODS]
    return markdown_table(["mean Dice", "images", "n", *titles], rows)


def verdicts(trials: Sequence[Trial]) -> Iterator[str]:
    """A sentence per prompt and rival: who is ahead on average, and on which images' objects ours is not."""
    for prompt, rivals in RIVALS.items():
        for rival in rivals:
            ours, theirs = mean_dice(trials, prompt, OURS), mean_dice(trials, prompt, rival)
            if math.isnan(theirs):
                continue
            behind = [trial for trial in trials if value(trial, prompt, OURS) <= value(trial, prompt, rival)]
            by_image = Counter(trial.target.item.id for trial in behind)
            where = ", ".join(f"{image} {count}" for image, count in by_image.items())
            verdict = "above" if ours > theirs else "**not above**"
            yield (
                f"{prompt}: our mean {ours:.3f} is {verdict} that of {rival}, {theirs:.3f}; "
                f"not above on {len(behind)} of {len(trials)} objects{f' ({where})' if where else ''}."
            )


def _groups(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """All trials, and where some images were seen in training and others not, both kinds by themselves."""
    seen = [trial for trial in trials if trial.target.item.seen is True]
    unseen = [trial for trial in trials if trial.target.item.seen is False]
    every = {"all": list(trials)}
    return {**every, "seen in training": seen, "not seen": unseen} if seen and unseen else every


def to_csv(trials: Sequence[Trial]) -> str:
    """A line per object, a column per prompt and method."""
    columns = [*COLUMNS[:-1], *((prompt, WALKER_OWN) for prompt in CLICK_PROMPTS), COLUMNS[-1]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "modality", "object", "slice", "seen", *(", ".join(each) for each in columns)])
    for trial in trials:
        target = trial.target
        cells = [number(value(trial, *column), 4).replace("-", "") for column in columns]
        about = [target.item.id, target.item.modality, target.name, target.index, _SEEN[target.item.seen]]
        writer.writerow([*about, *cells])
    return text.getvalue()


def _titles() -> list[str]:
    return [f"{prompt}, {method}" for prompt, method in COLUMNS]
