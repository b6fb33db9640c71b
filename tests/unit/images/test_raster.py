"""Pictures: columns first, depth kept, colours as they are."""

import zlib

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from lib.errors import ImageError, ImageTooLargeError
from lib.images.medical_image import make_image
from lib.images.raster import read_raster

MANY = 10**9


def test_a_pixel_off_the_diagonal_is_at_its_column_and_row(tmp_path):
    for suffix in [".png", ".jpg", ".bmp", ".tif"]:
        for mode in ["L", "RGB"]:
            picture = Image.new(mode, (30, 20))
            picture.paste("white", (24, 8, 32, 16))
            picture.save(tmp_path / f"a{suffix}")
            found = read_raster(tmp_path / f"a{suffix}", MANY)
            assert found.is_2d
            assert found.array.shape == ((30, 20, 1) if mode == "L" else (30, 20, 1, 3))
            assert (found.array[26, 10] > 200).all()
            assert (found.array[10, 16] < 50).all()
            assert found.array.dtype == np.uint8


def test_16_bit_greys_keep_their_depth(tmp_path):
    greys = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    for suffix in (".png", ".tif"):
        Image.fromarray(greys).save(tmp_path / f"a{suffix}")
        found = read_raster(tmp_path / f"a{suffix}", MANY).array
        assert np.array_equal(found[:, :, 0], greys.T)
        assert found.dtype == np.uint16


def test_float_greys_keep_their_values(tmp_path):
    greys = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(greys).save(tmp_path / "a.tif")
    assert np.array_equal(read_raster(tmp_path / "a.tif", MANY).array[:, :, 0], greys.T)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, [255]),
        ("LA", (90, 30), [90]),
        ("RGBA", (10, 20, 30, 40), [10, 20, 30]),
        ("P", None, [0, 0, 0]),
        ("PA", None, [0, 0, 0]),
    ],
)
def test_other_modes_become_grey_or_colours(tmp_path, mode, value, expected):
    picture = Image.new(mode, (4, 3)) if value is None else Image.new(mode, (4, 3), value)
    suffix = ".tif" if mode == "PA" else ".png"
    picture.save(tmp_path / f"a{suffix}")
    assert np.atleast_1d(read_raster(tmp_path / f"a{suffix}", MANY).array[1, 2, 0]).tolist() == expected


def test_a_palette_gives_its_colours(tmp_path):
    picture = Image.new("RGB", (6, 4), (200, 30, 60)).convert("P", palette=Image.Palette.ADAPTIVE)
    picture.save(tmp_path / "a.png")
    assert read_raster(tmp_path / "a.png", MANY).array[0, 0, 0].tolist() == [200, 30, 60]


def test_pages_of_one_size_are_a_volume_as_itk_shows_it(tmp_path):
    path = tmp_path / "stack.tif"
    for dtype, shape in (("u1", ()), ("u2", ()), ("i2", ()), ("f4", ()), ("u1", (3,))):
        stack = np.random.default_rng(0).integers(0, 100, (5, 20, 30, *shape)).astype(dtype)
        colour = {"photometric": "rgb" if shape else "minisblack"}
        for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">"}):
            tifffile.imwrite(path, stack, **colour, **options)
            check_stack(path, stack, (dtype, shape, options))
        for compressor in ("LZW", "PackBits"):
            volume = sitk.GetImageFromArray(stack, isVector=bool(shape))
            sitk.WriteImage(volume, str(path), useCompression=True, compressor=compressor)
            check_stack(path, stack, (dtype, shape, compressor))
    with pytest.raises(ImageTooLargeError, match="30 x 20 x 5 = 3000 voxels"):
        read_raster(path, 2999)


def check_stack(path, stack, words):
    found = read_raster(path, MANY)
    assert (found.is_2d, found.array.dtype) == (False, stack.dtype), words
    np.testing.assert_array_equal(found.array.swapaxes(0, 2), stack, err_msg=str(words))
    if "tile" not in str(words):  # ITK makes colours of these
        shown = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(shown, stack, err_msg=str(words))


