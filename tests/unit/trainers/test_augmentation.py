import numpy as np

from lib.trainers.augmentation import CONTRAST, GAMMA, Augmentation, draw_augmentation

FRAME = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_the_plain_view_is_the_frame():
    assert np.array_equal(Augmentation().frame(FRAME), FRAME)


def test_truth_and_frame_are_flipped_alike():
    mask = FRAME[..., 0] > 100
    for flipped in ((False, True), (True, False), (True, True)):
        view = Augmentation(flipped)
        assert np.array_equal(view.mask(mask), view.frame(FRAME)[..., 0] > 100)
        assert np.array_equal(view.frame(view.frame(FRAME)), FRAME)


def test_x_is_mirrored_along_the_second_axis():
    assert np.array_equal(Augmentation((False, True)).frame(FRAME)[:, 0], FRAME[:, -1])


def test_contrast_and_gamma_keep_the_order_of_levels():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for view in (Augmentation(contrast=1.25), Augmentation(gamma=0.7), Augmentation(contrast=0.8, gamma=1.4)):
        seen = view.frame(ramp)[0, :, 0].astype(int)
        assert (np.diff(seen) >= 0).all()
        assert not np.array_equal(seen, ramp[0, :, 0])


def test_gamma_is_the_exponent_of_levels_between_0_and_1():
    grey = np.full((2, 2, 3), 64, np.uint8)
    assert (Augmentation(gamma=0.5).frame(grey) == round(255 * (64 / 255) ** 0.5)).all()


def test_views_are_drawn_within_their_limits_and_all_four_mirror_images_come():
    rng = np.random.default_rng(1)
    views = [draw_augmentation(rng, few=False) for _ in range(200)]
    assert {view.flipped for view in views} == {(a, b) for a in (False, True) for b in (False, True)}
    assert all(
        1 / CONTRAST <= view.contrast <= CONTRAST and 1 / GAMMA <= view.gamma <= GAMMA for view in views
    )


def test_where_embeddings_are_kept_there_are_twelve_views():
    rng = np.random.default_rng(1)
    assert len({draw_augmentation(rng, few=True) for _ in range(200)}) == 12
