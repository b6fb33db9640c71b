import math

import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from lib.prompts.rendering import CONTRAST, FAR, geodesic_distance


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
