import numpy as np
import pytest

from lib.scoring.signals.boundary import binary_entropy, boundary_entropy

# -p log2 p - q log2 q for p = 1 / (1 + e^-2) = 0.880797 and q = 0.119203.
ENTROPY_OF_2 = 0.880797 * 0.183119 + 0.119203 * 3.068510
# And for p = 1 / (1 + e^-1) = 0.731059, q = 0.268941.
ENTROPY_OF_1 = 0.731059 * 0.451941 + 0.268941 * 1.894636


def halves(left: float, near_left: float, near_right: float, right: float) -> np.ndarray:
    """Eight columns: the mask is the left half."""
    row = [left] * 3 + [near_left] + [near_right] + [right] * 3
    return np.tile(np.array(row, np.float32), (6, 1))


def test_only_the_band_around_the_boundary_counts():
    # The undecided outer columns, a logit of 0.001 and of -0.001, are not near it.
    assert boundary_entropy(halves(0.001, 2, -1, -0.001), radius=1) == pytest.approx(
        (ENTROPY_OF_2 + ENTROPY_OF_1) / 2, abs=1e-5
    )


def test_a_wider_band_takes_in_more():
    # Two columns on either side: 2 and 0.001 within, -1 and -0.001 without.
    assert boundary_entropy(halves(0.001, 2, -1, -0.001), radius=2) == pytest.approx(
        (ENTROPY_OF_2 + 1 + ENTROPY_OF_1 + 1) / 4, abs=1e-5
    )


def test_the_band_grows_with_the_grid():
    small = halves(9, 2, -2, -9)
    assert boundary_entropy(small) == pytest.approx(ENTROPY_OF_2, abs=1e-5)
    # 64 rows: two cells on either side.
    large = np.repeat(np.repeat(halves(9, 2, -2, -9), 11, axis=0)[:64], 2, axis=1)
    assert boundary_entropy(large) == pytest.approx(ENTROPY_OF_2, abs=1e-5)


def test_the_edge_of_the_frame_is_no_boundary():
    logits = np.full((5, 9), 3.0, np.float32)
    logits[:, 8] = -3.0
    assert boundary_entropy(logits, radius=1) == pytest.approx(float(binary_entropy(np.float32(3))), abs=1e-6)
    logits[:, :7] = 0.01  # at the other edge, and undecided
    assert boundary_entropy(logits, radius=1) == pytest.approx(float(binary_entropy(np.float32(3))), abs=1e-6)


@pytest.mark.parametrize("value", [-1024.0, -1.0, 0.0, 5.0])
def test_a_mask_without_a_boundary_says_nothing(value):
    assert boundary_entropy(np.full((6, 6), value, np.float32)) is None


def test_entropy_is_one_bit_at_most_and_nothing_where_all_is_decided():
    found = binary_entropy(np.array([0, 1024, -1024, 2, -2], np.float32))
    np.testing.assert_allclose(found, [1, 0, 0, ENTROPY_OF_2, ENTROPY_OF_2], atol=1e-5)
