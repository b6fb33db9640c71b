import errno

import pytest
import torch

from lib.errors import CheckpointError, TrainingError
from lib.trainers.errors import plain_errors


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TrainingError("as it is"), "as it is"),
        (CheckpointError("the file is damaged"), "the file is damaged"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full.*nothing is lost"),
        (MemoryError(), "out of memory.*smaller image_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory.*smaller image_size"),
    ],
)
def test_what_goes_wrong_is_said_for_a_person(tmp_path, error, words):
    with pytest.raises(TrainingError, match=words), plain_errors(tmp_path / "frames"):
        raise error


def test_a_full_disk_gets_its_scratch_back_and_nothing_else(tmp_path):
    scratch, kept = tmp_path / "frames", tmp_path / "weights.pt"
    scratch.mkdir()
    (scratch / "levels.npy").write_bytes(b"x")
    kept.write_bytes(b"x")
    with pytest.raises(TrainingError), plain_errors(scratch):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == [kept]


def test_a_defect_of_ours_stays_what_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), plain_errors(tmp_path):
        _ = 1 / 0
    with pytest.raises(PermissionError), plain_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
