"""The files that QuPath and the Digital Slide Archive read."""

import json
from xml.etree import ElementTree

import pytest
from shapely.geometry import box

from lib.pathology.annotations import Annotation, Annotations, as_json, write_asap, write_dsa

RING = box(10, 20, 30.123, 40).difference(box(15, 25, 20, 30))


@pytest.fixture
def found():
    objects = [
        Annotation("nucleus", box(1.5, 2.25, 7, 9), 0.87654),
        Annotation('a<b>&"c"', RING, 0.5),
        Annotation("nucleus", box(50, 60, 70, 80), 0.9),
    ]
    labels = ("stroma", "nucleus")
    return Annotations(objects, labels, "biosam2_pathology", "for <people>", (0, 10), (300, 200))


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
    # A hundredth of a pixel; and the outer outline of an object with a hole.
    assert max(float(p.attrib["X"]) for p in points[1]) == 30.12
    assert len(points[1]) == 4


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
    alone = Annotations(found.objects[:1], found.labels, "m", "", (0, 0), (1, 1))
    assert alone.colours["nucleus"] == found.colours["nucleus"]
    assert set(alone.colours) == {"nucleus"}


def test_no_object_is_a_file_without_annotations():
    empty = Annotations([], ("nucleus",), "m", "", (0, 0), (1, 1))
    asap, dsa = write_asap(empty), write_dsa(empty, {})
    assert list(ElementTree.parse(asap).getroot().iter("Annotation")) == []
    assert json.loads(dsa.read_text())["elements"] == []
    asap.unlink()
    dsa.unlink()
