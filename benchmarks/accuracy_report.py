"""The numbers of the accuracy benchmark as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas

from benchmarks.tables import number
from benchmarks.trials import CLICK_COUNTS, FILLED, GRABCUT, OURS, WALKER, WALKER_OWN, Trial
from lib.evaluation.results import markdown_table

CLICK_PROMPTS = tuple(f"{count} click" if count == 1 else f"{count} clicks" for count in CLICK_COUNTS)
PROMPTS = ("box", *CLICK_PROMPTS, "propagation")
METHODS = (OURS, GRABCUT, FILLED, WALKER, WALKER_OWN)
RIVALS = {"box": (GRABCUT, FILLED), **dict.fromkeys(CLICK_PROMPTS, (WALKER, WALKER_OWN))}
# Columns of the tables by modality and by image.
COLUMNS = (
    *(("box", method) for method in (OURS, GRABCUT, FILLED)),
    *((prompt, method) for prompt in CLICK_PROMPTS for method in (OURS, WALKER, WALKER_OWN)),
    ("propagation", OURS),
)
# Aims of mean Dice on images that training never uses, and of the share of harmful corrections.
AIMS = {"box": 0.88, "1 click": 0.70, "3 clicks": 0.82, "5 clicks": 0.86, "propagation": 0.68}
HARM_AIM = 0.08
_RIVAL_OF = {"box": FILLED, **dict.fromkeys(CLICK_PROMPTS, WALKER_OWN)}


def as_frame(trials: Sequence[Trial]) -> pandas.DataFrame:
    """One line per object, prompt and method."""
    records = [
        {**_facts(trial), "prompt": prompt, "method": method, "dice": value}
        for trial in trials
        for prompt, values in trial.dice.items()
        for method, value in values.items()
    ]
    return pandas.DataFrame(records, columns=[*_facts_columns(), "prompt", "method", "dice"])


def _facts_columns() -> tuple[str, ...]:
    return ("image", "modality", "group", "split", "object", "slice")


def _facts(trial: Trial) -> dict[str, Any]:
    item = trial.target.item
    values = (item.id, item.modality, item.group, item.split, trial.target.name, trial.target.index)
    return dict(zip(_facts_columns(), values, strict=True))


def mean_dice(frame: pandas.DataFrame, prompt: str, method: str) -> float:
    """Mean over the objects; NaN without any."""
    return float(frame.loc[(frame["prompt"] == prompt) & (frame["method"] == method), "dice"].mean())


def split_table(frame: pandas.DataFrame) -> str:
    """Mean Dice by prompt and method, with a line per split."""
    splits = {"all": frame, **{name: own for name, own in frame.groupby("split", sort=False) if name}}
    if len(splits) == 2:
        del splits[next(reversed(splits))]
    rows = []
    for prompt in PROMPTS:
        for name, own in splits.items():
            objects = _objects(own[own["prompt"] == prompt])
            if objects:
                cells = [number(mean_dice(own, prompt, method)) for method in METHODS]
                rows.append([prompt, name, str(objects), *cells])
    titles = [f"{method}, same clicks" if method == WALKER else method for method in METHODS]
    return markdown_table(["mean Dice", "images", "n", *titles], rows)


def aims_table(trials: Sequence[Trial], before: Sequence[Mapping[str, Any]] = ()) -> str:
    """Images that training never uses: mean Dice, its aim, and the best rival.

    Args:
        trials: Trials of all images.
        before: Records of an earlier run (``accuracy.json``), for a column on the same objects.
    """
    unseen = [trial for trial in trials if trial.target.item.seen is not True]
    frame = as_frame(unseen)
    rows = []
    for prompt, aim in AIMS.items():
        own = frame[frame["prompt"] == prompt]
        if len(own):
            ours = mean_dice(own, prompt, OURS)
            rival = number(mean_dice(own, prompt, _RIVAL_OF[prompt])) if prompt in _RIVAL_OF else ""
            earlier = number(_earlier(unseen, before, prompt))
            rows.append([prompt, str(_objects(own)), _verdict(ours, aim), f"≥ {aim:.2f}", rival, earlier])
    rows += [_corrections(unseen), _disobeyed(unseen)]
    rival = "filled box; random walker, own clicks"
    return markdown_table(["not trained on", "n", "ours", "aim", rival, "before"], rows)


def _verdict(value: float, aim: float) -> str:
    return f"**{number(value)}**" if value >= aim else f"{number(value)} (missed)"


def _earlier(trials: Sequence[Trial], before: Sequence[Mapping[str, Any]], prompt: str) -> float:
    found = {(record["image"], record["object"]): record.get(prompt, {}).get(OURS) for record in before}
    values = [
        found.get((trial.target.item.id, trial.target.name)) for trial in trials if prompt in trial.dice
    ]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _corrections(trials: Sequence[Trial]) -> list[str]:
    total = sum(trial.corrections for trial in trials)
    share = sum(trial.harmful for trial in trials) / total if total else math.nan
    met = f"**{share:.1%}**" if share <= HARM_AIM else f"{share:.1%} (missed)"
    return ["harmful corrections", str(total), met if total else "-", f"≤ {HARM_AIM:.0%}", "", ""]


def _disobeyed(trials: Sequence[Trial]) -> list[str]:
    count = sum(trial.disobeyed for trial in trials)
    return ["disobeyed clicks", str(sum(trial.clicks for trial in trials)), str(count), "0", "", ""]


def group_table(frame: pandas.DataFrame, keys: Sequence[str]) -> str:
    """Mean Dice per group of equal keys and prompt and method."""
    rows = []
    for values, own in frame.groupby(list(keys), sort=False):
        cells = [number(mean_dice(own, *column), 2) for column in COLUMNS]
        rows.append([*map(str, values), str(_objects(own)), *cells])
    return markdown_table([*keys, "n", *(f"{prompt}, {method}" for prompt, method in COLUMNS)], rows)


def rival_sentences(frame: pandas.DataFrame) -> Iterator[str]:
    """A sentence per prompt and rival: both means, and the objects on which ours is not above."""
    for prompt, rivals in RIVALS.items():
        for rival in rivals:
            ours, theirs = mean_dice(frame, prompt, OURS), mean_dice(frame, prompt, rival)
            if math.isnan(theirs):
                continue
            own = frame[frame["prompt"] == prompt]
            wide = own.pivot(index=["image", "object", "group"], columns="method", values="dice")
            behind = wide[wide[OURS] <= wide[rival]]
            counts = behind.groupby("group", sort=False).size()
            where = ", ".join(f"{group} {count}" for group, count in counts.items())
            verdict = "above" if ours > theirs else "**not above**"
            yield (
                f"{prompt}: our mean {ours:.3f} is {verdict} that of {rival}, {theirs:.3f}; "
                f"not above on {len(behind)} of {len(wide)} objects{f' ({where})' if where else ''}."
            )


def to_csv(frame: pandas.DataFrame) -> str:
    """One line per object, one column per prompt and method."""
    wide = frame.pivot(index=list(_facts_columns()), columns=["prompt", "method"], values="dice")
    wide = wide.reindex(columns=pandas.MultiIndex.from_tuples(COLUMNS)).reindex(_order(frame))
    wide.columns = [f"{prompt}, {method}" for prompt, method in COLUMNS]
    return wide.reset_index().to_csv(index=False, float_format="%.4f", lineterminator="\n")


def _order(frame: pandas.DataFrame) -> pandas.MultiIndex:
    return pandas.MultiIndex.from_frame(frame[list(_facts_columns())].drop_duplicates())


def _objects(frame: pandas.DataFrame) -> int:
    return len(frame[["image", "object"]].drop_duplicates())
