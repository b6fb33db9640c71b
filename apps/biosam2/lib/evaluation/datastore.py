"""Cases of a MONAI Label datastore folder, and of folders with a clip each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lib.errors import EvaluationError, LabelError
from lib.evaluation.cases import (
    FILM_SUFFIXES,
    FRAME_SUFFIXES,
    EvaluationCase,
    LabelledSequence,
    frame_number,
    natural,
    open_clip,
    open_image,
)
from lib.images.file_formats import split_ending
from lib.labels.reading import read_labels

logger = logging.getLogger(__name__)

LABELS = Path("labels") / "final"
RECORD = "datastore_v2.json"


def list_cases(folder: Path) -> list[EvaluationCase]:
    """The labelled images of a datastore, then the clips in the folder and its subfolders.

    Args:
        folder: Images with their labels in ``labels/final``, or clips: folders with ``masks/`` and either
            ``frames/`` or one video file.

    Raises:
        EvaluationError: the folder has neither.
    """
    cases = [*_datastore_cases(folder), *_clip_cases(folder)]
    if not cases:
        raise EvaluationError(
            f"{folder} has nothing to evaluate: no labels in {LABELS}/, and no masks/ beside frames/ or a "
            f"video ({', '.join(FILM_SUFFIXES)}) in it or its subfolders; use --preset for a public dataset"
        )
    return cases


def stem(path: Path) -> str:
    """File name without its extension (``.nii.gz`` is one extension)."""
    return split_ending(path.name)[0]


def _datastore_cases(folder: Path) -> Iterator[EvaluationCase]:
    # A file takes precedence over the DICOM folder that it was converted from.
    found = sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    images = {stem(path): path for path in found if _may_be_image(path)}
    record = _read_record(folder)
    for label in sorted((folder / LABELS).glob("*"), key=stem):
        if label.is_file() and not label.name.startswith("."):
            name = stem(label)
            yield EvaluationCase(name, partial(_open, images.get(name), label, _label_info(record, name)))


def _may_be_image(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix != ".json" and path.name != LABELS.parts[0]


def _open(
    image: Path | None, label: Path, info: Sequence[Mapping[str, Any]] | None, axis: int
) -> LabelledSequence:
    if image is None:
        raise LabelError(f"{label.name} has no image with its name: restore the image, or delete the label")
    return open_image(image, label, partial(read_labels, label_info=info), axis)


def _read_record(folder: Path) -> Any:
    """MONAI Label's record of the datastore; empty if it is absent or damaged."""
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read and is ignored, so classes may have no names: %s", RECORD, error)
        return {}


def _label_info(record: Any, image: str) -> Sequence[Mapping[str, Any]] | None:
    """The ``label_info`` of an image's final label; None if it is absent or malformed."""
    info = _inside(record, "objects", image, "labels", LABELS.parts[1], "info")
    # MONAI Label releases differ: Slicer's parameters are stored under "params" or at the top level.
    found = _inside(info, "label_info") or _inside(info, "params", "label_info")
    if not isinstance(found, list):
        return None
    return [entry for entry in found if isinstance(entry, Mapping)] or None


def _inside(record: Any, *keys: str) -> Any:
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def _clip_cases(folder: Path) -> Iterator[EvaluationCase]:
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for place in (folder, *inside):
        if (place / "masks").is_dir() and (source := _clip_source(place)):
            yield EvaluationCase(place.name, partial(_open_clip, source, place / "masks"))


def _clip_source(place: Path) -> Sequence[Path] | Path | None:
    if (place / "frames").is_dir():
        return files_of(place / "frames")
    return next((path for path in sorted(place.iterdir()) if path.suffix.lower() in FILM_SUFFIXES), None)


def files_of(folder: Path) -> list[Path]:
    """Pictures of a folder, sorted by the numbers in their names."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES]
    return sorted((path for path in found if not path.name.startswith(".")), key=natural)


def _open_clip(source: Sequence[Path] | Path, folder: Path, axis: int) -> LabelledSequence:
    return open_clip(source, match_masks(source, files_of(folder)), read_labels, axis)


def match_masks(source: Sequence[Path] | Path, masks: Sequence[Path]) -> dict[int, Path]:
    """Masks by frame index: the frame with the mask's name, or the mask's number for a video file.

    Raises:
        LabelError: there is no mask, or a mask without a frame.
    """
    if not masks:
        raise LabelError("The clip has no mask: name each mask like its frame, or by its number")
    numbers = None if isinstance(source, Path) else {path.stem: index for index, path in enumerate(source)}
    matched = {}
    for mask in masks:
        index = frame_number(mask) if numbers is None else numbers.get(mask.stem)
        if index is None:
            raise LabelError(f"The mask {mask.name} has no frame with its name: rename it")
        matched[index] = mask
    return matched
