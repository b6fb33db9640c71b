"""Output files of an evaluation besides results.csv: JSON, tables, pictures, and a page."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.evaluation.cases import LabelledSequence
from lib.evaluation.protocol import CaseContext, ObjectResult, pipeline_named
from lib.evaluation.results import (
    LOWER_IS_BETTER,
    TITLES,
    ResultRow,
    ResultTable,
    as_frame,
    paper_table,
    tables,
)
from lib.evaluation.runner import PROTOCOL, EvaluatedModel, Evaluation, open_case
from lib.files import write_atomically
from lib.palette import MASK_COLOURS, ORANGE, Colour
from lib.prompts.types import FramePrompts
from lib.reports.figures import box_plot, curves
from lib.reports.page import Page
from lib.reports.pictures import Tile, contact_sheet, edge, outlined, png_bytes

TILE = 240  # pixels of a tile's side
# Side of a cut-out relative to the object, so that the surroundings are visible.
CONTEXT = 2.0
SMALLEST_CUT = 32  # pixels of the frame
LEGEND = (("truth", MASK_COLOURS["truth"]), ("network", MASK_COLOURS["after"]), ("prompt", ORANGE))

Mask = NDArray[np.bool_]


def pipeline_pictures(name: str, done: Evaluation) -> dict[str, bytes]:
    """PNG files of a pipeline by name: the distribution, the frames of a video, and objects per network."""
    chosen = [row for row in done.rows if row.pipeline == name]
    metric = ranking_metric(chosen, done.plan.rules.metrics or pipeline_named(name).metrics)
    if metric is None:
        return {}
    title = f"{name}: {TITLES[metric]}"
    found: dict[str, bytes | None] = {f"{name}_spread": spread_figure(chosen, metric, title)}
    if name == "video":
        found[f"{name}_frames"] = frames_figure(chosen, metric, title)
    for model in done.models:
        own = [row for row in chosen if row.weights == model.name]
        found[f"{name}_objects_{model.name}"] = objects_sheet(
            done, model, own, metric, f"{name}, {model.name}: best, median and worst"
        )
    return {key: picture for key, picture in found.items() if picture is not None}


def ranking_metric(rows: Sequence[ResultRow], order: Sequence[str]) -> str | None:
    """The first metric of the order that objects have."""
    measured = {name for row in rows if row.object for name in row.values}
    return next((name for name in order if name in measured), None)


def spread_figure(rows: Sequence[ResultRow], metric: str, title: str) -> bytes:
    """Box plot (PNG) of a metric over the objects, one box per kind of prompt and network."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.object and metric in row.values:
            groups.setdefault(f"{_asked(row.prompt, row.frames)}, {row.weights}", []).append(
                row.values[metric]
            )
    limits = None if metric in LOWER_IS_BETTER else (-0.02, 1.02)
    return box_plot(groups, TITLES[metric], title, limits=limits)


def frames_figure(rows: Sequence[ResultRow], metric: str, title: str) -> bytes | None:
    """Curves (PNG) of a metric's mean over the number of prompted frames; None for a single number."""
    frame = as_frame(rows).dropna(subset=[metric])
    if frame["frames"].nunique() < 2:
        return None
    means = (
        frame.groupby(["prompt", "weights", "frames"], sort=False)[metric].mean().sort_index(level="frames")
    )
    series = {
        f"{prompt}, {weights}": [(float(key[-1]), float(mean)) for key, mean in group.items()]
        for (prompt, weights), group in means.groupby(level=["prompt", "weights"], sort=False)
    }
    return curves(series, "prompted frames", f"mean {TITLES[metric]}", title)


