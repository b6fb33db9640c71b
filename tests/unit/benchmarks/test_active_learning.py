from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image

from benchmarks.active_learning import report, row, stores
from benchmarks.items import Item
from lib.evaluation.options import parse_simulation_options


def picture_item(folder, name, rule):
    labels = np.zeros((64, 128), np.uint8)
    labels[4:20, 4:20] = 7  # in the left tile of 64
    labels[30:33, 70:73] = 9  # too small for anybody to label
    Image.fromarray(np.full((64, 128), 90, np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(labels).save(folder / f"{name}_label.png")
    return Item(name, "microscopy", folder / f"{name}.png", folder / f"{name}_label.png", {}, rule, True)


def volume_item(folder, name):
    image, label = np.zeros((8, 6, 9), np.float32), np.zeros((8, 6, 9), np.uint8)
    image[..., 4], label[2:5, 2:4, 4] = 100, 3
    for array, path in ((image, folder / f"{name}.nii.gz"), (label, folder / f"{name}_label.nii.gz")):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return Item(
        name, "MR", folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz", {3: "x"}, "union", True
    )


def test_without_a_data_pack_there_are_phantoms():
    assert [store.name for store in stores([])] == ["phantoms"]


def test_every_store_has_options_that_the_command_knows(tmp_path):
    items = [picture_item(tmp_path, "cells", "instances")]
    items += [picture_item(tmp_path, f"em{n}", "components") for n in range(2)]
    items += [volume_item(tmp_path, f"brats_{n}_t1c") for n in range(2)]
    found = stores(items)
    assert [store.name for store in found] == ["phantoms", "nuclei", "EM", "BraTS slices"]
    for store in found:
        options = parse_simulation_options([f"--data={tmp_path}", *store.options])
        assert options.strategies == ("random", "hybrid")
    assert parse_simulation_options([f"--data={tmp_path}", *found[0].options]).seeds == 10


def test_tiles_hold_what_is_large_enough_and_the_others_are_left_out(tmp_path):
    store = stores([picture_item(tmp_path, "cells", "instances")])[1]
    store.write(tmp_path / "store")
    tiles = sorted(path.name for path in (tmp_path / "store").glob("*.png"))
    assert tiles == ["cells_00.png"]
    label = np.asarray(Image.open(tmp_path / "store" / "labels" / "final" / "cells_00.png"))
    assert label.shape == (64, 64)
    assert (label == 1).sum() == 16 * 16
    assert label.max() == 1


def test_every_fourth_slice_of_a_volume(tmp_path):
    store = stores([volume_item(tmp_path, f"brats_{n}_t1c") for n in range(2)])[-1]
    store.write(tmp_path / "store")
    image = nibabel.load(tmp_path / "store" / "brats_0_t1c.nii.gz")
    label = nibabel.load(tmp_path / "store" / "labels" / "final" / "brats_0_t1c.nii.gz")
    assert image.shape == label.shape == (8, 6, 3)
    assert image.header.get_zooms()[2] == 4
    assert np.asarray(label.dataobj)[..., 1].sum() == 6


@pytest.mark.parametrize(("needed", "shown"), [(0.14, "14%"), (None, "never")])
def test_a_row_tells_what_was_gained_and_what_was_needed(needed, shown):
    random = {"strategy": "random", "area": {"value": 0.5}, "mean": [0.4, 0.61234], "labels": [2, 4]}
    hybrid = {"strategy": "hybrid", "area": {"value": 0.6}, "mean": [0.5, 0.7], "labels": [2, 4]}
    hybrid |= {"gain": {"value": 0.1, "low": -0.05, "high": 0.2}, "needed": {"value": needed}}
    cells = row("phantoms", {"options": {"seeds": 10}, "strategies": [random, hybrid]})
    expected = ["phantoms", "10", "4", "0.5000", "0.6000 (-0.0500 to +0.2000)", "0.6123", "0.7000", shown]
    assert cells == expected
    assert f"| {shown} |" in report([cells])
