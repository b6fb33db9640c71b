import math

import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from lib.prompts.rendering import (
    CONTRAST,
    FAR,
    LOGIT_LIMIT,
    geodesic_distance,
    make_guide,
    render_neighbour,
    render_prompts,
)

SIZE = 256
PLAIN = make_guide(torch.zeros(1, 3, SIZE, SIZE))


def cell(x: float, y: float) -> tuple[int, int]:
    """Row and column of the rendered cell that holds network pixel (x, y)."""
    return int(y // 4), int(x // 4)


def render(points, labels, guide=PLAIN, previous=None) -> torch.Tensor:
    coords = torch.tensor([points], dtype=torch.float32).view(1, -1, 2)
    return render_prompts(coords, torch.tensor([labels], dtype=torch.int32), guide, previous)[0, 0]


def disc(x: int, y: int, radius: int) -> torch.Tensor:
    """(1, 3, S, S) levels: a bright disc on darker ground."""
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return (0.3 + 0.4 * inside.float()).expand(1, 3, SIZE, SIZE)


def test_shape_and_range():
    out = render_prompts(torch.tensor([[[40.0, 200.0]]]), torch.ones(1, 1), PLAIN)
    assert out.shape == (1, 1, 64, 64)
    assert out.dtype == torch.float32
    assert float(out.abs().max()) <= LOGIT_LIMIT


def test_a_click_far_off_the_diagonal_lands_at_column_x_and_row_y():
    out = render([(40, 200)], [1])
    row, column = cell(40, 200)
    assert float(out[row, column]) == LOGIT_LIMIT
    assert float(out[column, row]) < 0


def test_a_click_fills_the_object_to_its_edge_and_not_the_ground():
    out = render([(60, 170)], [1], make_guide(disc(70, 160, 40)))
    assert float(out[cell(70, 130)]) > 0
    assert float(out[cell(70, 190)]) > 0
    assert float(out[cell(70, 100)]) < 0
    assert float(out[cell(160, 70)]) < 0


def test_a_negative_click_takes_its_surroundings_away():
    guide = make_guide(disc(70, 160, 40))
    alone = render([(60, 150)], [1], guide)
    both = render([(60, 150), (90, 180)], [1, 0], guide)
    assert float(alone[cell(88, 176)]) > 0
    assert float(both[cell(88, 176)]) < 0
    assert float(both[cell(56, 146)]) > 0


def test_a_box_is_positive_in_its_middle_and_negative_outside():
    out = render([(20, 120), (100, 220)], [2, 3])
    assert float(out[cell(60, 170)]) > 2.5
    assert float(out[cell(24, 124)]) < 0  # a corner of the box
    assert float(out[cell(170, 60)]) == -LOGIT_LIMIT  # where x and y would be swapped


def test_a_box_finds_the_object_in_it():
    truth = disc(70, 160, 40)[0, 0, ::4, ::4] > 0.5
    out = render([(22, 118), (118, 212)], [2, 3], make_guide(disc(70, 160, 40)))
    overlap = 2 * ((out > 0) & truth).sum() / ((out > 0).sum() + truth.sum())
    assert float(overlap) > 0.9


def test_clicks_are_stamped_over_a_box():
    out = render([(20, 120), (100, 220), (60, 170), (200, 30)], [2, 3, 0, 1])
    assert float(out[cell(60, 170)]) == -LOGIT_LIMIT
    assert float(out[cell(200, 30)]) == LOGIT_LIMIT


def test_a_box_thinner_than_a_cell_still_marks_one():
    assert float(render([(101, 60), (102, 61)], [2, 3]).max()) > 0


def test_previous_is_clipped_and_kept_away_from_the_clicks():
    previous = torch.full((1, 1, 64, 64), -1024.0)
    previous[..., 10:20, 40:50] = 2.5
    out = render([(180, 60), (20, 240)], [0, 1], previous=previous)
    assert float(out[cell(180, 60)]) == -LOGIT_LIMIT
    assert float(out[cell(20, 240)]) == LOGIT_LIMIT
    assert float(out[11, 41]) == 2.5
    assert float(out[40, 10]) == -LOGIT_LIMIT


def test_padding_draws_nothing():
    assert torch.equal(render([(40, 200), (0, 0)], [1, -1]), render([(40, 200)], [1]))
    assert float(render([(0, 0)], [-1]).abs().max()) == 0


def test_rows_of_a_batch_do_not_mix():
    coords = torch.tensor([[[40.0, 200.0], [0, 0]], [[20.0, 120.0], [100.0, 220.0]]])
    both = render_prompts(coords, torch.tensor([[1, -1], [2, 3]]), PLAIN.repeat(2, 1, 1, 1))
    assert torch.allclose(both[0, 0], render([(40, 200)], [1]))
    assert torch.allclose(both[1, 0], render([(20, 120), (100, 220)], [2, 3]))


def test_a_guide_does_not_depend_on_the_contrast_of_the_image():
    levels = disc(70, 160, 40)
    assert float(make_guide(levels).std()) == pytest.approx(float(make_guide(levels / 2).std()), rel=0.3)


@pytest.mark.parametrize("offset", [-0.5, 0.0, 0.25, 1.49, 1.5, 2.75, 3.49])
def test_a_click_counts_wherever_in_its_cell_it_is(offset):
    # On the corner of four cells too, where a native pixel's centre often comes to lie.
    guide = make_guide(disc(100, 100, 30))
    drawn = [
        render_prompts(torch.tensor([[[100 + x, 100 + y]]]), torch.tensor([[1]]), guide)[0, 0]
        for x, y in ((offset, offset), (offset, 1.5), (1.5, offset), (1.5, 1.5))
    ]
    for here in drawn:
        assert float(here[4, 4]) < -1
        assert float((here - drawn[-1])[40:].abs().max()) < 1e-4


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="coords"):
        render_prompts(torch.zeros(1, 2, 2), torch.zeros(1, 3), PLAIN)
    with pytest.raises(ValueError, match="guide"):
        render_prompts(torch.zeros(2, 2, 2), torch.zeros(2, 2), PLAIN)
    with pytest.raises(ValueError, match="previous"):
        render_prompts(torch.zeros(1, 2, 2), torch.zeros(1, 2), PLAIN, torch.zeros(1, 1, 32, 32))


