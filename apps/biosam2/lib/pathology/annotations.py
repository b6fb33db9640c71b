"""Objects on a slide, and the two kinds of file in which viewers read them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from shapely.geometry import LinearRing, Polygon

from lib.palette import STAIN_COLOURS

# A hundredth of a pixel: no screen shows more.
DIGITS = 2


@dataclass(frozen=True)
class Annotation:
    """One object.

    Attributes:
        label: name of its class.
        area: its outline in pixels of level 0, where the first pixel reaches from 0 to 1; it may have holes.
        score: predicted IoU with the truth, 0 to 1.
    """

    label: str
    area: Polygon
    score: float


@dataclass(frozen=True)
class Annotations:
    """The answer to one request.

    Attributes:
        objects: in the order in which they were asked for.
        labels: every class that may occur, in the order of the app's list; it decides the colours.
        model: name of the task.
        description: for people.
        location: [x, y] of the region that was asked for.
        size: [width, height] of it.
    """

    objects: Sequence[Annotation]
    labels: Sequence[str]
    model: str
    description: str
    location: Sequence[int]
    size: Sequence[int]

    @property
    def name(self) -> str:
        """What viewers call the set."""
        return f"{self.model} at {[*self.location, *self.size]}"

    @property
    def colours(self) -> dict[str, tuple[int, int, int]]:
        """RGB levels of each class that occurs."""
        names = list(dict.fromkeys([*self.labels, *(item.label for item in self.objects)]))
        used = {item.label for item in self.objects}
        return {
            name: STAIN_COLOURS[index % len(STAIN_COLOURS)]
            for index, name in enumerate(names)
            if name in used
        }


def write_asap(found: Annotations) -> Path:
    """Writes ASAP XML to a new temporary file, which is the caller's to delete; QuPath's extension reads it.

    The format has no holes: of an object with some, the outer outline is written.
    """
    root = ElementTree.Element("ASAP_Annotations")
    attributes = {"Name": found.name, "Description": found.description, "Model": found.model}
    region = zip("XYWH", map(str, (*found.location, *found.size)), strict=True)
    listed = ElementTree.SubElement(root, "Annotations", {**attributes, **dict(region)})
    colours = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in found.colours.items()}
    for item in found.objects:
        attributes = {"Name": item.label, "Type": "Polygon", "PartOfGroup": item.label}
        element = ElementTree.SubElement(listed, "Annotation", attributes | {"Color": colours[item.label]})
        corners = ElementTree.SubElement(element, "Coordinates")
        for order, (x, y) in enumerate(_ring(item.area.exterior)):
            place = {"Order": str(order), "X": str(x), "Y": str(y)}
            ElementTree.SubElement(corners, "Coordinate", place)
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    for name, colour in colours.items():
        group = {"Name": name, "PartOfGroup": "None", "Color": colour}
        ElementTree.SubElement(ElementTree.SubElement(groups, "Group", group), "Attributes")
    ElementTree.indent(root)
    return _temporary(".xml", '<?xml version="1.0"?>\n' + ElementTree.tostring(root, encoding="unicode"))


def write_dsa(found: Annotations, facts: Mapping[str, Any]) -> Path:
    """Writes an annotation of the Digital Slide Archive to a new temporary file, which is the caller's.

    Args:
        found: the objects.
        facts: goes into the annotation's description, as JSON.
    """
    colours = {name: "rgb({},{},{})".format(*colour) for name, colour in found.colours.items()}
    elements = [_dsa_element(item, colours[item.label]) for item in found.objects]
    description = {
        "model": found.model,
        "desc": found.description,
        "location": list(found.location),
        "size": list(found.size),
        "count": len(elements),
        **facts,
    }
    document = {"name": found.name, "elements": elements, "description": json.dumps(description)}
    return _temporary(".json", json.dumps(document))


def as_json(found: Annotations, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same as plain values, in the form of MONAI Label's own JSON answers, with a score per object."""
    elements = [
        {
            "label": item.label,
            "contours": [_ring(ring) for ring in (item.area.exterior, *item.area.interiors)],
            "score": round(item.score, 4),
        }
        for item in found.objects
    ]
    region = {"location": list(found.location), "size": list(found.size)}
    colours = {name: list(colour) for name, colour in found.colours.items()}
    return {
        "name": found.name,
        "description": found.description,
        "model": found.model,
        **region,
        "annotations": [{"annotation": {**region, "elements": elements, "labels": colours}}],
        **facts,
    }


def _dsa_element(item: Annotation, colour: str) -> dict[str, Any]:
    element: dict[str, Any] = {
        "group": item.label,
        "type": "polyline",
        "lineColor": colour,
        "lineWidth": 2.0,
        "closed": True,
        "points": [[x, y, 0] for x, y in _ring(item.area.exterior)],
        "label": {"value": item.label},
    }
    if item.area.interiors:
        element["holes"] = [[[x, y, 0] for x, y in _ring(ring)] for ring in item.area.interiors]
    return element


def _ring(ring: LinearRing) -> list[list[float]]:
    """Corners [x, y], the last one not the first again."""
    return [[round(x, DIGITS), round(y, DIGITS)] for x, y in list(ring.coords)[:-1]]


def _temporary(suffix: str, text: str) -> Path:
    handle, name = tempfile.mkstemp(suffix=suffix)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)
