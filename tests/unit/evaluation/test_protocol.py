from lib.evaluation.protocol import Rules, batches


def test_a_class_has_its_own_tolerance_or_the_default():
    rules = Rules(tolerance_mm={"liver": 5.0}, default_tolerance_mm=2.0)
    assert (rules.tolerance("liver"), rules.tolerance("aorta")) == (5.0, 2.0)


def test_all_metrics_are_wanted_unless_some_are_named():
    assert Rules().wants("hd95")
    assert not Rules(metrics=("dice",)).wants("hd95")


def test_batches_hold_every_object_once():
    assert list(batches([1, 2, 3, 4, 5], 2)) == [(1, 2), (3, 4), (5,)]
    assert list(batches([], 2)) == []
