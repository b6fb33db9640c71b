from __future__ import annotations

from lib.images.file_formats import split_ending

A_NAME_AND_ITS_ENDING = [
    ("ct.nii.gz", ("ct", ".nii.gz")),
    ("CT.NII.GZ", ("CT", ".NII.GZ")),
    ("1.2.840.seg.nrrd", ("1.2.840", ".seg.nrrd")),
    ("a b.png", ("a b", ".png")),
    ("slice.tar.gz", ("slice.tar", ".gz")),
    ("series", ("series", "")),
    (".hidden", (".hidden", "")),
    ("", ("", "")),
]


def test_a_name_and_its_ending():
    for name, parts in A_NAME_AND_ITS_ENDING:
        assert split_ending(name) == parts
