"""Taking over what another process wrote into the datastore's record, without losing what this one knows.

A three-way merge: what the two had in common last time tells who changed what. Of what both changed in
different ways, ours stays; what one changed and the other removed stays changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from monailabel.datastore.local import DataModel, ImageLabelModel

Plain = dict[str, Any]
M = TypeVar("M", DataModel, ImageLabelModel)

# Stands for what is not there; equal to itself alone.
_ABSENT = object()


def merge_images(mine: dict[str, ImageLabelModel], before: Plain, after: Plain) -> None:
    """Changes this process's images as another process changed the record of them.

    Whoever holds one of the models goes on holding it: changes are made inside.

    Args:
        mine: images by id; changed in place.
        before: the record that both last agreed on, as JSON has it.
        after: the record as the other process left it.
    """
    _merge_models(mine, before, after, ImageLabelModel.model_validate, _merge_image)


def merge_files(mine: dict[str, DataModel], before: Plain, after: Plain) -> None:
    """The same for what is known of single files.

    Args:
        mine: by any key; changed in place.
        before: as both last agreed.
        after: as the other process left it.
    """
    _merge_models(mine, before, after, DataModel.model_validate, _merge_data)


def merge_values(mine: Plain, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """The same for a table of plain values, and tables in it.

    Args:
        mine: changed in place.
        before: as both last agreed.
        after: as the other process left it.
    """
    for key in [*before, *(key for key in after if key not in before)]:
        old, new, own = (table.get(key, _ABSENT) for table in (before, after, mine))
        if old == new or own == new:
            continue
        if own == old:
            if new is _ABSENT:
                mine.pop(key, None)
            else:
                mine[key] = new
        elif own is _ABSENT:
            mine[key] = new
        elif isinstance(own, dict) and isinstance(new, dict):
            merge_values(own, old if isinstance(old, dict) else {}, new)


def _merge_image(mine: ImageLabelModel, before: Plain, after: Plain) -> None:
    _merge_data(mine.image, before.get("image", {}), after.get("image", {}))
    # Threads may go through the table meanwhile, so another takes its place.
    labels = dict(mine.labels)
    merge_files(labels, before.get("labels", {}), after.get("labels", {}))
    mine.labels = labels


def _merge_data(mine: DataModel, before: Plain, after: Plain) -> None:
    if mine.ext == before.get("ext", mine.ext):
        mine.ext = after.get("ext", mine.ext)
    merge_values(mine.info, before.get("info", {}), after.get("info", {}))


def _merge_models(
    mine: dict[str, M],
    before: Plain,
    after: Plain,
    make: Callable[[Plain], M],
    merge: Callable[[M, Plain, Plain], None],
) -> None:
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        model = mine.get(key)
        if new is None:
            if model is not None and model.model_dump() == old:
                mine.pop(key, None)
        elif model is None:
            mine[key] = make(new)
        else:
            merge(model, old or {}, new)
