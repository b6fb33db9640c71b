"""Names of label values, and of the people who drew them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def listed_label_info(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List of classes in the datastore's info of a label; empty if the client sent none.

    Args:
        info: Info of the label. Slicer's params are kept whole, under ``params`` or not, depending on the
            release of MONAI Label that saved them.

    Returns:
        ``[{"name": "spleen", "idx": 1}, ...]``.
    """
    nested = info.get("params")
    listed = info.get("label_info") or (nested.get("label_info") if isinstance(nested, Mapping) else None)
    return [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []


def name_values(
    values: Sequence[int],
    own: Mapping[int, str],
    label_info: Sequence[Mapping[str, Any]] | None,
) -> dict[int, str]:
    """Names of values: those of the datastore, else the file's own, else ``label_<value>``.

    The datastore's list says which classes there are, and not reliably by which values: 3D Slicer counts in
    ``idx`` the segments that it does not export, and numbers those that it does from 1. So an entry's place
    in the list, from 1, is its value, and its ``idx`` only where these are the values that are present, or 1,
    2, 3 ... in another order, or explain the values while the places do not. Where neither does, entries and
    values are paired in order if there are as many, and a list of one class names all values: they are its
    instances. A file that itself names all its values, by names from the list, is believed.

    Args:
        values: Values in the file, ascending, without 0.
        own: Value to name, from the file itself.
        label_info: MONAI Label's list of classes, ``[{"name": "spleen", "idx": 1}, ...]``. An entry with
            ``idx`` 0 is the background.
    """
    listed = _entries(label_info or ())
    named = {own.get(value) for value in values}
    if named <= {name for name, _ in listed}:
        listed = []
    given = _by_datastore(values, listed)
    return {value: given.get(value) or own.get(value) or f"label_{value}" for value in values}


def _entries(label_info: Sequence[Mapping[str, Any]]) -> list[tuple[str, int | None]]:
    """Name and idx of the entries; an entry without a name keeps its place."""
    found = []
    for entry in label_info:
        fields = entry if isinstance(entry, Mapping) else {}
        idx = _number(fields.get("idx"))
        if idx != 0:
            found.append((str(fields.get("name") or "").strip(), idx))
    return found


def _number(idx: Any) -> int | None:
    try:
        return int(idx)
    except (TypeError, ValueError):
        return None


def _by_datastore(values: Sequence[int], listed: Sequence[tuple[str, int | None]]) -> Mapping[int, str]:
    places = range(1, len(listed) + 1)
    by_place = {place: name for place, (name, _) in zip(places, listed, strict=True)}
    by_index = {idx: name for name, idx in listed if idx is not None}
    if len(by_index) < len(listed):
        by_index = {}
    if set(by_index) == set(places):
        by_place = by_index
    if set(by_index) == set(values):
        return by_index
    if set(values) <= set(places):
        return by_place
    if set(values) <= set(by_index):
        return by_index
    if len(values) == len(listed):
        return {value: name for value, (name, _) in zip(values, listed, strict=True)}
    if len(listed) == 1:
        return dict.fromkeys(values, listed[0][0])
    return by_place


# Client id that 3D Slicer sends until a user name is entered in its settings.
UNNAMED_CLIENT = "user-xyz"
# User name of everybody in MONAI Label if access control is off.
_UNNAMED_USER = "admin"


def annotator_of(info: Mapping[str, Any]) -> str:
    """Annotator named in an info; empty if it names nobody in particular.

    Args:
        info: Info of a label, or MONAI Label's record of an assignment. The signed-in user comes first:
            ``saved_by``, or ``user``, which becomes the reviewer's name. ``client_id`` is sent by the
            client; Slicer's params are kept whole, under ``params`` or not, depending on the release of MONAI
            Label that saved them.
    """
    nested = info.get("params")
    inner = nested if isinstance(nested, Mapping) else {}
    names = (info.get("saved_by"), info.get("user"), info.get("client_id"), inner.get("client_id"))
    return next((str(name) for name in names if name and name not in (UNNAMED_CLIENT, _UNNAMED_USER)), "")
