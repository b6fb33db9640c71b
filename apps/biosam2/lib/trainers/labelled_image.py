"""A labelled image, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One labelled image.

    Attributes:
        id: the image's id in the datastore.
        image: its file, or folder of DICOM files.
        label: the file of its final label.
        label_info: names of the label's values as the client sent them, ``[{"name": ..., "idx": ...}]``.
    """

    id: str
    image: Path
    label: Path
    label_info: Sequence[Mapping[str, Any]] = ()
