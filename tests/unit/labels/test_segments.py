"""Segments as DICOM describes them; codes from DICOM PS3.16."""

import pytest

from lib.labels.segments import describe_segments

WHAT_DICOM_HAS_A_CODE_FOR_GETS_IT = [
    ("liver", "123037004", "10200004"),
    ("Left kidney", "123037004", "64033007"),
    ("left_ventricle", "123037004", "21814001"),
    ("blood vessel", "123037004", "59820001"),
    ("tumor", "49755003", "108369006"),
    ("Tumour", "49755003", "108369006"),
    ("lesion", "49755003", "52988006"),
    ("nodule", "49755003", "27925004"),
    ("muscle", "85756007", "71616004"),
    ("my own thing", "85756007", "85756007"),
    ("", "85756007", "85756007"),
]


def test_what_dicom_has_a_code_for_gets_it():
    for name, category, kind in WHAT_DICOM_HAS_A_CODE_FOR_GETS_IT:
        (segment,) = describe_segments({1: name})
        assert segment.type.scheme_designator == segment.category.scheme_designator == "SCT"
        assert (segment.category.value, segment.type.value) == (category, kind)


def test_what_the_client_says_comes_first():
    attribute = {
        "SegmentedPropertyCategoryCodeSequence": {
            "CodeValue": "M-01000",
            "CodingSchemeDesignator": "SRT",
            "CodeMeaning": "Morphologically Altered Structure",
        },
        "SegmentedPropertyTypeCodeSequence": [
            {"CodeValue": "M-03000", "CodingSchemeDesignator": "SRT", "CodeMeaning": "Mass"}
        ],
    }
    info = [
        {"name": "liver", "segmentAttribute": attribute, "color": [255, 0, 0, 128], "description": "left"}
    ]
    (segment,) = describe_segments({3: "liver"}, info)
    assert (segment.value, segment.type.meaning, segment.category.value) == (3, "Mass", "M-01000")
    assert (segment.colour, segment.description) == ((255, 0, 0), "left")


def test_half_of_a_code_is_none():
    attribute = {"SegmentedPropertyTypeCodeSequence": {"CodeValue": "1"}}
    (segment,) = describe_segments({1: "spleen"}, [{"name": "spleen", "segmentAttribute": attribute}])
    assert segment.type.value == "78961009"


@pytest.mark.parametrize("colour", [None, "red", [1, 2], [None, 1, 2], {}])
def test_segments_without_a_colour_get_different_ones(colour):
    info = [{"name": "a", "color": colour}, "odd", {"name": "b"}]
    first, second = describe_segments({2: "b", 1: "a"}, info)
    assert (first.name, second.name) == ("a", "b")
    assert first.colour != second.colour


@pytest.mark.parametrize(
    ("rgb", "lab"),
    # L* 0 to 100, a* and b* -128 to 127 as 0 to 65535 (PS3.3, C.10.7.1.1); CIELab of D65.
    [([255, 255, 255], (100, 0, 0)), ([0, 0, 0], (0, 0, 0)), ([255, 0, 0], (53.24, 80.09, 67.20))],
)
def test_a_colour_is_lab(rgb, lab):
    (segment,) = describe_segments({1: "a"}, [{"name": "a", "color": rgb}])
    low, high = (0, -128, -128), (100, 127, 127)
    expected = [(v - a) / (b - a) * 65535 for v, a, b in zip(lab, low, high, strict=True)]
    assert segment.lab == pytest.approx(expected, abs=20)


def test_a_name_is_cut_to_what_dicom_holds():
    assert len(describe_segments({1: "x" * 90})[0].name) == 64


def test_a_name_is_one_text():
    assert describe_segments({1: r"GTV\CTV"})[0].name == "GTV/CTV"
