"""Public datasets: ``presets.yaml``, and their files on disk, found by path templates."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lib.errors import EvaluationError
from lib.evaluation.cases import EvaluationCase, ReadTruth, open_image
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
from lib.evaluation.options import PipelineName
from lib.evaluation.protocol import MetricRules

PRESETS_FILE = Path(__file__).with_name("presets.yaml")
# EchoNet-Dynamic's table of videos and the split that the paper evaluates.
_SPLIT_FILE, _SPLIT = "FileList.csv", "TEST"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# Folder that unpacking on macOS leaves behind.
_JUNK = "__MACOSX"


@dataclass(frozen=True)
class TemplateMatch:
    """A file that matches a template.

    Attributes:
        path: Path of the file.
        base: Folder at which the template starts.
        parts: Text of each placeholder.
    """

    path: Path
    base: Path
    parts: Mapping[str, str]

    def beside(self, template: str) -> Path:
        """Path of another template with the same base and placeholders."""
        return self.base / template.format(**self.parts)


def files_below(folder: Path) -> list[PurePosixPath]:
    """All files below a folder, relative and sorted, without hidden ones."""
    return sorted(_walk(folder))


def find(folder: Path, files: Sequence[PurePosixPath], template: str) -> list[TemplateMatch]:
    """Files with a path that ends in a template.

    Args:
        folder: Folder of the files.
        files: Paths relative to the folder.
        template: Path such as ``images/{id}_0000.nii.gz``: a placeholder in braces matches any part of a file
            or folder name, a star any text in it.
    """
    pattern = re.compile(rf"(?P<base_>(?:.*/)?){_expression(template)}")
    matches = []
    for file in files:
        if found := pattern.fullmatch(file.as_posix()):
            parts = found.groupdict()
            base = folder / parts.pop("base_")
            matches.append(TemplateMatch(folder / file, base, parts))
    return matches


def _expression(template: str) -> str:
    """The template as a regular expression; a repeated placeholder matches the same text."""
    seen: set[str] = set()
    pieces = []
    for number, piece in enumerate(_PLACEHOLDER.split(template)):
        if number % 2 == 0:
            pieces.append(re.escape(piece).replace(r"\*", "[^/]*"))
        else:
            pieces.append(rf"(?P={piece})" if piece in seen else rf"(?P<{piece}>[^/]+?)")
            seen.add(piece)
    return "".join(pieces)


def _walk(folder: Path) -> Iterator[PurePosixPath]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != _JUNK]
        for name in files:
            if not name.startswith("."):
                yield PurePosixPath((Path(place) / name).relative_to(folder).as_posix())


class DatasetLayout(BaseModel):
    """One layout of a dataset on disk. The header of ``presets.yaml`` explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    label: str
    reader: Literal["labels", "instances", "colours", "class_folders", "tracings"] = "labels"
    clip: bool = False
    only: str = ".*"
    crop: tuple[int, int, int, int] | None = None
    classes: dict[int, str] | None = None


class DatasetPreset(MetricRules):
    """One dataset. The header of ``presets.yaml`` explains the fields."""

    title: str
    pipeline: PipelineName
    layouts: tuple[DatasetLayout, ...]
    classes: dict[int, str] = Field(default_factory=dict)
    colours: dict[str, Colour] = Field(default_factory=dict)
    paper: tuple[dict[str, str | float], ...] = ()

    def rules(self) -> MetricRules:
        """How its results are measured."""
        return MetricRules(**self.model_dump(include=set(MetricRules.model_fields)))

    def cases(self, folder: Path) -> list[EvaluationCase]:
        """The cases of the first layout with any.

        Args:
            folder: Folder of the unpacked dataset, or any folder above it.

        Raises:
            EvaluationError: no layout matches; the message lists all of them.
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
            f"{folder} does not look like {self.title}: none of its {len(files)} files matches {looked}"
        )

    def _cases(
        self, folder: Path, layout: DatasetLayout, matches: Sequence[TemplateMatch]
    ) -> Iterator[EvaluationCase]:
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
                    yield EvaluationCase(_id(folder, match), opening)

    def _clip_cases(
        self, folder: Path, layout: DatasetLayout, matches: Sequence[TemplateMatch]
    ) -> Iterator[EvaluationCase]:
        clips: dict[Path, list[TemplateMatch]] = {}
        for match in sorted(matches, key=lambda match: natural(match.path)):
            clips.setdefault(match.path.parent, []).append(match)
        for frames in clips.values():
            labels = [match.beside(layout.label) for match in frames]
            masks = {index: label for index, label in enumerate(labels) if label.exists()}
            if masks:
                source = [match.path for match in frames]
                yield EvaluationCase(
                    _id(folder, frames[0], clip=True), partial(open_clip, source, masks, self._reader(layout))
                )

    def _traced_cases(
        self, folder: Path, layout: DatasetLayout, matches: Sequence[TemplateMatch]
    ) -> Iterator[EvaluationCase]:
        for base in dict.fromkeys(match.base for match in matches):
            if not (base / layout.label).is_file():
                continue
            tracings, wanted = read_tracings(base / layout.label), _split(base / _SPLIT_FILE)
            for match in matches:
                name = match.path.stem
                if match.base == base and name in tracings and (wanted is None or name in wanted):
                    opening = partial(open_traced, match.path, tracings[name], self.classes)
                    yield EvaluationCase(_id(folder, match), opening)

    def _reader(self, layout: DatasetLayout) -> ReadTruth:
        classes = layout.classes or self.classes
        if layout.reader == "colours":
            return partial(read_colours, colours=self.colours)
        readers = {"labels": read_classes, "instances": read_instances, "class_folders": read_class_folders}
        return partial(readers[layout.reader], classes=classes)


def read_presets(path: Path = PRESETS_FILE) -> Mapping[str, DatasetPreset]:
    """All presets by name.

    Raises:
        EvaluationError: the file cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, DatasetPreset]).validate_python(content)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise EvaluationError(f"The presets {path} cannot be read: {error}") from error


def _id(folder: Path, match: TemplateMatch, clip: bool = False) -> str:
    """Case id: the base below the folder, and the placeholders."""
    names = [part for name, part in match.parts.items() if not (clip and name == "id")]
    return "/".join([*match.base.relative_to(folder).parts, *names]) or match.path.parent.name


def _split(path: Path) -> set[str] | None:
    """Names of the test videos; None if the dataset's table does not define a split."""
    if not path.is_file():
        return None
    table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    if table.empty or not {"FileName", "Split"} <= set(table.columns):
        return None
    return {Path(name).stem for name in table["FileName"][table["Split"].str.upper() == _SPLIT]}
