"""What an evaluation leaves behind: rows, tables, pictures, and a page with all of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from lib.engine.model_versions import write_atomically
from lib.evaluation.models import PROTOCOL, Entrant
from lib.evaluation.options import Options
from lib.evaluation.pictures import Gallery, frames_figure, ranking_metric, spread_figure
from lib.evaluation.results import TITLES, Row
from lib.evaluation.runner import ALL_PIPELINES, Outcome, Plan
from lib.evaluation.summary import Table, paper_table, tables
from lib.reports.page import Page

JSON_FILE, TABLE_FILE, PAGE_FILE = "results.json", "table.md", "report.html"
# Whatever can change a number.
_LIBRARIES = ("torch", "numpy", "scipy", "sam2", "Pillow")
_CAPTION = (
    "Mean and standard deviation over the objects. The best mean is marked: among the weights under one "
    "prompt, or among the prompts where there is one network."
)
_PROTOCOLS = {
    "image": "Each object on its frames. All clicks are drawn from its mask before the first answer. F1 "
    "counts an object as found when the masks share half of their union.",
    "volume": "A box on one slice of each object, followed to its first slice and then to its last, and no "
    "further than the network sees it.",
    "video": "Clicks on each of the first frames that show the object, or its mask on the first, followed "
    "forward once. J&F is the mean over the frames with a truth, from the first prompted one on.",
}


def write_outputs(plan: Plan, entrants: Sequence[Entrant], options: Options, outcome: Outcome) -> list[Table]:
    """Writes everything but ``results.csv``, which is there already.

    Args:
        plan: of the evaluation.
        entrants: the networks.
        options: of the evaluation; ``output`` is the folder.
        outcome: what came out.

    Returns:
        The tables.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    made = tables(outcome.rows)
    if plan.paper:
        made.append(paper_table(plan.paper))
    record = _record(plan, entrants, options, outcome)
    _write(options.output / JSON_FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _write(options.output / TABLE_FILE, _markdown(plan, made, outcome))
    page = Page(f"Evaluation: {plan.title}")
    page.key_values(_facts(plan, entrants, options, outcome))
    for note in outcome.notes:
        page.paragraph(f"Note: {note}.")
    for pipeline in dict.fromkeys(row.pipeline for row in outcome.rows):
        page.heading(pipeline.capitalize())
        page.paragraph(_PROTOCOLS[pipeline])
        for table in made:
            if table.title.startswith(pipeline):
                _add(page, table)
        for name, picture in _pictures(pipeline, plan, entrants, options, outcome.rows).items():
            write_atomically(options.output / f"{name}.png", picture)
            page.picture(picture, name.replace("_", " "))
    if plan.paper:
        _add(page, made[-1])
    if outcome.left_out:
        page.heading("Left out")
        page.table(("Image", "Reason"), outcome.left_out.items())
    page.write(options.output / PAGE_FILE)
    return made


def _record(plan: Plan, entrants: Sequence[Entrant], options: Options, outcome: Outcome) -> dict[str, Any]:
    given = {name: _plain(value) for name, value in asdict(options).items()}
    return {
        "data": plan.title,
        "options": given,
        "rules": {name: _plain(value) for name, value in asdict(plan.rules).items()},
        "protocol": PROTOCOL,
        "weights": {entrant.name: entrant.describe() for entrant in entrants},
        "versions": {"python": platform.python_version(), **_versions()},
        "left_out": outcome.left_out,
        "notes": outcome.notes,
        "rows": [row.as_record() for row in outcome.rows],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return sorted(value) if isinstance(value, frozenset) else value


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _markdown(plan: Plan, made: Sequence[Table], outcome: Outcome) -> str:
    parts = [f"# Evaluation: {plan.title}", "", _CAPTION, "", *(table.markdown() for table in made)]
    if outcome.notes:
        parts += ["## Notes", "", *(f"- {note}" for note in outcome.notes), ""]
    if outcome.left_out:
        parts += ["## Left out", "", *(f"- {name}: {why}" for name, why in outcome.left_out.items()), ""]
    return "\n".join(parts)


def _facts(
    plan: Plan, entrants: Sequence[Entrant], options: Options, outcome: Outcome
) -> dict[str, str | int]:
    facts: dict[str, str | int] = {
        "Data": str(options.data),
        "Images": len({row.image for row in outcome.rows}),
        "Left out": len(outcome.left_out),
        "Objects": len({(row.image, row.object) for row in outcome.rows if row.object}),
        "Seed": options.seed,
        "NSD tolerance": f"{plan.rules.default_tolerance_mm:g} mm"
        + (f", by class: {plan.rules.tolerance_mm}" if plan.rules.tolerance_mm else ""),
    }
    for entrant in entrants:
        about = entrant.describe()
        facts[entrant.name] = (
            f"{about['image_size']} px, {about['precision']} on {about['device']}, sha256 {about['sha256']}"
        )
    return facts


def _pictures(
    name: str, plan: Plan, entrants: Sequence[Entrant], options: Options, rows: Sequence[Row]
) -> dict[str, bytes]:
    """PNG files of a pipeline by their name."""
    chosen = [row for row in rows if row.pipeline == name]
    pipeline = next(pipeline for pipeline in ALL_PIPELINES if pipeline.name == name)
    metric = ranking_metric(chosen, plan.rules.metrics or pipeline.metrics)
    if metric is None:
        return {}
    title = f"{name}: {TITLES[metric]}"
    found: dict[str, bytes | None] = {f"{name}_spread": spread_figure(chosen, metric, title)}
    if name == "video":
        found[f"{name}_frames"] = frames_figure(chosen, metric, title)
    gallery = Gallery(plan, options)
    for entrant in entrants:
        own = [row for row in chosen if row.weights == entrant.name]
        found[f"{name}_objects_{entrant.name}"] = gallery.sheet(
            entrant, own, metric, f"{name}, {entrant.name}: best, median and worst"
        )
    return {key: picture for key, picture in found.items() if picture is not None}


def _add(page: Page, table: Table) -> None:
    page.heading(table.title, 3)
    page.table(table.header, table.marked("", " *"), f"{_CAPTION} (*)" if table.best else "")


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode("utf-8", errors="replace"))