def picked(rows: Sequence[ResultRow], metric: str) -> dict[str, ResultRow]:
    """The best, the median and the worst row, without repetitions."""
    rated = [row for row in rows if row.object and metric in row.values]
    rated.sort(key=lambda row: row.values[metric], reverse=metric not in LOWER_IS_BETTER)
    places = {"best": 0, "median": len(rated) // 2, "worst": len(rated) - 1}
    found: dict[str, ResultRow] = {}
    for name, place in places.items():
        if rated and rated[place] not in found.values():
            found[name] = rated[place]
    return found


def objects_sheet(
    done: Evaluation, model: EvaluatedModel, rows: Sequence[ResultRow], metric: str, title: str
) -> bytes | None:
    """Outlines (PNG) of the best, the median and the worst object; None without any."""
    lines = [
        _tiles(done, model, row, f"{name}: {TITLES[metric]} {row.values[metric]:.3f}")
        for name, row in picked(rows, metric).items()
    ]
    if lines and max(map(len, lines)) == 1:
        lines = [[tile for line in lines for tile in line]]
    return png_bytes(contact_sheet(lines, heading=title, legend=LEGEND)) if lines else None


def _tiles(done: Evaluation, model: EvaluatedModel, row: ResultRow, caption: str) -> list[Tile]:
    """Tiles of one object. Masks are not stored: the network segments it again."""
    case = next(case for case in done.plan.cases if case.id == row.image)
    sequence, pipeline = open_case(case, done.options), pipeline_named(row.pipeline)
    rules = done.plan.rules.model_copy(update={"metrics": ()})
    context = CaseContext(case.id, sequence, done.options, rules)
    trial = next(
        trial
        for trial in pipeline.trials(context, (row.object,))
        if (trial.frame, trial.prompt.name, trial.prompt.frames) == (row.frame, row.prompt, row.frames)
    )
    (result,) = pipeline.run(model.predictor, context, trial)
    text = f"{caption}\n{row.image}\n{row.label}, {_asked(row.prompt, row.frames)}"
    return [_tile(sequence, result, index, f"{text}, frame {index}") for index in result.shown]


def _asked(prompt: str, frames: int) -> str:
    return f"{prompt} on {frames} frames" if frames > 1 else prompt


def _tile(sequence: LabelledSequence, result: ObjectResult, index: int, caption: str) -> Tile:
    frame = sequence.frames[index]
    nothing = np.zeros(frame.shape[:2], np.bool_)
    truth = sequence.mask(result.object, index) if index in sequence.annotated else nothing
    found = result.masks.get(index, nothing)
    asked = result.prompts.get(index)
    area = cut_out(truth | found)
    masks: dict[str | Colour, Mask] = {"truth": truth[area], "after": found[area]}
    if asked is not None:
        # On a large cut-out a single pixel would be invisible.
        reach = max(truth[area].shape) // TILE
        masks[ORANGE] = prompt_mask(asked, truth.shape, reach)[area]
    return Tile(outlined(np.ascontiguousarray(frame[area]), masks, side=TILE), caption)


def cut_out(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns around a mask, square if the frame allows it."""
    if not mask.any():
        return slice(None), slice(None)
    ys, xs = np.nonzero(mask)
    side = max(round(CONTEXT * max(np.ptp(ys) + 1, np.ptp(xs) + 1)), SMALLEST_CUT)
    rows, columns = (_part(places, side, size) for places, size in zip((ys, xs), mask.shape, strict=True))
    return rows, columns


def prompt_mask(prompts: FramePrompts, shape: tuple[int, ...], reach: int = 0) -> Mask:
    """Pixels of a drawn prompt: a square per click, the outline of a box, the outline of a mask.

    Args:
        prompts: Prompts of one frame.
        shape: Frame size (H, W).
        reach: Pixels from the centre of a click's square to its sides.
    """
    drawn: Mask = np.zeros(shape, np.bool_)
    for x, y in np.rint(prompts.points).astype(int):
        drawn[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
    if prompts.box is not None:
        x0, y0, x1, y1 = np.rint(prompts.box).astype(int)
        inside = np.zeros(shape, np.bool_)
        inside[y0:y1, x0:x1] = True
        drawn |= edge(inside)
    return drawn if prompts.mask is None else drawn | edge(prompts.mask)


def _part(places: NDArray[np.integer], side: int, size: int) -> slice:
    """``side`` pixels around the places, moved inside the frame."""
    start = int(places.min() + places.max() + 1 - side) // 2
    start = max(0, min(start, size - side))
    return slice(start, start + side)


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


def write_outputs(done: Evaluation) -> list[ResultTable]:
    """Writes all output files except ``results.csv``.

    Returns:
        The tables.
    """
    made = tables(done.rows)
    if done.plan.paper:
        made.append(paper_table(done.plan.paper))
    record = json.dumps(_record(done), indent=1, ensure_ascii=False) + "\n"
    for name, text in {JSON_FILE: record, TABLE_FILE: _markdown(done, made)}.items():
        write_atomically(done.options.output / name, text.encode("utf-8", errors="replace"))
    _page(done, made).write(done.options.output / PAGE_FILE)
    return made


def _page(done: Evaluation, made: Sequence[ResultTable]) -> Page:
    """The page; its pictures are written as files too."""
    page = Page(f"Evaluation: {done.plan.title}")
    page.key_values(_facts(done))
    for note in done.notes:
        page.paragraph(f"Note: {note}.")
    for pipeline in dict.fromkeys(row.pipeline for row in done.rows):
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
    if done.left_out:
        page.heading("Left out")
        page.table(("Image", "Reason"), done.left_out.items())
    return page


def _record(done: Evaluation) -> dict[str, Any]:
    return {
        "data": done.plan.title,
        "options": done.options.model_dump(mode="json"),
        "rules": done.plan.rules.model_dump(mode="json"),
        "protocol": PROTOCOL,
        "weights": {model.name: model.describe() for model in done.models},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        "left_out": done.left_out,
        "notes": done.notes,
        "rows": [row.as_record() for row in done.rows],
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def _markdown(done: Evaluation, made: Sequence[ResultTable]) -> str:
    parts = [f"# Evaluation: {done.plan.title}", "", _CAPTION, "", *(table.markdown() for table in made)]
    if done.notes:
        parts += ["## Notes", "", *(f"- {note}" for note in done.notes), ""]
    if done.left_out:
        parts += ["## Left out", "", *(f"- {name}: {why}" for name, why in done.left_out.items()), ""]
    return "\n".join(parts)


def _facts(done: Evaluation) -> dict[str, str | int]:
    rows, rules = done.rows, done.plan.rules
    by_class = f", by class: {rules.tolerance_mm}" if rules.tolerance_mm else ""
    facts: dict[str, str | int] = {
        "Data": str(done.options.data),
        "Images": len({row.image for row in rows}),
        "Left out": len(done.left_out),
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
