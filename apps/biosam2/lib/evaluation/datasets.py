"""Public datasets by name: ``presets.yaml``, read, checked, and looked for on disk."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lib.errors import EvaluationError
from lib.evaluation.cases import Case, ReadTruth, open_image
from lib.evaluation.clips import natural, open_clip
from lib.evaluation.ground_truth import (
    Colour,
    open_traced,
    read_class_folders,
    read_classes,
    read_colours,
    read_instances,
    read_tracings,
)
from lib.evaluation.options import DEFAULT_TOLERANCE_MM, PipelineName
from lib.evaluation.path_templates import Match, files_below, find
from lib.evaluation.protocol import Rules

PRESETS_FILE = Path(__file__).with_name("presets.yaml")
# EchoNet-Dynamic's table of videos and its part that the paper evaluates.
_SPLIT_FILE, _SPLIT = "FileList.csv", "TEST"


class Layout(BaseModel):
    """One way in which a dataset lies on disk. The fields are explained at the top of ``presets.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    label: str
    reader: Literal["labels", "instances", "colours", "class_folders", "tracings"] = "labels"
    clip: bool = False
    only: str = ".*"
    crop: tuple[int, int, int, int] | None = None
    classes: dict[int, str] | None = None


class Preset(BaseModel):
    """One dataset. The fields are explained at the top of ``presets.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    pipeline: PipelineName
    metrics: tuple[str, ...]
    layouts: tuple[Layout, ...]
    classes: dict[int, str] = {}
    colours: dict[str, Colour] = {}
    tolerance_mm: dict[str, float] = {}
    default_tolerance_mm: float = DEFAULT_TOLERANCE_MM
    labelled_slices: frozenset[str] = frozenset()
    border: int = 0
    paper: tuple[dict[str, str | float], ...] = ()

    def rules(self) -> Rules:
        """How its results are rated."""
        return Rules(
            metrics=self.metrics,
            tolerance_mm=self.tolerance_mm,
            default_tolerance_mm=self.default_tolerance_mm,
            labelled_slices=self.labelled_slices,
            border=self.border,
        )

    def cases(self, folder: Path) -> list[Case]:
        """The cases of the first layout that finds any.

        Args:
            folder: where the dataset was unpacked, or any folder above.

        Raises:
            EvaluationError: none does, with everything that was looked for.
        """
        files = files_below(folder)
        for layout in self.layouts:
            matches = [
                match
                for match in find(folder, files, layout.image)
                if re.fullmatch(layout.only, match.parts["id"])
            ]
            if cases := list(self._cases(folder, layout, matches)):
                return cases
        looked = "; ".join(f"{layout.image} with {layout.label}" for layout in self.layouts)
        raise EvaluationError(
            f"{folder} does not look like {self.title}: among its {len(files)} files there is none of "
            f"{looked}"
        )

    def _cases(self, folder: Path, layout: Layout, matches: Sequence[Match]) -> Iterator[Case]:
        if layout.reader == "tracings":
            yield from self._traced_cases(folder, layout, matches)
        elif layout.clip:
            yield from self._clip_cases(folder, layout, matches)
        else:
            read = self._reader(layout)
            for match in matches:
                label = match.beside(layout.label)
                if label.exists():
                    opening = partial(open_image, match.path, label, read, crop=layout.crop or ())
                    yield Case(_id(folder, match), opening)

    def _clip_cases(self, folder: Path, layout: Layout, matches: Sequence[Match]) -> Iterator[Case]:
        clips: dict[Path, list[Match]] = {}
        for match in sorted(matches, key=lambda match: natural(match.path)):
            clips.setdefault(match.path.parent, []).append(match)
        for frames in clips.values():
            labels = [match.beside(layout.label) for match in frames]
            masks = {index: label for index, label in enumerate(labels) if label.exists()}
            if masks:
                source = [match.path for match in frames]
                yield Case(
                    _id(folder, frames[0], clip=True), partial(open_clip, source, masks, self._reader(layout))
                )

    def _traced_cases(self, folder: Path, layout: Layout, matches: Sequence[Match]) -> Iterator[Case]:
        for base in dict.fromkeys(match.base for match in matches):
            if not (base / layout.label).is_file():
                continue
            tracings, wanted = read_tracings(base / layout.label), _split(base / _SPLIT_FILE)
            for match in matches:
                name = match.path.stem
                if match.base == base and name in tracings and (wanted is None or name in wanted):
                    opening = partial(open_traced, match.path, tracings[name], self.classes)
                    yield Case(_id(folder, match), opening)

    def _reader(self, layout: Layout) -> ReadTruth:
        classes = layout.classes or self.classes
        if layout.reader == "colours":
            return partial(read_colours, colours=self.colours)
        readers = {"labels": read_classes, "instances": read_instances, "class_folders": read_class_folders}
        return partial(readers[layout.reader], classes=classes)


def read_presets(path: Path = PRESETS_FILE) -> Mapping[str, Preset]:
    """Every preset by its name.

    Raises:
        EvaluationError: the file cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, Preset]).validate_python(content)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise EvaluationError(f"the list of presets {path} cannot be read: {error}") from error


def _id(folder: Path, match: Match, clip: bool = False) -> str:
    """Where the files are below the folder, and what tells them apart there."""
    names = [part for name, part in match.parts.items() if not (clip and name == "id")]
    return "/".join([*match.base.relative_to(folder).parts, *names]) or match.path.parent.name


def _split(path: Path) -> set[str] | None:
    """The videos that are for testing; None where the dataset's table does not say."""
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"FileName", "Split"} <= set(rows[0]):
        return None
    return {Path(row["FileName"]).stem for row in rows if (row["Split"] or "").upper() == _SPLIT}
