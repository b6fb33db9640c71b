import numpy as np

from benchmarks.targets import MAX_COMPONENTS, MAX_INSTANCES, MAX_LABELS, choose_targets


def test_the_slice_is_that_of_the_largest_island(item_of):
    labels = np.zeros((20, 20, 3), np.int32)
    labels[2:6, 2:6, 0] = 1  # one island of 16
    labels[2:5, 2:6, 1] = 1  # two islands, 12 and 8: larger together, smaller each
    labels[8:10, 2:6, 1] = 1
    labels[5:8, 3, 2] = 1
    labels[2:5, 3, 2] = labels[8:10, 3, 2] = 1  # joins them in 3-D
    (target,) = choose_targets(item_of(), labels)
    assert labels[:, :, 1].sum() == 20
    assert target.index == 0
    assert target.truth.sum() == 16


def test_truth_and_box_are_xy_of_a_frame(target):
    assert target.truth.shape == (30, 40)
    assert target.box() == (20, 5, 26, 15)
    assert target.truth[5:15, 20:26].all()
    assert target.truth.sum() == 60


def test_the_middle_slice_halves_the_extent(target):
    assert target.middle == 6
    assert target.box(target.middle) == (20, 5, 26, 15)


def test_a_labels_object_is_its_largest_piece(item_of):
    labels = np.zeros((20, 20, 2), np.int32)
    labels[1:4, 1:4, :] = 1
    labels[10:18, 10:18, :] = 1
    (target,) = choose_targets(item_of(), labels)
    assert target.voxels.sum() == 128


def test_the_largest_labels_are_taken_by_size(item_of):
    labels = np.zeros((40, 10, 1), np.int32)
    for value in range(1, 9):
        labels[4 * value : 4 * value + 3, :value, 0] = value
    names = {value: f"organ{value}" for value in range(1, 12)}
    chosen = choose_targets(item_of(names=names), labels)
    assert [target.name for target in chosen] == [f"organ{value}" for value in (8, 7, 6, 5, 4, 3)]
    assert len(chosen) == MAX_LABELS


def test_union_is_one_object(item_of):
    labels = np.zeros((10, 10, 1), np.int32)
    labels[2:5, 2:5], labels[5:7, 2:5] = 1, 4
    (target,) = choose_targets(item_of(rule="union"), labels)
    assert target.voxels.sum() == 15


def test_instances_are_a_seeded_choice(item_of):
    labels = np.arange(1, 31, dtype=np.int32).repeat(6).reshape(30, 6, 1)
    item = item_of(rule="instances", names={}, picture=True)
    first, again, other = (choose_targets(item, labels, seed=seed) for seed in (0, 0, 1))
    assert len(first) == MAX_INSTANCES
    assert [target.name for target in first] == [target.name for target in again]
    assert [target.name for target in first] != [target.name for target in other]


def test_an_instance_has_the_name_of_its_label_and_remnants_are_left_out(item_of):
    labels = np.zeros((20, 20, 1), np.int32)
    labels[2:8, 2:8], labels[10:18, 2:8], labels[0, 0] = 3, 5, 7
    names = {3: "vertebra", 5: "disc", 7: "disc"}
    chosen = choose_targets(item_of(rule="instances", names=names, picture=True), labels)
    assert [target.name for target in chosen] == ["vertebra 3", "disc 5"]


def test_components_are_the_largest_pieces_without_gaps(item_of):
    labels = np.zeros((200, 40, 1), np.int32)
    for number in range(8):
        labels[24 * number : 24 * number + 12 + number, 1:31] = 1
    labels[0:3, 35:38] = 1  # 9 pixels: no cell
    chosen = choose_targets(item_of(rule="components", picture=True), labels)
    areas = [int(target.voxels.sum()) for target in chosen]
    assert areas == [30 * width for width in (19, 18, 17, 16, 15, 14)]
    assert len(areas) == MAX_COMPONENTS
