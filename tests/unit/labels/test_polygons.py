"""QuPath's polygons on the pixels of a picture."""

import json
from functools import reduce

import numpy as np
import pytest
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import draw

from lib.errors import LabelError
from lib.labels import polygons
from lib.labels.polygons import fill_polygon
from lib.labels.reading import read_labels


@pytest.fixture
def save(tmp_path):
    """Function that writes ASAP XML as QuPath's plugin does: (name, type, corners) and the region."""

    def write(*objects, region=(0, 0, 0, 0), group=None, name="label.xml"):
        x, y, w, h = region
        lines = [f'<ASAP_Annotations><Annotations Name="" X="{x}" Y="{y}" W="{w}" H="{h}">']
        for label, kind, corners in objects:
            part = label if group is None else group
            lines.append(f'<Annotation Name="{label}" Type="{kind}" PartOfGroup="{part}" Color="#ff0000">')
            points = "".join(f'<Coordinate Order="{n}" X="{a}" Y="{b}"/>' for n, (a, b) in enumerate(corners))
            lines.append(f"<Coordinates>{points}</Coordinates></Annotation>")
        lines.append("</Annotations><AnnotationGroups/></ASAP_Annotations>")
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return tmp_path / name

    return write


def box(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def test_a_polygon_covers_the_pixels_whose_centres_it_covers(picture, save):
    """A box from 2 to 6 holds the centres 2.5 to 5.5: pixels 2 to 5."""
    found = read_labels(save(("Tumor", "Polygon", box(2, 10, 6, 13))), picture(40, 20))
    assert found.array.shape == (40, 20, 1)
    inside = np.argwhere(found.array)
    assert (inside.min(axis=0).tolist(), inside.max(axis=0).tolist()) == ([2, 10, 0], [5, 12, 0])
    assert len(inside) == 12
    assert found.names == {1: "Tumor"}


def test_each_polygon_is_an_object_and_objects_share_their_class(picture, save):
    path = save(
        ("Tumor", "Polygon", box(2, 10, 6, 13)),
        ("Stroma", "Polygon", box(20, 1, 30, 4)),
        ("Tumor", "Polygon", box(5, 15, 8, 19)),
    )
    found = read_labels(path, picture(40, 20), [{"name": "liver", "idx": 1}])
    assert found.names == {1: "Tumor", 2: "Stroma", 3: "Tumor"}
    assert [int(found.array[x, y, 0]) for x, y in ((3, 11), (25, 2), (6, 17))] == [1, 2, 3]


def test_the_area_of_a_polygon_with_slanted_edges(picture, save):
    """The number of pixels is the area, by the shoelace formula, within the length of the border."""
    corners = [(10, 5), (70, 20), (55, 50), (30, 30), (12, 48)]
    x, y = np.array(corners, dtype=float).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    found = read_labels(save(("a", "Polygon", corners)), picture(80, 60))
    assert np.count_nonzero(found.array) == pytest.approx(area, rel=0.02)
    assert found.array[30, 29, 0] == 1
    assert found.array[30, 40, 0] == 0  # in the notch


def closed(*rings):
    """Corners of several rings as QuPath saves them: one list, each ring closed by its first corner."""
    return [corner for ring in rings for corner in (*ring, ring[0])]


PARTS = {
    "a hole": (box(2, 2, 22, 18), box(6, 6, 12, 12)),
    "two holes": (box(2, 2, 22, 18), box(4, 4, 8, 8), box(12, 10, 20, 16)),
    "two parts": (box(2, 2, 10, 10), box(14, 4, 30, 16)),
    "a part with a hole and one without": (box(2, 2, 18, 18), box(6, 6, 12, 12), box(22, 4, 30, 9)),
    "an island in a hole": (box(2, 2, 30, 18), box(6, 4, 26, 16), box(12, 8, 16, 12)),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("kind", ["ASAP", "GeoJSON"])
def test_holes_and_parts_are_kept(picture, save, tmp_path, name, kind):
    rings = PARTS[name]
    expected = np.zeros((40, 20), bool)
    for ring in rings:
        (x0, y0), (x1, y1) = ring[0], ring[2]
        expected[x0:x1, y0:y1] ^= True
    if kind == "ASAP":
        path = save(("Tumor", "Polygon", closed(*rings)), ("Stroma", "Polygon", box(33, 2, 38, 8)))
    else:
        shapes = [shapely.Polygon(ring) for ring in rings]
        geometry = reduce(shapely.symmetric_difference, shapes)
        features = [feature(geometry, "Tumor"), feature(shapely.box(33, 2, 38, 8), "Stroma")]
        path = tmp_path / "label.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = read_labels(path, picture(40, 20))
    assert np.array_equal(found.array[..., 0] == 1, expected)
    assert (found.array[33:38, 2:8, 0] == 2).all()
    assert found.names == {1: "Tumor", 2: "Stroma"}


def feature(geometry, name):
    """A GeoJSON feature as QuPath exports it."""
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
    return {"type": "Feature", "geometry": shapely.geometry.mapping(geometry), "properties": properties}


def test_a_ring_with_a_slit_is_an_object_with_a_hole(picture, save):
    for first in range(10):
        ring = [*box(2, 2, 22, 18), (2, 2), (6, 6), (6, 12), (12, 12), (12, 6), (6, 6)]
        found = read_labels(save(("Tumor", "Polygon", ring[first:] + ring[:first])), picture(40, 20))
        assert (found.array > 0).sum() == 20 * 16 - 6 * 6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON"),
        ("[]", "no feature with an area"),
        ('{"features": 3}', "no list"),
        ('[{"type": "Feature"}]', "no valid GeoJSON"),
        ('[{"geometry": {"type": "Circle", "coordinates": []}}]', "no valid GeoJSON"),
        ('[{"geometry": {"type": "Point", "coordinates": [1, 2]}}]', "no feature with an area"),
    ],
)
def test_bad_geojson_is_refused(picture, tmp_path, text, reason):
    path = tmp_path / "label.geojson"
    path.write_text(text)
    with pytest.raises(LabelError, match=reason):
        read_labels(path, picture(40, 20))


