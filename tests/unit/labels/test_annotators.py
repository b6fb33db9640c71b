"""Who labelled, as infos say it."""

from __future__ import annotations

from typing import Any

import pytest

from lib.labels.annotators import annotator_of


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, ""),
        ({"client_id": "ann", "user": "admin"}, "ann"),
        ({"params": {"client_id": "ann"}, "user": "admin"}, "ann"),
        # Where people sign in, what their viewer says does not count.
        ({"client_id": "laptop 3", "user": "ann"}, "ann"),
        # Who reviewed a label did not draw it.
        ({"client_id": "laptop 3", "user": "ben", "saved_by": "ann"}, "ann"),
        # Nobody entered a name.
        ({"client_id": "user-xyz", "user": "admin"}, ""),
        ({"client_id": "user-xyz", "user": "ann"}, "ann"),
        ({"client_id": None, "params": None}, ""),
        ({"client_id": 7, "params": "odd"}, "7"),
    ],
)
def test_the_annotator_is_who_signed_in_else_who_the_client_named(
    info: dict[str, Any], expected: str
) -> None:
    assert annotator_of(info) == expected
