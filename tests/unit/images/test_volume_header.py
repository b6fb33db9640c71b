"""Headers of NRRD and MetaImage files: voxels lie in the file itself, are whole, and fit into memory."""

import bz2
import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from lib.errors import ImageError, ImageTooLargeError, LabelError
from lib.images.medical_image import LPS_IDENTITY, Voxels, make_image
from lib.images.reading import read_image
from lib.labels.reading import read_labels

MANY = 10**9
VOXELS = np.arange(4 * 4 * 4, dtype=np.uint8).reshape(4, 4, 4)
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
NRRD = "NRRD0004\ntype: unsigned char\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"


def open_both(path):
    """What a file is refused with as an image and as a label."""
    image = make_image(Voxels(VOXELS, LPS_IDENTITY), path, "itk")
    with pytest.raises(ImageError) as refused:
        read_image(path, MANY)
    with pytest.raises(LabelError) as raised:
        read_labels(path, image)
    # Labels are never detached headers of NRRD.
    return [str(refused.value), *([] if path.suffix == ".nhdr" else [str(raised.value)])]


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_no_damaged_byte_of_compressed_voxels_is_accepted(tmp_path, suffix):
    drawn = np.zeros((40, 64, 48), np.uint8)
    drawn[8:30, 10:40, 5:30] = 1
    drawn[15:22, 20:30, 10:20] = 2
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(drawn), str(path), True)
    image = read_image(path, MANY)
    content = path.read_bytes()
    start = content.index(b"LOCAL\n") + 6 if suffix == ".mha" else len(content) // 4
    damaged = 0
    for position in np.linspace(start, len(content) - 1, 61).astype(int):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        for read in (lambda: read_image(path, MANY).array, lambda: read_labels(path, image).array):
            try:
                found = read()
            except (ImageError, LabelError):
                damaged += 1
            else:
                # Bytes that say nothing of the voxels, such as the time in a gzip header.
                assert np.array_equal(found, image.array), (suffix, position)
    assert damaged >= 2 * 55


HEADERS = {
    "an absolute path": "{secret}",
    "a path upwards": "../secret.bin",
    "a path below": "sub/secret.bin",
    "a path of Windows": "C:\\secret.bin",
    "a plain name": "secret.bin",
    "a pattern": "x%03d 1 3",
    "a pattern with a step": "x%03d.bin 1 3 1",
    "a list": "LIST",
    "a list of slices": "LIST 2",
    "nothing": "",
}


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_voxels_in_other_files_are_refused_before_a_reader_sees_them(tmp_path, suffix):
    folder = tmp_path / "studies"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    for place in (secret, folder / "secret.bin"):
        place.write_bytes(bytes(64))
    for what, named in HEADERS.items():
        if what == "a plain name" and suffix in (".mhd", ".nhdr"):
            continue
        where = named.format(secret=secret)
        for spelled in (
            ("ElementDataFile = ", "ElementDataFile: ") if suffix[1] == "m" else ("data file: ", "datafile: ")
        ):
            path = folder / f"a{suffix}"
            path.write_text((META if suffix[1] == "m" else NRRD) + spelled + where + "\n\n")
            for reason in open_both(path):
                assert "another file" in reason or "voxels" in reason, (what, reason)
                assert str(tmp_path) not in reason.replace(str(secret), "")