def test_an_ellipse_is_no_diamond(picture, save):
    """QuPath saves four points of it."""
    found = read_labels(save(("a", "Ellipse", [(30, 10), (50, 20), (30, 30), (10, 20)])), picture(60, 40))
    assert np.count_nonzero(found.array) == pytest.approx(np.pi * 20 * 10, rel=0.02)


def test_the_smaller_one_of_two_that_overlap_is_on_top(picture, save):
    small, large = ("cell", "Polygon", box(5, 5, 8, 8)), ("tissue", "Polygon", box(2, 2, 30, 18))
    for objects in ((small, large), (large, small)):
        found = read_labels(save(*objects), picture(40, 20))
        assert found.names[int(found.array[6, 6, 0])] == "cell"
        assert found.names[int(found.array[20, 10, 0])] == "tissue"


def test_pieces_of_one_object_stay_one(picture, save):
    """Only pixels are split into pieces; a polygon is an object as it was drawn."""
    teeth = [
        (40, 10),
        (36, 10),
        (36, 0.2),
        (22, 0.2),
        (22, 10),
        (18, 10),
        (18, 0.2),
        (4, 0.2),
        (4, 10),
        (0, 10),
    ]
    found = read_labels(save(("a", "Polygon", [(0, 0), (40, 0), *teeth])), picture(40, 20))
    assert ndimage.label(found.array)[1] == 3
    assert found.names == {1: "a"}


def test_the_patch_that_qupath_uploads_with_its_annotations(picture, save):
    path = save(("a", "Polygon", box(2, 10, 6, 13)), region=(1000, 2000, 40, 20))
    assert read_labels(path, picture(40, 20)).array[2:6, 10:13].all()


def test_a_patchs_annotations_on_the_whole_image(picture, save):
    path = save(("a", "Polygon", box(2, 10, 6, 13)), region=(50, 30, 40, 20))
    found = read_labels(path, picture(100, 80)).array
    assert np.argwhere(found).min(axis=0).tolist() == [52, 40, 0]


def test_annotations_that_count_from_the_whole_images_corner(picture, save):
    """As MONAI Label writes its own answers."""
    path = save(("a", "Polygon", box(52, 40, 56, 43)), region=(50, 30, 40, 20))
    found = read_labels(path, picture(100, 80)).array
    assert np.argwhere(found).min(axis=0).tolist() == [52, 40, 0]


def test_the_name_counts_where_there_is_no_group(picture, save):
    path = save(("Tumor", "Polygon", box(2, 10, 6, 13)), group="None")
    assert read_labels(path, picture(40, 20)).names == {1: "Tumor"}
    path = save(("", "Polygon", box(2, 10, 6, 13)))
    assert read_labels(path, picture(40, 20)).names == {1: "label_1"}


def test_points_and_lines_are_no_objects(picture, save, caplog):
    objects = [
        ("a", "Points", box(1, 1, 3, 3)),
        ("a", "Polyline", box(1, 1, 3, 3)),
        ("a", "Polygon", [(1, 1), (3, 3)]),
    ]
    found = read_labels(save(*objects, ("b", "Rectangle", box(2, 10, 6, 13))), picture(40, 20))
    assert found.names == {1: "b"}
    assert "3 annotations without an area" in caplog.text
    with pytest.raises(LabelError, match=r"label\.xml: it has no <Annotation> with an area"):
        read_labels(save(*objects), picture(40, 20))


