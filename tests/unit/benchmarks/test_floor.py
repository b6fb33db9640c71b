import pytest
import torch

from benchmarks.checkpoint import write_random_checkpoint
from benchmarks.floor import Floor, cpu_precision, write_answer

PARTS = {"encoder", "memory_attention", "memory_encoder", "decoder"}


@pytest.fixture(scope="module")
def floor(tmp_path_factory):
    checkpoint = write_random_checkpoint(tmp_path_factory.mktemp("weights"))
    return Floor(checkpoint, 128, torch.float32)


def test_a_click_is_an_encoding_and_a_decoding(floor):
    parts = floor.click()
    assert set(parts) == {"encoder", "decoder"}
    assert all(seconds > 0 for seconds in parts.values())


def test_a_propagation_runs_every_part_on_every_slice_but_the_first_memory(floor):
    shares = floor.propagation(3)
    assert set(shares) == PARTS | {"total"}
    assert sum(shares[part] for part in PARTS) <= shares["total"]


def test_the_number_format_is_one_that_a_cpu_has():
    assert cpu_precision() in (torch.float32, torch.bfloat16)


def test_writing_an_answer_takes_time_and_leaves_a_file(tmp_path):
    assert write_answer((8, 6, 4), tmp_path) > 0
    assert b"type: unsigned char" in (tmp_path / "answer.nrrd").read_bytes()
