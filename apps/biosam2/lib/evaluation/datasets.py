"""Public datasets: presets.yaml, files found by path templates, and readers of their ground truth."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from skimage.draw import polygon

from lib.errors import EvaluationError, LabelError
from lib.evaluation.cases import (
    MAX_VOXELS,
    EvaluationCase,
    FilmFrames,
    LabelledSequence,
    ReadTruth,
    clip_sequence,
    natural,
    open_clip,
    open_image,
)
from lib.evaluation.options import PipelineName
from lib.evaluation.protocol import MetricRules
from lib.images.medical_image import MedicalImage
from lib.images.reading import read_image
from lib.labels.reading import read_labels
from lib.labels.values import LabelMap

Colour = tuple[int, int, int]
Tracing = Mapping[int, NDArray[np.float64]]


def read_classes(path: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """Reads a label map with one value per class."""
    found = read_labels(path, image)
    return LabelMap(found.array, {value: classes.get(value, name) for value, name in found.names.items()})


def read_instances(path: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """Reads a label map with one value per object of a single class."""
    found = read_labels(path, image)
    (name,) = classes.values()
    return LabelMap(found.array, dict.fromkeys(found.names, name))


def read_colours(path: Path, image: MedicalImage, colours: Mapping[str, Colour]) -> LabelMap:
    """Reads a picture with one colour per class; other colours are background."""
    array = _picture(path, image)
    labels = np.zeros(image.shape, np.uint8)
    for value, colour in enumerate(colours.values(), start=1):
        labels[(array == np.array(colour)).all(axis=-1)] = value
    return LabelMap(labels, dict(enumerate(colours, start=1)))


def read_class_folders(folder: Path, image: MedicalImage, classes: Mapping[int, str]) -> LabelMap:
    """Reads one folder per instrument, each with a mask named like the image.

    A folder belongs to the class whose name it contains: ``Left_Prograsp_Forceps_labels`` to ``Prograsp
    Forceps``. Other folders are ignored.

    Raises:
        LabelError: no folder belongs to a class, or a mask's size differs from the image.
    """
    labels = np.zeros(image.shape, np.uint8)
    masks = list(_class_masks(folder, image.path.name, classes))
    if not masks:
        raise LabelError(f"{folder.name} has no mask {image.path.name} in a folder named after a class")
    for value, path in masks:
        labels[_picture(path, image).any(axis=-1)] = value
    return LabelMap(labels, dict(classes))


def read_tracings(path: Path) -> dict[str, Tracing]:
    """Reads EchoNet-Dynamic's ``VolumeTracings.csv``: lines across the ventricle.

    Returns:
        Lines (N, 4) as x1, y1, x2, y2 by frame, by video name without extension. The first line is the long
        axis.

    Raises:
        LabelError: a column is missing or a value is not a number.
    """
    columns = ["X1", "Y1", "X2", "Y2"]
    try:
        table = pandas.read_csv(path).astype(dict.fromkeys(columns, float) | {"Frame": int})
        videos = table.groupby([table["FileName"].map(lambda name: Path(name).stem), "Frame"], sort=False)
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path.name} cannot be read: it needs numbers in FileName, X1, Y1, X2, Y2, Frame ({error})"
        ) from error
    found: dict[str, dict[int, NDArray[np.float64]]] = {}
    for (video, frame), lines in videos:
        found.setdefault(video, {})[int(frame)] = lines[columns].to_numpy()
    return dict(found)


def open_traced(video: Path, tracing: Tracing, classes: Mapping[int, str], axis: int) -> LabelledSequence:
    """Opens a video with tracings as ground truth.

    Raises:
        ImageError: the video cannot be decoded.
        LabelError: a tracing lies beyond the last frame.
    """
    frames = FilmFrames(video)
    if max(tracing) >= len(frames):
        raise LabelError(f"{video.name} has {len(frames)} frames and a tracing on frame {max(tracing)}")
    annotated = sorted(tracing)
    truth = [traced_mask(tracing[index], frames.height, frames.width) for index in annotated]
    return clip_sequence(frames, annotated, truth, classes)


def traced_mask(lines: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """The area between the ends of lines across an object.

    Filled as in EchoNet-Dynamic's program: without the first line, on rounded pixels.

    Args:
        lines: (N, 4), x1, y1, x2, y2 in pixels.
        height: Frame height in pixels.
        width: Frame width in pixels.

    Returns:
        (H, W), 1 inside.
    """
    corners = np.rint(np.concatenate([lines[1:, :2], lines[:0:-1, 2:]])).astype(int)
    mask = np.zeros((height, width), np.uint8)
    mask[polygon(corners[:, 1], corners[:, 0], mask.shape)] = 1
    return mask


def _class_masks(folder: Path, name: str, classes: Mapping[int, str]) -> Iterator[tuple[int, Path]]:
    inside: Sequence[Path] = sorted(folder.iterdir()) if folder.is_dir() else []
    for place in inside:
        for value, label in classes.items():
            if label.replace(" ", "_") in place.name and (place / name).is_file():
                yield value, place / name


def _picture(path: Path, image: MedicalImage) -> NDArray:
    """Picture (I, J, K, channels) with the image's size."""
    found = read_image(path, MAX_VOXELS)
    if found.shape != image.shape:
        raise LabelError(
            f"{path.name} has {found.shape[:2]} pixels and its image {image.shape[:2]}: export it again"
        )
    return found.array if found.is_rgb else found.array[..., None]


PRESETS_FILE = Path(__file__).with_name("presets.yaml")
# EchoNet-Dynamic's table of videos and the split that the paper evaluates.
_SPLIT_FILE, _SPLIT = "FileList.csv", "TEST"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# Folder that unpacking on macOS leaves behind.
_JUNK = "__MACOSX"


@dataclass(frozen=True)
class TemplateMatch:
    """A file that matches a template."""

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
