"""Who is painted over whom."""

from lib.labels.overlaps import paint_order


def test_the_smaller_one_and_then_the_later_one_is_on_top():
    assert paint_order([3, 50, 3, 7]) == [1, 3, 0, 2]
    assert paint_order([]) == []
