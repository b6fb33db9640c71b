import nibabel
import numpy as np

from benchmarks.volumes import ct_like_volume, write_volumes


def test_a_volume_looks_like_ct():
    volume = ct_like_volume((48, 40, 6), seed=1)
    assert volume.shape == (48, 40, 6)
    assert volume.dtype == np.int16
    assert volume[0, 0, 0] < -900
    assert 80 < np.median(volume[28:30, 20, 3]) < 160


def test_every_slice_differs_between_seeds():
    first, second = (ct_like_volume((32, 32, 5), seed) for seed in (0, 1))
    assert all((first[:, :, k] != second[:, :, k]).any() for k in range(5))


def test_volumes_are_written_once_per_seed(tmp_path):
    names = write_volumes(tmp_path, (16, 12, 3), 2, first_seed=100)
    assert names == ["bench_100", "bench_101"]
    assert nibabel.load(tmp_path / "bench_101.nii.gz").shape == (16, 12, 3)
