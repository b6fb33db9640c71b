import math

import pytest

from lib.errors import TrainingError
from lib.trainers.config import TrainOptions, read_options, viewer_config

SHOWN = viewer_config(["cpu"], "decoder")


def test_the_recipe_of_the_paper():
    options = TrainOptions()
    assert (options.preset, options.learning_rate, options.batch_size) == ("paper", 1e-4, 8)
    assert (options.dice_weight, options.bce_weight) == (1.0, 1.0)


def test_viewers_get_scalars_and_lists_and_may_send_them_back():
    # Slicer and QuPath build a field from each, by its type; None crashes QuPath's dialog.
    for name, value in SHOWN.items():
        assert isinstance(value, (bool, int, float, str, list)), name
        assert not isinstance(value, float) or math.isfinite(value)
        if isinstance(value, list):
            assert value
            assert all(isinstance(choice, str) for choice in value)

    # The first of a list is its default.
    assert SHOWN["preset"] == ["decoder", "paper", "video", "auto_head"]
    assert read_options({}, SHOWN).preset == "decoder"
    assert read_options({}, viewer_config(["cuda:0", "cpu"], "paper")).device == "cuda:0"

    # A viewer that sends everything back changes nothing.
    assert read_options(SHOWN, SHOWN) == read_options({}, SHOWN)

    # Numbers may come as text as slicer sends them.
    options = read_options({"max_epochs": "3", "learning_rate": "0.001", "multi_gpu": "false"}, SHOWN)
    assert (options.max_epochs, options.learning_rate, options.multi_gpu) == (3, 0.001, False)


def test_what_monai_label_adds_is_no_option():
    added = {"model": "biosam2", "client_id": "me", "local_rank": 0, "gpus": "all"}
    added["biosam2"] = {"max_epochs": 3}  # as POST /train/ got it, which has put its entries beside it
    assert read_options(added, SHOWN) == read_options({}, SHOWN)


def test_wrong_values_and_unknown_options_are_named():
    for name, value in (
        ("max_epochs", 0),
        ("max_epochs", "many"),
        ("batch_size", -1),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("image_size", 100),
        ("preset", "best"),
        ("val_split", 1.0),
        ("empty_frames", 2),
        ("seed", 1.5),
    ):
        with pytest.raises(TrainingError, match=name):
            read_options({name: value}, SHOWN)

    # An unknown option is named with those there are.
    with pytest.raises(TrainingError, match=r"Unknown option 'epochs' \(available: .*max_epochs"):
        read_options({"epochs": 3}, SHOWN)

    # All that is wrong is named at once.
    with pytest.raises(TrainingError, match=r"max_epochs.*batch_size"):
        read_options({"max_epochs": 0, "batch_size": 0}, SHOWN)
