"""Prompts of training fall where the masks are, x before y."""

import torch

from pretraining.prompts import add_clicks, boxes_of, correction, deepest_errors, draw_boxes, draw_clicks


def test_boxes_are_half_open_and_x_comes_first(wide_masks):
    assert boxes_of(wide_masks).tolist() == [[40, 150, 100, 190], [200, 10, 240, 30]]


def test_box_of_an_empty_mask_is_zero():
    assert boxes_of(torch.zeros(1, 64, 64, dtype=torch.bool)).tolist() == [[0, 0, 0, 0]]


def test_jittered_boxes_stay_near_and_inside_the_image(gen, wide_masks):
    prompts = draw_boxes(gen, wide_masks.repeat(50, 1, 1))
    assert prompts.labels[0].tolist() == [2, 3]
    assert float(prompts.coords.min()) >= 0
    assert float(prompts.coords.max()) <= 256
    first = prompts.coords[0::2].reshape(-1, 4)
    assert float((first - torch.tensor([40.0, 150, 100, 190])).abs().max()) <= 6.0 + 1e-4


def test_positive_clicks_fall_inside_and_negative_ones_outside(gen, wide_masks):
    masks = wide_masks.repeat(20, 1, 1)
    coords, labels = draw_clicks(gen, masks, 3, 2)
    assert coords.shape == (40, 5, 2)
    assert labels.sum(1).tolist() == [3] * 40
    rows = torch.arange(40)[:, None]
    inside = masks[rows, coords[..., 1].long(), coords[..., 0].long()]
    assert torch.equal(inside, labels.bool())


def test_correction_clicks_the_largest_error(gen, wide_masks):
    truth = wide_masks[:1]
    logits = torch.full((1, 1, 64, 64), -5.0)
    coords, labels = correction(gen, truth, logits)
    assert labels.tolist() == [[1]]
    assert 40 <= float(coords[0, 0, 0]) < 100
    assert 150 <= float(coords[0, 0, 1]) < 190
    logits[:, :, 38:47, 10:60] = 5.0  # overruns to the right, as far as x = 240
    coords, labels = correction(gen, truth, logits)
    assert labels.tolist() == [[0]]
    assert float(coords[0, 0, 0]) >= 100


def test_clicks_are_appended_after_a_box(gen, wide_masks):
    prompts = add_clicks(draw_boxes(gen, wide_masks, jitter=0.0), *draw_clicks(gen, wide_masks, 1, 0))
    assert prompts.labels.tolist() == [[2, 3, 1], [2, 3, 1]]
    assert prompts.coords.shape == (2, 3, 2)


def test_the_deepest_error_is_clicked_in_its_middle(gen, wide_masks):
    nothing = torch.zeros_like(wide_masks)
    coords, labels = deepest_errors(gen, wide_masks, nothing)
    assert labels.tolist() == [[1], [1]]
    assert 55 <= float(coords[0, 0, 0]) < 85
    assert 164 <= float(coords[0, 0, 1]) < 176
    overrun = wide_masks.clone()
    overrun[0, 20:120, 120:220] = True
    coords, labels = deepest_errors(gen, wide_masks, overrun)
    assert labels.tolist() == [[0], [1]]
    assert (coords[0, 0] - torch.tensor([170.0, 70.0])).abs().max() <= 8


def test_the_clicked_pixel_is_wrong_even_where_the_error_is_thin(gen):
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 33, 10:50] = True
    for _ in range(5):
        (x, y), label = deepest_errors(gen, masks, torch.zeros_like(masks))[0][0, 0].long().tolist(), 1
        assert bool(masks[0, y, x]) == bool(label)


def test_a_click_on_a_right_mask_lies_in_the_object(gen, wide_masks):
    coords, labels = deepest_errors(gen, wide_masks, wide_masks)
    x, y = coords[:, 0].long().unbind(-1)
    assert wide_masks[torch.arange(2), y, x].tolist() == [True, True]
    assert labels.tolist() == [[1], [1]]