def test_pages_of_other_sizes_and_animations(tmp_path):
    page, thumbnail = Image.new("L", (30, 20)), Image.new("L", (3, 2))
    page.save(tmp_path / "odd.tif", save_all=True, append_images=[page, thumbnail])
    with pytest.raises(ImageError, match="page 3 of its 3 pages has another size"):
        read_raster(tmp_path / "odd.tif", MANY)
    page.save(tmp_path / "moving.png", save_all=True, append_images=[Image.new("L", (30, 20), 9)])
    with pytest.raises(ImageError, match="animation of 2 frames"):
        read_raster(tmp_path / "moving.png", MANY)
    page.save(tmp_path / "pyramid.tif", save_all=True, append_images=[thumbnail])
    assert read_raster(tmp_path / "pyramid.tif", MANY).array.shape == (30, 20, 1)


def test_colours_of_16_bits_are_as_bright_as_the_bits_that_they_use(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (20, 30, 3))
    levels[0, 0] = 255
    for bits in (8, 10, 12, 14, 16):
        deep = np.rint(levels * ((2**bits - 1) / 255)).astype(np.uint16)
        itk = sitk.GetImageFromArray(deep, isVector=True)
        tifffile.imwrite(tmp_path / "plain.tif", deep, photometric="rgb")
        tifffile.imwrite(tmp_path / "zlib.tif", deep, photometric="rgb", compression="zlib", predictor=True)
        planes = np.ascontiguousarray(deep.transpose(2, 0, 1))
        tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
        sitk.WriteImage(itk, str(tmp_path / "lzw.tif"), useCompression=True, compressor="LZW")
        sitk.WriteImage(itk, str(tmp_path / "deep.png"))
        for name in ("plain.tif", "zlib.tif", "planes.tif", "lzw.tif", "deep.png"):
            found = read_raster(tmp_path / name, MANY).array
            assert np.abs(found[:, :, 0].swapaxes(0, 1).astype(int) - levels).max() <= 1, (bits, name)


def test_no_kind_of_image_is_turned_by_its_orientation(tmp_path):
    """A mask fits the pixels of the file; ITK's viewers and QuPath show these."""
    greys = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
    for number in range(1, 9):
        for compression in (None, "zlib"):
            tags = [(274, "H", 1, number, True)]
            tifffile.imwrite(tmp_path / "a.tif", greys, extratags=tags, compression=compression)
            assert np.array_equal(read_raster(tmp_path / "a.tif", MANY).array[:, :, 0].T, greys)
        exif = Image.Exif()
        exif[274] = number
        Image.fromarray(greys).save(tmp_path / "a.png", exif=exif)
        Image.fromarray(greys).save(tmp_path / "a.tif", exif=exif, compression="tiff_lzw")
        for name in ("a.png", "a.tif"):
            assert np.array_equal(read_raster(tmp_path / name, MANY).array[:, :, 0].T, greys), (name, number)


def test_every_type_and_byte_order_of_tiff_greys(tmp_path):
    values = np.random.default_rng(0).integers(0, 120, (20, 30))
    for name in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"):
        stored = (values - 60 if name[0] != "u" else values).astype(name)
        for order in "<>":
            for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}):
                path = tmp_path / "a.tif"
                tifffile.imwrite(path, stored.astype(order + name), byteorder=order, **options)
                found = make_image(read_raster(path, MANY), path, "raster").array[:, :, 0].T
                np.testing.assert_array_equal(found, stored.astype(float), err_msg=f"{order}{name} {options}")
                tifffile.imwrite(
                    path, stored.astype(order + name), byteorder=order, photometric="miniswhite", **options
                )
                inverted = read_raster(path, MANY).array[:, :, 0].T.astype(float)
                assert np.ptp(inverted + stored) <= 1e-2 * (name == "f2"), "white is where zero was"


def test_channels_that_are_no_colours_and_bombs_are_refused(tmp_path):
    for channels in (4, 5, 7):
        stack = np.zeros((20, 30, channels), np.uint8)
        for options in ({"planarconfig": "contig"}, {"planarconfig": "separate"}):
            array = stack if options["planarconfig"] == "contig" else stack.transpose(2, 0, 1)
            tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **options)
            with pytest.raises(ImageError, match=f"{channels} channels; what can be opened is one"):
                read_raster(tmp_path / "a.tif", MANY)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(iter([zlib.compress(bytes(10**6))]), shape=(20, 30), dtype=np.uint16, compression="zlib")
    with pytest.raises(ImageError, match="unpacks to more than its 1200 bytes"):
        read_raster(tmp_path / "a.tif", MANY)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.float64))
    with pytest.raises(ImageTooLargeError, match="takes 4800 bytes"):
        read_raster(tmp_path / "a.tif", 600)