def test_a_header_that_readers_understand_differently_is_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    secret = tmp_path / "secret.bin"
    tricks = {
        "a.mha": [
            # MetaIO takes the line behind an empty value for the value.
            f"{META}Comment =\nElementDataFile = LOCAL\nElementDataFile = {secret}\n",
            f"{META}elementdatafile = LOCAL\nElementDataFile = {secret}\n",
            f"{META}Comment = a\rElementDataFile = {secret}\nElementDataFile = LOCAL\n",
            f"{META}Comment = ElementDataFile = LOCAL\n",
            META,
        ],
        "a.nrrd": [
            f"{NRRD}   \ndata file: {secret}\n\n",
            f"{NRRD}# a comment\rdata file: {secret}\n\n",
            f"{NRRD} DATA FILE: {secret}\n\n",
            f"{NRRD.replace('raw', 'gzip')}byte skip: 2\n\n",
        ],
    }
    for name, contents in tricks.items():
        for content in contents:
            (tmp_path / name).write_bytes(content.encode() + bytes(64))
            for reason in open_both(tmp_path / name):
                assert "voxels" in reason, (content, reason)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_a_detached_header_opens_the_plain_file_beside_it(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(tmp_path / name))
    assert np.array_equal(read_image(tmp_path / name, MANY).array, VOXELS.T)
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(tmp_path / name), True)
    assert np.array_equal(read_image(tmp_path / name, MANY).array, VOXELS.T)


BOMBS = {
    "nrrd, more than the header says": (".nrrd", "nrrd", (4, 4, 4), 1 << 26),
    "mha, more than the header says": (".mha", "mha", (4, 4, 4), 1 << 26),
    "nii.gz, more than the header says": (".nii.gz", "nii", (4, 4, 4), 1 << 26),
    "nrrd of doubles": (".nrrd", "nrrd double", (900, 1000, 1000), 1 << 20),
    "mha of doubles": (".mha", "mha double", (900, 1000, 1000), 1 << 20),
    "nii.gz of doubles": (".nii.gz", "nii double", (900, 1000, 1000), 1 << 20),
}


def compressed(count, wbits):
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    zeros, parts = bytes(1 << 20), []
    for _ in range(-(-count // len(zeros))):
        parts.append(packer.compress(zeros))
    return b"".join([*parts, packer.flush()])


def bomb(kind, shape, count):
    sizes, double = " ".join(map(str, shape)), "double" in kind
    if kind.startswith("nrrd"):
        head = NRRD.replace("4 4 4", sizes).replace("unsigned char", "double" if double else "uchar")
        head = head.replace("raw", "gzip") + "endian: little\n\n"
        return head.encode() + compressed(count, 31)
    if kind.startswith("mha"):
        head = META.replace("4 4 4", sizes).replace("UCHAR", "DOUBLE" if double else "UCHAR")
        return (head + "CompressedData = True\nElementDataFile = LOCAL\n").encode() + compressed(count, 15)
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64 if double else np.uint8)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = header.single_magic, 352
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    parts = [packer.compress(header.binaryblock + bytes(4))]
    parts += [packer.compress(zeros) for _ in range(count >> 20)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_costs_no_more_memory_than_its_header_says(tmp_path, name):
    suffix, kind, shape, count = BOMBS[name]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bomb(kind, shape, count))
    with pytest.raises(ImageTooLargeError if "doubles" in name else ImageError, match=r"bytes"):
        read_image(path, MANY)


def test_other_encodings_of_nrrd_open_as_before(tmp_path):
    path = tmp_path / "a.nrrd"
    bodies = {
        "raw": VOXELS.tobytes(),
        "gzip": gzip.compress(VOXELS.tobytes()),
        "gz": gzip.compress(VOXELS.tobytes()),
        "ascii": " ".join(map(str, VOXELS.ravel())).encode(),
        "text": " ".join(map(str, VOXELS.ravel())).encode(),
        "hex": VOXELS.tobytes().hex().encode(),
    }
    for encoding, body in bodies.items():
        path.write_bytes(
            NRRD.replace("raw", encoding).encode() + b"# a comment\nkey:=data file: x\n\n" + body
        )
        assert np.array_equal(read_image(path, MANY).array, VOXELS.T), encoding
    image = read_image(path, MANY)
    for encoding, body in {**bodies, "bzip2": bz2.compress(VOXELS.tobytes())}.items():
        if encoding != "hex":
            path.write_bytes(NRRD.replace("raw", encoding).encode() + b"\n" + body)
            assert np.array_equal(read_labels(path, image).array, VOXELS.T), encoding
