"""Values of DICOM tags, as scanners, anonymizers and exports leave them."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from typing import Any

import pydicom

from lib.errors import ImageError

logger = logging.getLogger(__name__)

# Functional groups of all frames of an enhanced file together, and of each frame.
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def utc_offset(value: Any) -> timedelta:
    """Time zone of a file ahead of UTC, from DICOM's ``&ZZXX``; zero where it is no such text."""
    text = str(value or "").strip()
    if len(text) != 5 or not text[1:].isdigit():
        return timedelta()
    away = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return -away if text[0] == "-" else away


def numbers(dataset: pydicom.Dataset | None, name: str) -> tuple[float, ...]:
    """Numbers of an optional tag with none, one or several values.

    Text that is no number, such as ``40,5`` or ``N/A``, counts as an absent tag, and the log says so.
    """
    try:
        return required_numbers(dataset, name)
    except ImageError as error:
        logger.warning("DICOM tag ignored: %s", error)
        return ()


def required_numbers(dataset: pydicom.Dataset | None, name: str) -> tuple[float, ...]:
    """Numbers of a tag with none, one or several values.

    Raises:
        ImageError: Text that is no number, or NaN.
    """
    if dataset is None:
        return ()
    try:
        value = dataset.get(name)
        values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        found = tuple(float(number) for number in values if number not in (None, ""))
        if not all(math.isfinite(number) for number in found):
            raise ValueError(f"{found} is not finite")
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ImageError(f"its {name} is no number: {error}") from error
    return found


def text(dataset: pydicom.Dataset, name: str) -> str:
    """Text of a tag; empty where it is absent or cannot be decoded."""
    try:
        return str(dataset.get(name) or "").strip()
    except (ValueError, TypeError, LookupError) as error:
        logger.warning("DICOM tag ignored: its %s cannot be read: %s", name, error)
        return ""


def groups(dataset: pydicom.Dataset, name: str) -> list[pydicom.Dataset | None]:
    """First item of a functional group for each frame: its own, else the shared one, else None.

    Raises:
        ImageError: The header describes fewer or more frames than there are.
    """
    shared = first_item(first_item(dataset, GROUPS[0]), name)
    count = int(dataset.get("NumberOfFrames") or 1)
    own = list(dataset.get(GROUPS[1]) or [])
    if len(own) not in (0, count):
        raise ImageError(f"its header describes {len(own)} of its {count} frames: export it again")
    return [first_item(item, name) or shared for item in own] if own else [shared] * count


def first_item(dataset: pydicom.Dataset | None, name: str) -> pydicom.Dataset | None:
    """First item of a sequence; None where there is none."""
    items: Any = dataset.get(name) if dataset is not None else None
    return items[0] if items else None
