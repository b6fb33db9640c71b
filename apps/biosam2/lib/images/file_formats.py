"""Names of images and labels, whose endings may have two parts."""

from __future__ import annotations

from pathlib import Path

# Of any other name, what stands after the last dot is the ending.
_DOUBLE_ENDINGS = (".nii.gz", ".seg.nrrd")


def split_ending(name: str) -> tuple[str, str]:
    """What stands before a file name's ending, and the ending as it is written; empty where there is none."""
    lowered = name.lower()
    double = next((ending for ending in _DOUBLE_ENDINGS if lowered.endswith(ending)), None)
    length = len(double or Path(name).suffix)
    return name[: len(name) - length], name[len(name) - length :]
