from __future__ import annotations

import pytest

from lib.images.file_formats import split_ending


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ct.nii.gz", ("ct", ".nii.gz")),
        ("CT.NII.GZ", ("CT", ".NII.GZ")),
        ("1.2.840.seg.nrrd", ("1.2.840", ".seg.nrrd")),
        ("a b.png", ("a b", ".png")),
        ("slice.tar.gz", ("slice.tar", ".gz")),
        ("series", ("series", "")),
        (".hidden", (".hidden", "")),
        ("", ("", "")),
    ],
)
def test_a_name_and_its_ending(name: str, parts: tuple[str, str]) -> None:
    assert split_ending(name) == parts
