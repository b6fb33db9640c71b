"""Outlines as files: ASAP XML (QuPath's extension), Digital Slide Archive, GeoJSON, and plain JSON."""

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
from lib.pathology.outlines import with_slits

# Decimals of a coordinate: a hundredth of a pixel, finer than any screen shows.
DIGITS = 2


@dataclass(frozen=True)
class SlideObject:
    """One object.

    Attributes:
        label: Name of its class.
        area: Outline in level-0 pixels, where the first pixel reaches from 0 to 1; it may have holes.
        score: Predicted IoU with the truth, or estimated quality, 0 to 1.
    """

    label: str
    area: Polygon
    score: float


@dataclass(frozen=True)
class SlideAnswer:
    """The answer to one request.

    Attributes:
        objects: Objects in the order of the prompts.
        labels: Names of all classes in the order of the app's list, which decides the colours.
        model: Name of the task.
        description: Description of the task.
        location: [x, y] of the requested region.
        size: [width, height] of the requested region.
    """

    objects: Sequence[SlideObject]
    labels: Sequence[str]
    model: str
    description: str
    location: Sequence[int]
    size: Sequence[int]

    @property
    def name(self) -> str:
        """Name of the annotation in viewers."""
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


def write_asap(answer: SlideAnswer) -> Path:
    """Writes ASAP XML to a new temporary file that the caller deletes.

    The format has one ring per object: a hole is joined to the outer ring by a slit without width, so that
    the area is right in every program. Each annotation has its score as an additional attribute.
    """
    root = ElementTree.Element("ASAP_Annotations")
    attributes = {"Name": answer.name, "Description": answer.description, "Model": answer.model}
    region = zip("XYWH", map(str, (*answer.location, *answer.size)), strict=True)
    listed = ElementTree.SubElement(root, "Annotations", {**attributes, **dict(region)})
    colours = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in answer.colours.items()}
    for item in answer.objects:
        attributes = {"Name": item.label, "Type": "Polygon", "PartOfGroup": item.label}
        attributes |= {"Color": colours[item.label], "Score": str(round(item.score, 4))}
        element = ElementTree.SubElement(listed, "Annotation", attributes)
        corners = ElementTree.SubElement(element, "Coordinates")
        for order, (x, y) in enumerate(with_slits(item.area)):
            place = {"Order": str(order), "X": str(round(x, DIGITS)), "Y": str(round(y, DIGITS))}
            ElementTree.SubElement(corners, "Coordinate", place)
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    for name, colour in colours.items():
        group = {"Name": name, "PartOfGroup": "None", "Color": colour}
        ElementTree.SubElement(ElementTree.SubElement(groups, "Group", group), "Attributes")
    ElementTree.indent(root)
    return _temporary(".xml", '<?xml version="1.0"?>\n' + ElementTree.tostring(root, encoding="unicode"))


def write_dsa(answer: SlideAnswer, facts: Mapping[str, Any]) -> Path:
    """Writes an annotation of the Digital Slide Archive to a new temporary file that the caller deletes.

    Args:
        answer: Objects.
        facts: Further values for the annotation's description.
    """
    colours = {name: "rgb({},{},{})".format(*colour) for name, colour in answer.colours.items()}
    elements = [_dsa_element(item, colours[item.label]) for item in answer.objects]
    description = {
        "model": answer.model,
        "desc": answer.description,
        "location": list(answer.location),
        "size": list(answer.size),
        "count": len(elements),
        **facts,
    }
    document = {"name": answer.name, "elements": elements, "description": json.dumps(description)}
    return _temporary(".json", json.dumps(document))


def as_geojson(answer: SlideAnswer) -> dict[str, Any]:
    """The objects as a GeoJSON FeatureCollection with QuPath's properties; QuPath imports it as it is."""
    features = []
    for item in answer.objects:
        classification = {"name": item.label, "color": list(answer.colours[item.label])}
        properties = {
            "objectType": "annotation",
            "classification": classification,
            "measurements": {"score": round(item.score, 4)},
        }
        rings = [_closed(ring) for ring in (item.area.exterior, *item.area.interiors)]
        geometry = {"type": "Polygon", "coordinates": rings}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def as_json(answer: SlideAnswer, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The objects in the form of MONAI Label's own JSON answers, with a score per object."""
    elements = [
        {
            "label": item.label,
            "contours": [_ring(ring) for ring in (item.area.exterior, *item.area.interiors)],
            "score": round(item.score, 4),
        }
        for item in answer.objects
    ]
    region = {"location": list(answer.location), "size": list(answer.size)}
    colours = {name: list(colour) for name, colour in answer.colours.items()}
    return {
        "name": answer.name,
        "description": answer.description,
        "model": answer.model,
        **region,
        "annotations": [{"annotation": {**region, "elements": elements, "labels": colours}}],
        **facts,
    }


def _dsa_element(item: SlideObject, colour: str) -> dict[str, Any]:
    element: dict[str, Any] = {
        "group": item.label,
        "type": "polyline",
        "lineColor": colour,
        "lineWidth": 2.0,
        "closed": True,
        "points": [[x, y, 0] for x, y in _ring(item.area.exterior)],
        "label": {"value": item.label},
        "user": {"score": round(item.score, 4)},
    }
    if item.area.interiors:
        element["holes"] = [[[x, y, 0] for x, y in _ring(ring)] for ring in item.area.interiors]
    return element


def _ring(ring: LinearRing) -> list[list[float]]:
    """Corners [x, y]; the first one is not repeated at the end."""
    return _closed(ring)[:-1]


def _closed(ring: LinearRing) -> list[list[float]]:
    return [[round(x, DIGITS), round(y, DIGITS)] for x, y in ring.coords]


def _temporary(suffix: str, text: str) -> Path:
    handle, name = tempfile.mkstemp(suffix=suffix)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)
