"""Output files of an evaluation besides ``results.csv``: JSON, tables, pictures, and a page."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from lib.evaluation.models import PROTOCOL
from lib.evaluation.pictures import pipeline_pictures
from lib.evaluation.runner import FinishedEvaluation
from lib.evaluation.summary import ResultTable, paper_table, tables
from lib.files import write_atomically
from lib.reports.page import Page

JSON_FILE, TABLE_FILE, PAGE_FILE = "results.json", "table.md", "report.html"
# Libraries that can change a number.
_LIBRARIES = ("torch", "numpy", "scipy", "sam2", "Pillow")
_CAPTION = (
    "Mean and standard deviation over the objects. The best mean is marked: among the weights under one "
    "prompt, or among the prompts of a single network."
)
_PROTOCOLS = {
    "image": "Each object on its frames. All clicks are drawn from its mask before the first answer. F1 "
    "counts an object as found when the masks share half of their union.",
    "volume": "A box on one slice of each object, propagated to its first slice and then to its last, until "
    "the network finds the object no longer.",
    "video": "Clicks on each of the first frames that show the object, or its mask on the first, propagated "
    "forward once. J&F is the mean over the labelled frames from the first prompted one on.",
}


def write_outputs(done: FinishedEvaluation) -> list[ResultTable]:
    """Writes all output files except ``results.csv``.

    Args:
        done: The evaluation; its option ``output`` is the folder.

    Returns:
        The tables.

    Raises:
        OSError: the folder cannot be written.
    """
    made = tables(done.results.rows)
    if done.plan.paper:
        made.append(paper_table(done.plan.paper))
    record = json.dumps(_record(done), indent=1, ensure_ascii=False) + "\n"
    for name, text in {JSON_FILE: record, TABLE_FILE: _markdown(done, made)}.items():
        write_atomically(done.options.output / name, text.encode("utf-8", errors="replace"))
    _page(done, made).write(done.options.output / PAGE_FILE)
    return made


def _page(done: FinishedEvaluation, made: Sequence[ResultTable]) -> Page:
    """The page; its pictures are written as files too."""
    page = Page(f"Evaluation: {done.plan.title}")
    page.key_values(_facts(done))
    for note in done.results.notes:
        page.paragraph(f"Note: {note}.")
    for pipeline in dict.fromkeys(row.pipeline for row in done.results.rows):
        page.heading(pipeline.capitalize())
        page.paragraph(_PROTOCOLS[pipeline])
        for table in made:
            if table.title.startswith(pipeline):
                _add(page, table)
        for name, picture in pipeline_pictures(pipeline, done).items():
            write_atomically(done.options.output / f"{name}.png", picture)
            page.picture(picture, name.replace("_", " "))
    if done.plan.paper:
        _add(page, made[-1])
    if done.results.left_out:
        page.heading("Left out")
        page.table(("Image", "Reason"), done.results.left_out.items())
    return page


def _record(done: FinishedEvaluation) -> dict[str, Any]:
    return {
        "data": done.plan.title,
        "options": done.options.model_dump(mode="json"),
        "rules": done.plan.rules.model_dump(mode="json"),
        "protocol": PROTOCOL,
        "weights": {model.name: model.describe() for model in done.models},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        "left_out": done.results.left_out,
        "notes": done.results.notes,
        "rows": [row.as_record() for row in done.results.rows],
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def _markdown(done: FinishedEvaluation, made: Sequence[ResultTable]) -> str:
    parts = [f"# Evaluation: {done.plan.title}", "", _CAPTION, "", *(table.markdown() for table in made)]
    if done.results.notes:
        parts += ["## Notes", "", *(f"- {note}" for note in done.results.notes), ""]
    if done.results.left_out:
        parts += ["## Left out", "", *(f"- {name}: {why}" for name, why in done.results.left_out.items()), ""]
    return "\n".join(parts)


def _facts(done: FinishedEvaluation) -> dict[str, str | int]:
    rows, rules = done.results.rows, done.plan.rules
    by_class = f", by class: {rules.tolerance_mm}" if rules.tolerance_mm else ""
    facts: dict[str, str | int] = {
        "Data": str(done.options.data),
        "Images": len({row.image for row in rows}),
        "Left out": len(done.results.left_out),
        "Objects": len({(row.image, row.object) for row in rows if row.object}),
        "Seed": done.options.seed,
        "NSD tolerance": f"{rules.default_tolerance_mm:g} mm{by_class}",
    }
    for model in done.models:
        about = model.describe()
        facts[model.name] = (
            f"{about['image_size']} px, {about['precision']} on {about['device']}, sha256 {about['sha256']}"
        )
    return facts


def _add(page: Page, table: ResultTable) -> None:
    page.heading(table.title, 3)
    page.table(table.header, table.marked("", " *"), f"{_CAPTION} (*)" if table.best else "")
