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
from lib.labels.names import listed_label_info
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


def labelled_files(folder: Path) -> list[tuple[str, Path | None, Path]]:
    """Id, image (a file, or a folder of DICOM files; None if it is gone) and label of each final label."""
    # A file takes precedence over the DICOM folder that it was converted from.
    found = sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    images = {stem(path): path for path in found if _may_be_image(path)}
    labels = sorted((path for path in (folder / LABELS).glob("[!.]*") if path.is_file()), key=stem)
    return [(stem(path), images.get(stem(path)), path) for path in labels]


def read_record(folder: Path) -> dict[str, Any]:
    """Entries of MONAI Label's record by image id; empty if it is absent or damaged."""
    try:
        objects = json.loads((folder / RECORD).read_text(encoding="utf-8"))["objects"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read and is ignored, so classes may have no names: %s", RECORD, error)
        return {}
    return objects if isinstance(objects, dict) else {}


def _datastore_cases(folder: Path) -> Iterator[EvaluationCase]:
    record = read_record(folder)
    for name, image, label in labelled_files(folder):
        info = _inside(record, name, "labels", LABELS.name, "info")
        label_info = listed_label_info(info) if isinstance(info, Mapping) else None
        yield EvaluationCase(name, partial(_open, image, label, label_info or None))


def _may_be_image(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix != ".json" and path.name != LABELS.parts[0]


def _open(
    image: Path | None, label: Path, info: Sequence[Mapping[str, Any]] | None, axis: int
) -> LabelledSequence:
    if image is None:
        raise LabelError(f"{label.name} has no image with its name: restore the image, or delete the label")
    return open_image(image, label, partial(read_labels, label_info=info), axis)


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
