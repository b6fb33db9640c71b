"""Slides from files: pyramids through OpenSlide, pictures, and files that were cut off."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from lib.errors import ImageError, ImageNotFoundError, ImageTooLargeError, PromptError
from lib.images.cache import ImageCache
from lib.pathology.opening import Pyramid, open_slide
from tests.support.slides import (
    APERIO,
    Cell,
    paint,
    write_dicom_slide,
    write_leica,
    write_slide,
    write_webp,
)

WIDTH, HEIGHT = 700, 520


@pytest.fixture(scope="module")
def pixels():
    return paint(WIDTH, HEIGHT, [Cell(500, 100, 15, 12, 0.3)], seed=0)


@pytest.fixture
def images():
    return ImageCache(1 << 24, max_voxels=WIDTH * HEIGHT)


@pytest.mark.parametrize(("name", "description"), [("a.tif", ""), ("a.tiff", ""), ("a.svs", APERIO)])
def test_a_pyramid_is_read_by_region(tmp_path, pixels, images, name, description):
    with open_slide(write_slide(tmp_path / name, pixels, description=description), images) as slide:
        assert isinstance(slide, Pyramid)
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert slide.downsamples == pytest.approx((1, 2, 4))
        assert np.array_equal(slide.read(480, 90, 40, 20), pixels[90:110, 480:520])
        quarter = pixels[40:200, 400:600].reshape(40, 4, 50, 4, 3).mean(axis=(1, 3))
        assert np.abs(slide.read(400, 40, 200, 160, scale=4) - quarter).max() <= 1
        # Between two levels: from the finer one.
        assert slide.read(400, 40, 180, 150, scale=3).shape == (50, 60, 3)
    assert images.nbytes == 0, "a pyramid is in nobody's memory"


def test_outside_a_pyramid_is_white(tmp_path, pixels, images):
    with open_slide(write_slide(tmp_path / "a.tif", pixels), images) as slide:
        region = slide.read(WIDTH - 3, HEIGHT - 2, 10, 10)
    assert np.array_equal(region[:2, :3], pixels[-2:, -3:])
    assert (region[2:] == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.bmp"])
def test_a_plain_picture_is_a_slide_too(tmp_path, pixels, images, name):
    Image.fromarray(pixels).save(tmp_path / name)
    with open_slide(tmp_path / name, images) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        error = np.abs(slide.read(480, 90, 40, 20) - pixels[90:110, 480:520].astype(int))
    assert error.mean() < 8


def test_greys_of_16_bits_are_windowed(tmp_path, images):
    greys = np.tile(np.linspace(200, 3800, 512), (256, 1)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", greys, tile=(256, 256), photometric="minisblack")
    with open_slide(tmp_path / "a.tif", images) as slide:
        row = slide.read(0, 100, 512, 1)[0, :, 0]
    assert row[10] < 20
    assert row[500] > 235


def test_a_scan_with_bounds_has_the_viewers_coordinates(tmp_path, pixels, images):
    with open_slide(write_leica(tmp_path / "a.scn", pixels, x=300, y=200), images) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert slide.mpp == pytest.approx(0.25)
        for x, y in ((0, 0), (480, 90), (WIDTH - 40, HEIGHT - 20)):
            assert np.array_equal(slide.read(x, y, 40, 20), pixels[y : y + 20, x : x + 40])
        assert (slide.read(-5, 10, 5, 5) == 255).all()


@pytest.mark.parametrize(
    ("description", "mpp"),
    [
        (APERIO, 0.25),
        ("Aperio Image Library v11.2.1\n|AppMag = 20|MPP = 0.499", 0.499),
        ("Aperio Image Library v11.2.1\n|AppMag = 20", 0.5),
        ("Aperio Image Library v11.2.1\n|AppMag = 40|MPP = 352.8", 0.25),
        ("Aperio Image Library v11.2.1\n|AppMag = much", None),
    ],
)
def test_the_pixel_size_is_measured_else_of_the_objective(tmp_path, pixels, images, description, mpp):
    with open_slide(write_slide(tmp_path / "a.svs", pixels, description=description), images) as slide:
        assert slide.mpp == (mpp and pytest.approx(mpp))


@pytest.mark.parametrize("name", ["a.tif", "a.svs"])
def test_webp_tiles_are_decoded(tmp_path, pixels, images, name):
    with open_slide(write_webp(tmp_path / name, pixels), images) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert np.array_equal(slide.read(200, 240, 120, 40), pixels[240:280, 200:320])
        outside = slide.read(WIDTH - 3, HEIGHT - 2, 10, 10)
    assert np.array_equal(outside[:2, :3], pixels[-2:, -3:])
    assert (outside[2:] == 255).all()


def test_a_dicom_whole_slide_is_a_slide(tmp_path, pixels, images):
    with open_slide(write_dicom_slide(tmp_path / "a.dcm", pixels, mpp=0.5), images) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert slide.mpp == pytest.approx(0.5)
        assert np.array_equal(slide.read(480, 90, 40, 20), pixels[90:110, 480:520])


def write_channels(path, planes, levels=1, **options):
    """An OME-TIFF of 16 bits, (C, H, W), with a pyramid."""
    names = ["CD3", "DAPI", "CD20"][: len(planes)]
    metadata = {"axes": "CYX", "Channel": {"Name": names}, "PhysicalSizeX": 0.325, "PhysicalSizeY": 0.325}
    with tifffile.TiffWriter(path, ome=True) as file:
        page = {"photometric": "minisblack", "compression": "zlib", **options}
        file.write(planes, subifds=levels - 1, metadata=metadata, **page)
        for level in range(1, levels):
            step = 2**level
            file.write(np.ascontiguousarray(planes[:, ::step, ::step]), subfiletype=1, **page)
    return path


@pytest.mark.parametrize("options", [{"tile": (256, 256)}, {"rowsperstrip": 64}])
def test_channels_of_fluorescence_are_chosen(tmp_path, images, options):
    planes = np.random.default_rng(0).integers(100, 200, (3, 520, 700)).astype(np.uint16)
    for channel, (x, y) in enumerate([(100, 100), (400, 300), (600, 100)]):
        planes[channel, y : y + 60, x : x + 60] = 3000 * (channel + 1)
    path = write_channels(tmp_path / "a.ome.tif", planes, levels=2, **options)

    def bright(channels, x, y):
        with open_slide(path, images, channels) as slide:
            assert (slide.width, slide.height, slide.mpp) == (700, 520, pytest.approx(0.325))
            assert slide.downsamples == pytest.approx((1, 2))
            return (slide.read(x + 20, y + 20, 8, 8).mean(axis=(0, 1)) > 200).tolist()

    assert bright((), 400, 300) == [True] * 3  # the nuclear stain by its name
    assert bright((), 100, 100) == [False] * 3
    assert bright(["CD3"], 100, 100) == bright(["0"], 100, 100) == [True] * 3
    assert bright(["CD20", "DAPI"], 600, 100) == [True, False, False]
    assert bright(["CD20", "DAPI"], 400, 300) == [False, True, False]
    with pytest.raises(PromptError, match=r"'CD4' .*available: 0 CD3, 1 DAPI, 2 CD20"):
        open_slide(path, images, ["CD4"])


def test_a_picture_that_is_no_pyramid_has_a_limit(tmp_path, images):
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(tmp_path / "a.tif")
    with pytest.raises(ImageTooLargeError, match="max_voxels"):
        open_slide(tmp_path / "a.tif", images)


@pytest.mark.parametrize("share", [0.999, 0.9, 0.7, 0.5, 0.2, 0.01, 0.0001])
@pytest.mark.parametrize(("suffix", "description"), [(".tif", ""), (".svs", APERIO)])
def test_a_slide_that_was_cut_off_is_refused(tmp_path, pixels, images, share, suffix, description):
    whole = write_slide(tmp_path / f"whole{suffix}", pixels, description=description).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        ImageError, match=r"^cut.* cannot be read as a slide: .*; copy or export it again$"
    ) as raised:
        open_slide(cut, images)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("suffix", [".tif", ".svs", ".ndpi", ".mrxs"])
def test_garbage_is_refused(tmp_path, images, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no slide " * 1000)
    with pytest.raises(ImageError, match=f"a{suffix}"):
        open_slide(path, images)


def test_damage_inside_a_slide_is_told_when_it_is_met(tmp_path, pixels, images):
    path = write_slide(tmp_path / "a.tif", pixels)
    with tifffile.TiffFile(path) as file:
        start, count = file.pages.first.dataoffsets[-1], file.pages.first.databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)
    with open_slide(path, images) as slide:
        assert slide.read(0, 0, 100, 100).shape == (100, 100, 3)
        with pytest.raises(ImageError, match="cannot be read as a slide"):
            slide.read(WIDTH - 50, HEIGHT - 5, 40, 4)


def test_stacks_and_volumes_are_no_slides(tmp_path, images):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 30, 40), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="volume of 5 slices"):
        open_slide(tmp_path / "a.tif", images)


def test_what_is_not_there(tmp_path, images):
    with pytest.raises(ImageNotFoundError, match=r"gone\.svs"):
        open_slide(tmp_path / "gone.svs", images)
