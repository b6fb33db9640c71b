"""Segments of a DICOM segmentation: name, codes and colour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from skimage.color import rgb2lab

from lib.palette import CLASS_COLOURS

# DICOM PS3.16: categories (CID 7150), and the context group in which the types of each stand.
_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
_TISSUE = Code("85756007", "SCT", "Tissue")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_CATEGORIES = (
    (_ANATOMY, "cid7192"),
    (_TISSUE, "cid7191"),
    (_ABNORMAL, "cid7194"),
    (Code("260787004", "SCT", "Physical object"), "cid7193"),
    (Code("91720002", "SCT", "Body Substance"), "cid7197"),
)
# Common names that the context groups lack or spell differently.
_ALSO = {
    "Tumor": (_ABNORMAL, Code("108369006", "SCT", "Neoplasm")),
    "Tumour": (_ABNORMAL, Code("108369006", "SCT", "Neoplasm")),
    "Lesion": (_ABNORMAL, Code("52988006", "SCT", "Lesion")),
}
# Words that no code contains.
_SIDES = {"left", "right"}
# Bounds of L*, a* and b* that 0 to 65535 stand for (PS3.3, C.10.7.1.1).
_LAB_LOW, _LAB_HIGH = np.array([0.0, -128.0, -128.0]), np.array([100.0, 127.0, 127.0])
# A segment's label is a long string: 64 characters, and a backslash would make two of it.
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Segment:
    """One class of a label map, as DICOM describes it.

    Attributes:
        value: Value in the label map.
        name: Segment label.
        category: Code of the property category, such as tissue.
        type: Code of the property type, such as liver.
        colour: Red, green and blue, 0 to 255.
        description: Free text; may be empty.
    """

    value: int
    name: str
    category: Code
    type: Code
    colour: tuple[int, int, int]
    description: str = ""

    @property
    def lab(self) -> list[int]:
        """Colour as DICOM stores it: CIELab in whole numbers from 0 to 65535."""
        lab = rgb2lab(np.array(self.colour, dtype=float) / 255)
        shares = (lab - _LAB_LOW) / (_LAB_HIGH - _LAB_LOW)
        return [int(number) for number in np.rint(np.clip(shares, 0, 1) * 65535)]


def describe_segments(
    names: Mapping[int, str], label_info: Sequence[Mapping[str, Any]] | None = None
) -> list[Segment]:
    """Describes the values of a label map by their names and the client's entries.

    A name that DICOM knows gets its code ("liver", "left kidney", "tumor"); any other is a tissue, as 3D
    Slicer has it. An entry's ``segmentAttribute``, as dcmqi has it, comes before that.

    Args:
        names: Value to name, for all values that are present.
        label_info: ``[{"name": "spleen", "color": [r, g, b], "description": ...}, ...]``.
    """
    entries = {str(entry.get("name") or "").strip(): entry for entry in _mappings(label_info)}
    segments = []
    for place, (value, name) in enumerate(sorted(names.items())):
        entry = entries.get(name, {})
        category, kind = _codes(name, entry.get("segmentAttribute"))
        segments.append(
            Segment(
                value,
                name.replace("\\", "/")[:_LONGEST_NAME],
                category,
                kind,
                _colour(entry.get("color")) or CLASS_COLOURS[place % len(CLASS_COLOURS)],
                str(entry.get("description") or ""),
            )
        )
    return segments


def _mappings(items: Iterable[Any] | None) -> list[Mapping[str, Any]]:
    return [item for item in items or () if isinstance(item, Mapping)]


def _codes(name: str, attribute: Any) -> tuple[Code, Code]:
    """Category and type of a segment."""
    known = attribute if isinstance(attribute, Mapping) else {}
    category = _code(known.get("SegmentedPropertyCategoryCodeSequence"))
    kind = _code(known.get("SegmentedPropertyTypeCodeSequence"))
    if category and kind:
        return category, kind
    words = [word for word in re.findall(r"[A-Za-z]+", name.lower()) if word not in _SIDES]
    keyword = "".join(word.capitalize() for word in words)
    if keyword in _ALSO:
        return _ALSO[keyword]
    for category, group in _CATEGORIES:
        found = getattr(getattr(codes, group), keyword, None) if keyword else None
        if isinstance(found, Code):
            return category, found
    return _TISSUE, _TISSUE


def _code(item: Any) -> Code | None:
    """A code as dcmqi writes it: one mapping, or a list of one."""
    first = item[0] if isinstance(item, list) and item else item
    if not isinstance(first, Mapping):
        return None
    parts = [str(first.get(key) or "") for key in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")]
    return Code(*parts) if all(parts) else None


def _colour(value: Any) -> tuple[int, int, int] | None:
    """Red, green and blue, if a client sent at least three numbers."""
    try:
        red, green, blue = (min(255, max(0, int(number))) for number in list(value)[:3])
    except (TypeError, ValueError):
        return None
    return red, green, blue
