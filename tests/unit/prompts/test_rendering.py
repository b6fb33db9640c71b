"""Rendered prompts: where they are positive and negative, with x and y told apart."""

import pytest
import torch

from lib.prompts.rendering import LOGIT_LIMIT, render_prompts

SIZE = 256


def _cell(x: float, y: float) -> tuple[int, int]:
    """Row and column of the rendered cell that holds network pixel (x, y)."""
    return int(y // 4), int(x // 4)


def _render(points: list[tuple[float, float]], labels: list[int], previous=None) -> torch.Tensor:
    coords = torch.tensor([points], dtype=torch.float32).view(1, -1, 2)
    return render_prompts(coords, torch.tensor([labels], dtype=torch.int32), SIZE, previous)


def test_shape_and_range():
    out = _render([(40, 200)], [1])
    assert out.shape == (1, 1, 64, 64)
    assert out.dtype == torch.float32
    assert float(out.abs().max()) <= LOGIT_LIMIT


def test_click_far_off_the_diagonal_lands_at_column_x_and_row_y():
    out = _render([(40, 200)], [1])[0, 0]
    row, column = _cell(40, 200)
    assert divmod(int(out.argmax()), 64) == (row, column)
    assert float(out[row, column]) > 4
    assert float(out[column, row]) < 0.5


def test_negative_click_is_the_mirror_of_a_positive_one():
    assert torch.equal(_render([(40, 200)], [0]), -_render([(40, 200)], [1]))


def test_box_is_positive_within_its_ellipse_and_negative_elsewhere():
    out = _render([(20, 120), (100, 220)], [2, 3])[0, 0]
    assert float(out[_cell(60, 170)]) > 2.5
    assert float(out[_cell(26, 126)]) < 0  # a corner of the box
    assert float(out[_cell(30, 170)]) > 0  # near the middle of its left side
    assert float(out[_cell(170, 60)]) == -LOGIT_LIMIT  # where x and y would be swapped
    positive = int((out > 0).sum()) * 16
    assert positive == pytest.approx(torch.pi / 4 * 80 * 100, rel=0.05)


def test_clicks_are_stamped_over_a_box():
    out = _render([(20, 120), (100, 220), (60, 170), (200, 30)], [2, 3, 0, 1])[0, 0]
    assert float(out[_cell(60, 170)]) == -LOGIT_LIMIT
    assert float(out[_cell(200, 30)]) == LOGIT_LIMIT
    assert float(out[_cell(60, 200)]) > 0


def test_previous_is_clipped_and_kept_away_from_the_clicks():
    previous = torch.full((1, 1, 64, 64), -1024.0)
    previous[..., 10:20, 40:50] = 2.5
    out = _render([(180, 60), (20, 240)], [0, 1], previous)[0, 0]
    assert float(out[_cell(180, 60)]) == -LOGIT_LIMIT
    assert float(out[_cell(20, 240)]) == LOGIT_LIMIT
    assert float(out[11, 41]) == 2.5
    assert float(out[40, 10]) == -LOGIT_LIMIT


def test_padding_draws_nothing():
    padded = _render([(40, 200), (0, 0)], [1, -1])
    assert torch.equal(padded, _render([(40, 200)], [1]))


def test_nothing_asked_is_nothing_drawn():
    assert float(_render([(0, 0)], [-1]).abs().max()) == 0


def test_rows_of_a_batch_do_not_mix():
    coords = torch.tensor([[[40.0, 200.0], [0, 0]], [[20.0, 120.0], [100.0, 220.0]]])
    labels = torch.tensor([[1, -1], [2, 3]])
    both = render_prompts(coords, labels, SIZE)
    assert torch.equal(both[:1], _render([(40, 200)], [1]))
    assert torch.equal(both[1:], _render([(20, 120), (100, 220)], [2, 3]))


def test_a_box_thinner_than_a_cell_still_shows():
    assert float(_render([(101, 50), (102, 90)], [2, 3]).max()) > 0


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"coords \(1, 2, 2\) and labels \(1, 3\)"):
        render_prompts(torch.zeros(1, 2, 2), torch.zeros(1, 3), SIZE)
    with pytest.raises(ValueError, match=r"previous must have shape \(1, 1, 64, 64\)"):
        render_prompts(torch.zeros(1, 2, 2), torch.zeros(1, 2), SIZE, torch.zeros(1, 1, 32, 32))
