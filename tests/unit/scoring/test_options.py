from lib.scoring.options import ScoringOptions, SurfaceOptions, UncertaintyOptions, read_options


def test_defaults_and_what_they_mean():
    options = read_options(UncertaintyOptions, {})
    assert options.limit_s == float("inf")
    assert (options.plan.slices, options.plan.jitters, options.plan.seconds) == (6, 4, 60.0)
    assert read_options(ScoringOptions, {"max_minutes": 2}).limit_s == 120
    assert read_options(SurfaceOptions, {"tolerance_mm": "3.5"}).tolerance_mm == 3.5


def test_what_a_client_leaves_empty_is_the_default():
    assert read_options(UncertaintyOptions, {"slices": None, "device": ""}).slices == 6