def test_a_neighbours_mask_moves_to_the_edges_of_this_slice():
    neighbour = F.avg_pool2d((disc(70, 160, 40)[:, :1, ::4, ::4] > 0.5).float(), 5, 1, 2) * 8 - 4
    here = disc(74, 164, 38)
    truth = here[0, 0, ::4, ::4] > 0.5
    out = render_neighbour(neighbour, make_guide(disc(70, 160, 40)), make_guide(here))[0, 0]

    def overlap(mask: torch.Tensor) -> float:
        return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))

    assert overlap(out > 0) > overlap(neighbour[0, 0] > 0) + 0.02


def test_a_neighbour_without_the_object_draws_nothing_of_it():
    out = render_neighbour(torch.full((1, 1, 64, 64), -1024.0), PLAIN, PLAIN)
    assert float(out.max()) == -LOGIT_LIMIT


def test_an_object_that_has_ended_is_hardly_drawn():
    neighbour = F.avg_pool2d((disc(70, 160, 40)[:, :1, ::4, ::4] > 0.5).float(), 5, 1, 2) * 8 - 4
    before, here = make_guide(disc(70, 160, 40)), make_guide(disc(200, 60, 40))
    assert int((render_neighbour(neighbour, before, before) > 0).sum()) > 250
    assert int((render_neighbour(neighbour, before, here) > 0).sum()) < 50


def test_a_neighbour_of_one_cell_is_still_followed():
    neighbour = torch.full((1, 1, 64, 64), -6.0)
    neighbour[0, 0, 40, 10] = 3.0
    out = render_neighbour(neighbour, PLAIN, PLAIN)[0, 0]
    assert divmod(int(out.argmax()), 64) == (40, 10)
    assert float(out.max()) > 0


def seed(side: int, *places: tuple[int, int]) -> torch.Tensor:
    seeds = torch.zeros(1, side, side, dtype=torch.bool)
    for y, x in places:
        seeds[0, y, x] = True
    return seeds


def shortest_paths(guide: torch.Tensor, start: tuple[int, int]) -> torch.Tensor:
    """The same by scipy's Dijkstra on the graph of cells."""
    side = len(guide)
    rows, columns, costs = [], [], []
    for y in range(side):
        for x in range(side):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                v, u = y + dy, x + dx
                if v < side and 0 <= u < side:
                    rows.append(y * side + x)
                    columns.append(v * side + u)
                    step = math.hypot(dy, dx) / side
                    costs.append(math.hypot(step, CONTRAST * float(guide[y, x] - guide[v, u])))
    graph = coo_matrix((costs, (rows, columns)), shape=(side**2, side**2))
    return torch.tensor(dijkstra(graph, directed=False, indices=start[0] * side + start[1])).view(side, side)


def test_distances_are_those_of_dijkstra():
    guide = torch.rand(12, 12, generator=torch.Generator().manual_seed(1))
    found = geodesic_distance(guide[None], seed(12, (3, 9)))[0]
    assert torch.allclose(found.double(), shortest_paths(guide, (3, 9)), atol=1e-5)


def test_it_stops_where_the_wanted_distances_have_settled():
    guide = torch.rand(40, 40, generator=torch.Generator().manual_seed(2)) / 20
    wanted = torch.zeros(1, 40, 40, dtype=torch.bool)
    wanted[0, 5:16, 4:15] = True
    found = geodesic_distance(guide[None], seed(40, (10, 9)), wanted)
    assert torch.allclose(found[wanted].double(), shortest_paths(guide, (10, 9))[wanted[0]], atol=1e-5)
    assert float(found[0, 39, 39]) == FAR


def test_on_plain_ground_it_is_the_length_of_the_way():
    found = geodesic_distance(torch.zeros(1, 16, 16), seed(16, (2, 12)))[0]
    assert float(found[2, 12]) == 0
    assert float(found[2, 4]) == pytest.approx(8 / 16)
    assert float(found[6, 8]) == pytest.approx(4 * math.sqrt(2) / 16)


def test_an_edge_is_a_long_way_and_a_gap_in_it_a_short_one():
    guide = torch.zeros(1, 16, 16)
    guide[:, :, 8] = 1.0
    closed = geodesic_distance(guide, seed(16, (2, 4)))[0, 2, 12]
    guide[:, 14, 8] = 0.0
    gap = geodesic_distance(guide, seed(16, (2, 4)))[0, 2, 12]
    assert float(closed) > 2 * CONTRAST
    assert float(gap) < 2.5


def test_the_nearest_seed_counts_and_none_is_far():
    found = geodesic_distance(torch.zeros(1, 16, 16), seed(16, (0, 0), (15, 15)))[0]
    assert float(found[14, 14]) == pytest.approx(math.sqrt(2) / 16)
    assert float(geodesic_distance(torch.zeros(1, 8, 8), seed(8)).min()) == FAR
