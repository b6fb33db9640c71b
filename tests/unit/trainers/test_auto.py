from lib.trainers.auto import AutoTrain


def test_it_starts_after_so_many_images_and_counts_anew():
    started = []
    auto = AutoTrain(3, lambda: started.append(1) or True)
    for image in "abcdefg":
        auto.label_saved(image)
    assert len(started) == 2


def test_one_image_that_is_saved_often_counts_once():
    started = []
    auto = AutoTrain(2, lambda: started.append(1) or True)
    for _ in range(5):
        auto.label_saved("a")
    assert started == []
    auto.label_saved("b")
    assert started == [1]


def test_while_one_runs_the_labels_count_for_the_next():
    answers = iter([False, False, True])
    auto = AutoTrain(2, lambda: next(answers))
    for image in "abcd":
        auto.label_saved(image)
    assert next(answers, None) is None
    auto.label_saved("e")


def test_it_is_off_by_default():
    AutoTrain(0, lambda: 1 / 0).label_saved("a")
