import numpy as np
import pytest

from sample_study.shapes import Space, smooth_field, star_convex


def straight(shape, spacing):
    return Space.bent(shape, spacing, bend=0.0, scale=10.0, rng=np.random.default_rng(0))


def test_an_ellipsoid_has_the_volume_of_the_formula():
    spacing = (1.0, 1.0, 2.0)
    mask = straight((64, 64, 32), spacing).ellipsoid((0, 0, 0), (20, 12, 24))
    assert mask.sum() * np.prod(spacing) == pytest.approx(4 / 3 * np.pi * 20 * 12 * 24, rel=0.01)


def test_an_ellipsoid_is_where_it_was_asked_in_millimetres():
    mask = straight((61, 61, 31), (1.0, 2.0, 3.0)).ellipsoid((10, -20, 15), (5, 6, 9))
    centre = np.argwhere(mask).mean(axis=0)
    assert centre == pytest.approx([30 + 10, 30 - 20 / 2, 15 + 15 / 3], abs=0.1)


def test_a_turn_goes_from_the_first_axis_to_the_second():
    space = straight((61, 61, 3), (1.0, 1.0, 1.0))
    turned = space.ellipsoid((0, 0, 0), (20.5, 5.5, 5.5), turn=90)
    assert np.array_equal(turned, space.ellipsoid((0, 0, 0), (5.5, 20.5, 5.5)))
    diagonal = space.ellipsoid((0, 0, 0), (20, 5, 5), turn=45)
    assert diagonal[40, 40, 1]
    assert not diagonal[40, 20, 1]


def test_a_bent_space_changes_outlines_but_hardly_sizes():
    rng = np.random.default_rng(1)
    bent = Space.bent((64, 64, 32), (1, 1, 2), bend=2.0, scale=10.0, rng=rng)
    drawn, plain = (
        space.ellipsoid((0, 0, 0), (20, 20, 20)) for space in (bent, straight((64, 64, 32), (1, 1, 2)))
    )
    assert (drawn != plain).sum() > 0.02 * plain.sum()
    assert drawn.sum() == pytest.approx(plain.sum(), rel=0.2)


def test_a_smooth_field_is_normalised_and_has_no_detail_below_sigma():
    field = smooth_field((80, 80), (4, 4), np.random.default_rng(0))
    assert field.mean() == pytest.approx(0, abs=1e-9)
    assert field.std() == pytest.approx(1)
    # Two neighbours of a field smoothed by sigma correlate by exp(-1 / (4 sigma^2)).
    assert np.corrcoef(field[1:].ravel(), field[:-1].ravel())[0, 1] == pytest.approx(
        np.exp(-1 / 64), abs=0.02
    )


def test_a_star_convex_shape_sees_its_centre_from_everywhere():
    mask = star_convex((80, 60), (45, 25), 15, 0.3, np.random.default_rng(3))
    assert mask.shape == (80, 60)
    for x, y in np.argwhere(mask)[::7]:
        steps = np.linspace(0, 1, 50)
        line = np.rint(np.outer(1 - steps, (x, y)) + np.outer(steps, (45, 25))).astype(int)
        # Rounding to pixels may step over the outline by one.
        assert mask[tuple(line.T)].mean() > 0.95
