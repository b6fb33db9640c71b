"""Runs a task on an image of the datastore or on a client's file; saves the result on request."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask

from lib.datastores.label_entries import AUTOMATIC
from lib.datastores.local import image_path
from lib.errors import LabelError, PromptError
from lib.infers.label_merging import label_info, merge, read_label, write_label
from lib.infers.task import SegmentTask
from lib.labels import read_labels

# Two answers that are merged at once would lose one of them.
_MERGING = threading.Lock()
DEFAULT_TAG = "original"


def infer(tasks: Mapping[str, InferTask], request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
    """Answers MONAI Label's ``infer``.

    MONAI Label's own code would take an id for a path where the working folder has a file of that name.

    Args:
        tasks: Tasks by name.
        request: ``model``; ``image``, an id of the datastore or the absolute path of a client's file;
            ``save_label`` and ``label_tag``; and what the task reads. The answer of an interactive task is
            merged into the label that is there: its objects are replaced, the others stay.
        datastore: Datastore of the images.

    Returns:
        ``file``, the path of the result or None; ``label``, the id of the saved label or the same path;
        ``tag``; and ``params``.

    Raises:
        BioSam2Error: With a reason.
    """
    task = tasks.get(request.get("model", ""))
    if task is None:
        raise PromptError(f"Unknown model {request.get('model')!r} (available: {', '.join(tasks)})")
    image, tag = request["image"], str(request.get("label_tag") or DEFAULT_TAG)
    is_file = Path(image).is_absolute()
    saves = bool(request.get("save_label")) and not is_file
    interactive = isinstance(task, SegmentTask)
    if saves and not interactive:
        require_replaceable(datastore, image, tag)
    path = image if is_file else str(image_path(datastore, image))
    file, params = task({**request, "image": path, "description": task.description})
    label = file
    if saves and file:
        info = {"model": request["model"], "params": params, AUTOMATIC: True, **_user(request)}
        save = partial(_save_merged, task) if isinstance(task, SegmentTask) else save_automatic_label
        label = save(datastore, image, Path(file), tag, info)
    return {"file": file, "label": label, "tag": tag, "params": params}


def _save_merged(
    task: SegmentTask, datastore: Datastore, image_id: str, file: Path, tag: str, info: Mapping[str, Any]
) -> str:
    """Merges an interactive answer into the label that the image has under a tag, one answer at a time.

    Raises:
        LabelError: The label that is there cannot be read, or would have more than 255 objects.
    """
    params = info["params"]
    with _MERGING:
        image = task.opened(image_path(datastore, image_id))
        old = read_label(datastore, image_id, tag, image)
        automatic = old is None or not is_persons_label(datastore, image_id, tag)
        names = params["label_names"]
        answer = read_labels(file, image, [{"name": name, "idx": value} for name, value in names.items()])
        part = (params["axis"], params["slice"]) if task.dimension == 2 else None
        merged = merge(old, answer, names, part)
        path = write_label(merged, image)
        try:
            facts = {**info, AUTOMATIC: automatic, "label_info": label_info(merged)}
            saved: str = datastore.save_label(image_id, str(path), tag, facts)
        finally:
            path.unlink(missing_ok=True)
    return saved


def save_automatic_label(
    datastore: Datastore, image: str, file: Path, tag: str, info: Mapping[str, Any]
) -> str:
    """Saves a model's label, unless a person has saved one under the same tag meanwhile.

    Raises:
        LabelError: A person's label is there.
    """
    require_replaceable(datastore, image, tag)
    saved: str = datastore.save_label(image, str(file), tag, {**info, AUTOMATIC: True})
    return saved


def require_replaceable(datastore: Datastore, image: str, tag: str) -> None:
    """Lets a model's label take a place that is empty, or has a model's label.

    Raises:
        LabelError: A person's label is there.
    """
    if is_persons_label(datastore, image, tag):
        raise LabelError(
            f"{image!r} has a label {tag!r} that a person made: choose another label_tag, or remove "
            "that one first"
        )


def is_persons_label(datastore: Datastore, image: str, tag: str) -> bool:
    """Whether an image has a label under a tag that no model is known to have made."""
    if tag not in datastore.get_labels_by_image_id(image):
        return False
    info = datastore.get_label_info(image, tag) or {}
    return info.get(AUTOMATIC) is not True


def _user(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"user": request["user"]} if "user" in request else {}
