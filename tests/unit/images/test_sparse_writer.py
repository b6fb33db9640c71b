"""One gzip member that every program unpacks, and a plain file that is as long as it says."""

import gzip
import io
import subprocess
import zlib
from shutil import which

import numpy as np
import pytest

from lib.images.sparse_writer import BLOCK, gzip_file, write_gzip, write_plain


def volume(k, used):
    memory = np.zeros((k, 300, 400), np.uint8)
    for index in used:
        memory[index, 10:200, 20:300] = np.random.default_rng(index).integers(0, 2, (190, 280))
    return memory


CASES = [(30, []), (30, [0]), (30, [29]), (30, [14, 15]), (1, [0]), (1, []), (30, list(range(30)))]


def test_one_member_with_the_right_check_sum():
    for k, used in CASES:
        for level in [1, 6]:
            memory, file = volume(k, used), io.BytesIO()
            write_gzip(file, b"header", memory, level)
            member = zlib.decompressobj(31)
            assert member.decompress(file.getvalue()) == b"header" + memory.tobytes()
            assert member.eof
            assert member.unused_data == b""
            assert gzip.decompress(file.getvalue()) == b"header" + memory.tobytes()


@pytest.mark.skipif(which("gzip") is None, reason="there is no gzip program here")
def test_the_gzip_program_agrees(tmp_path):
    memory = volume(30, [7])
    with (tmp_path / "a.gz").open("wb") as file:
        write_gzip(file, b"", memory, 1)
    unpacked = subprocess.run(["gzip", "-dc", tmp_path / "a.gz"], check=True, capture_output=True)
    assert unpacked.stdout == memory.tobytes()


def test_zeros_shrink_to_almost_nothing():
    file = io.BytesIO()
    write_gzip(file, b"", volume(60, [30]), 1)
    assert file.tell() < 60 * 300 * 400 // 100


def test_a_plain_file_is_header_and_voxels(tmp_path):
    for k, used in CASES:
        memory = volume(k, used)
        with (tmp_path / "a").open("wb") as file:
            write_plain(file, b"header", memory)
        assert (tmp_path / "a").read_bytes() == b"header" + memory.tobytes()


def test_the_cases_have_more_than_one_block_of_zeros():
    assert volume(30, [14]).nbytes > 2 * BLOCK


def test_a_file_with_holes_is_compressed_between_other_bytes(tmp_path):
    for number, (k, used) in enumerate([*CASES, (30, [3, 20])]):
        path, memory = tmp_path / str(number), volume(k, used)
        with path.open("wb") as file:
            write_plain(file, b"header", memory)
        assert (
            gzip.decompress(gzip_file(path, b"before", b"after")) == b"before" + path.read_bytes() + b"after"
        )
    (tmp_path / "empty").touch()
    assert gzip.decompress(gzip_file(tmp_path / "empty", b"before", b"after")) == b"beforeafter"