def test_a_polygon_over_the_border_is_cut(picture, save):
    found = read_labels(save(("a", "Polygon", box(-5, 15, 1e9, 40))), picture(40, 20))
    assert np.count_nonzero(found.array) == 40 * 5


def test_polygons_of_another_image_are_refused(picture, save):
    with pytest.raises(
        LabelError, match=r"label\.xml: none of its polygons is on the image of 40 x 20 pixels"
    ):
        read_labels(save(("a", "Polygon", box(2000, 10, 2006, 13))), picture(40, 20))


def test_polygons_for_a_volume_are_refused(image, save):
    with pytest.raises(LabelError, match="polygons belong to a 2-D image and this one has 3 slices"):
        read_labels(save(("a", "Polygon", box(2, 1, 6, 3))), image(np.eye(4), (40, 20, 3)))


@pytest.mark.parametrize(
    ("value", "message"), [("nan", "is NaN or infinite"), ("x", "no numbers as X and Y")]
)
def test_coordinates_that_are_no_numbers_are_refused(picture, save, value, message):
    with pytest.raises(LabelError, match=message):
        read_labels(save(("a", "Polygon", [(1, 1), (value, 2), (3, 3)])), picture(40, 20))


def test_more_polygons_than_16_bits_hold_are_refused(picture, save, monkeypatch):
    monkeypatch.setattr(polygons, "MOST_OBJECTS", 2)
    with pytest.raises(LabelError, match="it has 3 annotations and 2 are the limit"):
        read_labels(save(*[("a", "Polygon", box(1, 1, 3, 3))] * 3), picture(40, 20))


def test_another_kind_of_xml_is_refused(picture, tmp_path):
    (tmp_path / "a.xml").write_text("<Annotations><Region><Vertices/></Region></Annotations>")
    with pytest.raises(LabelError, match=r"a\.xml: it has no <Annotation> with an area"):
        read_labels(tmp_path / "a.xml", picture(40, 20))


def test_what_monai_label_itself_writes(picture, tmp_path):
    pathology = pytest.importorskip("monailabel.utils.others.pathology")
    elements = [{"label": "Epithelial", "contours": [box(2, 10, 6, 13), box(20, 1, 30, 4)]}]
    answer = {
        "name": "n",
        "description": "d",
        "model": "m",
        "location": [0, 0],
        "size": [40, 20],
        "annotations": [{"annotation": {"elements": elements, "labels": {"Epithelial": [255, 0, 0]}}}],
    }
    path, count = pathology.create_asap_annotations_xml(json.loads(json.dumps(answer)))
    found = read_labels(path, picture(40, 20))
    assert count == 2
    assert found.names == {1: "Epithelial", 2: "Epithelial"}
    assert found.array[3, 11, 0] == 1


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(-8, 48), st.floats(-8, 40)), min_size=3, max_size=14))
def test_a_polygon_is_filled_as_scikit_image_fills_it(corners):
    # Off the centres of pixels, and by other amounts along the two axes: diagonals too.
    outline = np.add(np.round(np.array(corners), 3), (0.00017, 0.00041))
    found, truth = np.zeros((40, 33), np.uint16, order="F"), np.zeros((40, 33), np.uint16)
    fill_polygon(found, [outline], 7)
    x, y = draw.polygon(outline[:, 0], outline[:, 1], truth.shape)
    truth[x, y] = 7
    # Both round where an edge passes a centre by less than a millionth.
    assert np.count_nonzero(found != truth) <= 1


def test_thousands_of_corners_are_filled_exactly():
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    circle = np.stack([500 + 400.3 * np.cos(angle), 480 + 400.3 * np.sin(angle)], axis=1)
    found = np.zeros((1000, 960), np.uint8, order="F")
    fill_polygon(found, [circle], 1)
    x, y = np.indices(found.shape)
    assert np.count_nonzero(found != ((x - 500) ** 2 + (y - 480) ** 2 <= 400.3**2)) < 20


def test_outlines_that_take_minutes_are_refused(picture, save, monkeypatch):
    monkeypatch.setattr(polygons, "_MOST_CROSSINGS", 50)
    zigzag = [(1 + index % 2, 1 + 20 * (index % 2)) for index in range(40)]
    with pytest.raises(LabelError, match=r"its outlines cross \d+ rows of pixels and 50 are the limit"):
        read_labels(save(("cell", "Polygon", zigzag)), picture(40, 30))
