"""Prompts in views along and across the slices of a series."""

from __future__ import annotations

import numpy as np
import pytest

from sample_study.orthanc import Orthanc
from tests.support.phantoms import dice
from tests.viewers.cases import Case
from tests.viewers.companion import Companion
from tests.viewers.ohif import Ohif
from tests.viewers.segmentations import newest, stored

# A view across the slices shows an object of a dozen rows: one of them is much.
GOOD = 0.8
# OHIF's views cut along these axes of the patient.
ACROSS = {"mpr-sagittal": 0, "mpr-coronal": 1, "mpr-axial": 2}


@pytest.fixture
def companion(ohif: Ohif) -> Companion:
    return Companion(ohif)


class Cut:
    """A view of OHIF through the middle of an object.

    Args:
        case: Series with the object.
        view: Name of the view.

    Attributes:
        touched: Voxels that the plane cuts, bool ``[i, j, k]``.
        truth: Those of the object.
    """

    def __init__(self, case: Case, view: str) -> None:
        self._affine, self._axis = case.phantom.affine, ACROSS[view]
        self._places = np.moveaxis(np.indices(case.truth.shape), 0, -1) @ self._affine[:3, :3].T
        self._places += self._affine[:3, 3]
        self._level = self._places[case.truth].mean(0)[self._axis]
        half = np.abs(self._affine[self._axis, :3]).sum() / 2
        self.touched = np.abs(self._places[..., self._axis] - self._level) <= half
        self.truth = case.truth & self.touched

    def corners(self) -> list[list[float]]:
        """Voxel indices of the four corners of the box around the object in the plane."""
        inside = self._places[self.truth]
        low, high = inside.min(0), inside.max(0)
        x, y = (axis for axis in range(3) if axis != self._axis)
        found = []
        for first, second in ((low, low), (high, low), (high, high), (low, high)):
            place = np.full(3, self._level)
            place[[x, y]] = first[x], second[y]
            found.append((np.linalg.inv(self._affine) @ [*place, 1])[:3].tolist())
        return found

    def middle(self) -> list[float]:
        """Voxel index of the middle of that box."""
        return list(np.mean(self.corners(), axis=0))


@pytest.mark.parametrize("view", ["mpr-sagittal", "mpr-coronal"])
def test_a_view_across_straight_slices(companion: Companion, cases: dict[str, Case], view: str) -> None:
    case, cut, axis = cases["top_first"], Cut(cases["top_first"], view), ACROSS[view]
    companion.open(case.series.study_uid)
    companion.segment(case.label)
    corners = cut.corners()
    index = round(corners[0][axis])
    for key, kind, path in (
        ("b", "boxes", [corners[0], corners[2]]),
        ("l", "lassos", [*corners, np.add(corners[0], 0.01).tolist()]),
    ):
        companion.key(key)
        answer = companion.drag(path, view)
        assert answer.status == 200, answer.text
        assert (answer.sent["axis"], answer.sent["slice"], len(answer.sent[kind])) == (axis, index, 1)
        assert "view" not in answer.sent
        assert np.array_equal(companion.overlay(case.label), answer.mask)
        assert set(np.nonzero(answer.mask)[axis]) == {index}
        truth = np.take(case.truth, index, axis)
        assert dice(np.take(answer.mask, index, axis), truth) >= GOOD
        companion.key("n")
        companion.key("Control+z")
        assert not companion.overlay(case.label).any()

    # A stroke, followed from slice to slice along the view.
    companion.key("m")
    companion.key("g")
    answer = companion.drag([np.average([corners[0], cut.middle()], 0, [1, 3]).tolist(), cut.middle()], view)
    assert answer.sent["scribbles"][0]["slice"] == index
    assert np.array_equal(companion.overlay(case.label), answer.mask)
    assert dice(answer.mask, case.truth) >= GOOD
    # The least sure slices can be looked at, also when the next object has begun.
    companion.key("n")
    mark = companion.page.locator(".biosam2-unsure button").first
    mark.click()
    assert round(companion.ohif.middle(view)[axis]) == int(mark.inner_text()) - 1


@pytest.mark.parametrize("view", ["mpr-axial", "mpr-sagittal"])
def test_an_oblique_view(companion: Companion, cases: dict[str, Case], pacs: Orthanc, view: str) -> None:
    case = cases["oblique_ct"]
    cut = Cut(case, view)
    companion.open(case.series.study_uid)
    companion.segment(case.label)
    corners = cut.corners()
    companion.key("b")
    answer = companion.drag([corners[0], corners[2]], view)
    assert answer.status == 200, answer.text
    assert answer.sent["view"]["size"][2] == 1
    assert np.array_equal(companion.overlay(case.label), answer.mask)
    assert not (answer.mask & ~cut.touched).any()
    assert dice(answer.mask, cut.truth) >= GOOD

    companion.picture("ohif_oblique")

    # A negative stroke takes its voxels out, here and nowhere else.
    companion.key("x")
    companion.key("g")
    middle = cut.middle()
    answer = companion.drag([middle, np.average([middle, corners[2]], 0, [1, 1]).tolist()], view)
    assert answer.status == 200, answer.text
    assert np.array_equal(companion.overlay(case.label), answer.mask)
    assert not answer.mask[tuple(np.rint(middle).astype(int))]
    companion.key("Control+z")

    # The box through the volume.
    companion.key("m")
    answer = companion.answer(lambda: companion.page.keyboard.press("r"))
    assert answer.status == 200, answer.text
    assert np.array_equal(companion.overlay(case.label), answer.mask)
    assert dice(answer.mask, case.truth) >= GOOD
    before = stored(pacs, case.series.series_uid)
    companion.save()
    segmentation = newest(pacs, case, before)
    mask = segmentation.mask(case.label, case.phantom.affine, answer.mask.shape)
    assert np.array_equal(mask, answer.mask)
