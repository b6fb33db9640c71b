"""The files that QuPath and the Digital Slide Archive read."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from shapely import contains_xy, unary_union
from shapely.geometry import Polygon, box, shape
from skimage import draw

from lib.pathology.annotations import SlideAnswer, SlideObject, as_geojson, as_json, write_asap, write_dsa
from lib.pathology.outlines import with_slits

RING = box(10, 20, 30.123, 40).difference(box(15, 25, 20, 30))


@pytest.fixture
def found():
    objects = [
        SlideObject("nucleus", box(1.5, 2.25, 7, 9), 0.87654),
        SlideObject('a<b>&"c"', RING, 0.5),
        SlideObject("nucleus", box(50, 60, 70, 80), 0.9),
    ]
    labels = ("stroma", "nucleus")
    return SlideAnswer(objects, labels, "biosam2_pathology", "for <people>", (0, 10), (300, 200))


def corners(ring):
    return {tuple(point) for point in ring}


def test_asap_names_every_object_s_class_and_colour(found):
    path = write_asap(found)
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    path.unlink()
    assert root.tag == "ASAP_Annotations"
    listed = root.find("Annotations")
    assert listed.attrib["Description"] == "for <people>"
    assert [listed.attrib[key] for key in "XYWH"] == ["0", "10", "300", "200"]
    annotations = list(listed)
    assert [item.attrib["Name"] for item in annotations] == ["nucleus", 'a<b>&"c"', "nucleus"]
    assert all(item.attrib["PartOfGroup"] == item.attrib["Name"] for item in annotations)
    assert all(item.attrib["Type"] == "Polygon" for item in annotations)
    groups = {item.attrib["Name"]: item.attrib["Color"] for item in root.find("AnnotationGroups")}
    assert {item.attrib["Name"]: item.attrib["Color"] for item in annotations} == groups
    assert len(set(groups.values())) == 2


def test_asap_lists_corners_in_order_once_each(found):
    path = write_asap(found)
    root = ElementTree.parse(path).getroot()
    path.unlink()
    points = [list(item.find("Coordinates")) for item in root.iter("Annotation")]
    assert all([int(p.attrib["Order"]) for p in ring] == list(range(len(ring))) for ring in points)
    first = [(float(p.attrib["X"]), float(p.attrib["Y"])) for p in points[0]]
    assert len(first) == 4
    assert corners(first) == {(1.5, 2.25), (7, 2.25), (7, 9), (1.5, 9)}
    assert max(float(p.attrib["X"]) for p in points[1]) == 30.12  # a hundredth of a pixel


def test_asap_carries_holes_and_scores(found):
    path = write_asap(found)
    annotations = list(ElementTree.parse(path).getroot().iter("Annotation"))
    path.unlink()
    corners = [(float(p.attrib["X"]), float(p.attrib["Y"])) for p in annotations[1].iter("Coordinate")]
    x, y = np.array(corners).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area == pytest.approx(RING.area, rel=1e-3)
    drawn = draw.polygon2mask((50, 50), np.stack([y, x], axis=1) - 0.5)
    assert not drawn[27, 17]
    assert drawn[22, 12]
    assert [item.attrib["Score"] for item in annotations] == ["0.8765", "0.5", "0.9"]


def test_several_holes_keep_the_area():
    holes = [box(5, 5, 15, 15), box(30, 30, 60, 40), box(70, 5, 80, 90)]
    area = box(0, 0, 100, 100).difference(unary_union(holes))
    ring = Polygon(with_slits(area))
    assert ring.area == pytest.approx(area.area)
    y, x = np.mgrid[:100, :100] + 0.5
    drawn = draw.polygon2mask((100, 100), np.array(with_slits(area))[:, ::-1] - 0.5)
    assert (drawn == contains_xy(area, x, y)).mean() > 0.99


def test_geojson_has_rings_classes_and_scores(found):
    answer = json.loads(json.dumps(as_geojson(found)))
    first, second, _ = answer["features"]
    assert first["properties"]["classification"]["name"] == "nucleus"
    assert first["properties"]["measurements"] == {"score": 0.8765}
    assert shape(second["geometry"]).area == pytest.approx(RING.area, rel=1e-3)
    assert len(second["geometry"]["coordinates"]) == 2


def test_dsa_has_closed_lines_with_group_and_colour(found):
    path = write_dsa(found, {"latencies": {"total": 1.5}})
    document = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    first, second, third = document["elements"]
    assert first["type"] == "polyline"
    assert first["closed"] is True
    assert (first["group"], first["label"]) == ("nucleus", {"value": "nucleus"})
    assert first["lineColor"] == third["lineColor"] != second["lineColor"]
    assert first["lineColor"].startswith("rgb(")
    assert corners(first["points"]) == {(1.5, 2.25, 0), (7, 2.25, 0), (7, 9, 0), (1.5, 9, 0)}
    assert "holes" not in first
    assert corners(second["holes"][0]) == {(15, 25, 0), (20, 25, 0), (20, 30, 0), (15, 30, 0)}
    description = json.loads(document["description"])
    assert (description["count"], description["model"]) == (3, "biosam2_pathology")
    assert description["latencies"] == {"total": 1.5}


def test_json_has_the_form_of_monai_label_s_own(found):
    answer = json.loads(json.dumps(as_json(found, {"latencies": {}})))
    annotation = answer["annotations"][0]["annotation"]
    assert [item["label"] for item in annotation["elements"]] == ["nucleus", 'a<b>&"c"', "nucleus"]
    assert annotation["elements"][0]["score"] == 0.8765
    assert [len(item["contours"]) for item in annotation["elements"]] == [1, 2, 1]
    assert set(annotation["labels"]) == {"nucleus", 'a<b>&"c"'}
    assert annotation["location"] == [0, 10]


def test_a_class_keeps_its_colour_whatever_else_was_found(found):
    alone = SlideAnswer(found.objects[:1], found.labels, "m", "", (0, 0), (1, 1))
    assert alone.colours["nucleus"] == found.colours["nucleus"]
    assert set(alone.colours) == {"nucleus"}


def test_no_object_is_a_file_without_annotations():
    empty = SlideAnswer([], ("nucleus",), "m", "", (0, 0), (1, 1))
    asap, dsa = write_asap(empty), write_dsa(empty, {})
    assert list(ElementTree.parse(asap).getroot().iter("Annotation")) == []
    assert json.loads(dsa.read_text())["elements"] == []
    asap.unlink()
    dsa.unlink()
