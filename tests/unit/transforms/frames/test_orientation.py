"""Axes and millimetres, against nibabel's own reading of the same affines."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from lib.transforms.frames import in_plane_axes, slice_index_from_offset, spacing, world_axes

CODES = [
    "".join(letters)
    for order in itertools.permutations([("L", "R"), ("P", "A"), ("I", "S")])
    for letters in itertools.product(*order)
]


def affine_of(codes, zooms=(0.7, 1.1, 2.5), tilt=0.0):
    orientation = nib.orientations.axcodes2ornt(codes)
    matrix = np.zeros((3, 3))
    for voxel, (world, sign) in enumerate(orientation):
        matrix[int(world), voxel] = sign * zooms[voxel]
    c, s = np.cos(tilt), np.sin(tilt)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ matrix
    return affine


def test_axes_of_every_orientation_are_nibabels():
    for codes in CODES:
        for tilt in [0.0, 0.4, -0.6]:
            affine = affine_of(codes, tilt=tilt)
            assert world_axes(affine) == tuple(nib.orientations.io_orientation(affine)[:, 0])
            assert spacing(affine) == pytest.approx(nib.affines.voxel_sizes(affine))


def test_at_45_degrees_every_patient_axis_is_used_once():
    assert sorted(world_axes(affine_of("RAS", tilt=np.pi / 4))) == [0, 1, 2]


@pytest.mark.parametrize(("axis", "expected"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_axes_in_the_plane_ascend(axis, expected):
    assert in_plane_axes(axis) == expected


@pytest.mark.parametrize("axis", [-1, 3, None, "2"])
def test_an_axis_that_is_none(axis):
    with pytest.raises(ValueError, match="must be 0, 1 or 2"):
        in_plane_axes(axis)


SLICERS_OFFSET_BECOMES_A_SLICE = [
    (0.0, 2.5, 40, 50, 20),
    (0.0, 2.5, 40, 51, 20),
    (10.0, 2.5, 40, 35, 10),
    (-300.0, 3.0, 50, 240, 20),  # the sign was lost: the volume lies below zero
    (-150.0, 3.0, 100, 60, 70),  # both signs are inside: the positive one
    (100.0, -2.0, 30, 80, 10),  # slices run downwards
    (0.0, 2.5, 40, 1000, 39),
    (500.0, 2.5, 40, 3, 0),
    (0.0, 2.5, 1, 7, 0),
]


def test_slicers_offset_becomes_a_slice():
    for origin, step, n, offset, expected in SLICERS_OFFSET_BECOMES_A_SLICE:
        affine = np.diag([1.0, 1.0, step, 1.0])
        affine[2, 3] = origin
        assert slice_index_from_offset(offset, affine, 2, n) == expected


def test_the_offset_is_along_the_patient_axis_of_the_slices():
    affine = affine_of("PSR", zooms=(1.0, 2.0, 3.0))
    affine[:3, 3] = [-9.0, 100.0, -40.0]
    # k runs to the right in steps of 3 mm from -9 mm.
    assert slice_index_from_offset(12, affine, 2, 20) == 7
