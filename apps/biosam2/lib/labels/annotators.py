"""Who labelled: the name that a person gave, from what a datastore keeps of labels and images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What 3D Slicer sends as long as nobody entered a name in its settings: it is that of everybody.
UNNAMED_CLIENT = "user-xyz"
# As whom MONAI Label knows everybody where access control is off.
_UNNAMED_USER = "admin"


def annotator_of(info: Mapping[str, Any]) -> str:
    """The annotator that an info names; empty where it names nobody in particular.

    Args:
        info: of a label, or MONAI Label's note of whom it gave an image to. Who signed in counts first:
            ``saved_by``, or ``user``, which becomes the reviewer's name. ``client_id`` is what the client
            said; Slicer's params are kept whole, under ``params`` or not, by the release of MONAI Label that
            saved them.
    """
    nested = info.get("params")
    inner = nested if isinstance(nested, Mapping) else {}
    names = (info.get("saved_by"), info.get("user"), info.get("client_id"), inner.get("client_id"))
    return next((str(name) for name in names if name and name not in (UNNAMED_CLIENT, _UNNAMED_USER)), "")
