"""Video files in and films with masks out; the clips are written and read with PyAV itself."""

import av
import numpy as np
import pytest

from lib.errors import ImageError, ImageTooLargeError
from lib.images.reading import read_image
from lib.images.writing import write_mask

LIMIT = 10**6
SIZE = (64, 48)  # width and height
FRAMES = 12


def clip(path, codec, pix_fmt, frames=FRAMES, size=SIZE):
    """A bright square that moves to the right on a dark ground, red where there are colours."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for t in range(frames):
            pixels = np.full((height, width, 3), 20, np.uint8)
            pixels[16:32, 2 * t : 2 * t + 16, 0] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt"),
    [(".mp4", "mpeg4", "yuv420p"), (".avi", "mjpeg", "yuvj420p"), (".avi", "ffv1", "gray")],
)
def test_frames_are_slices_x_y_t(tmp_path, ending, codec, pix_fmt):
    image = read_image(clip(tmp_path / f"clip{ending}", codec, pix_fmt), LIMIT)
    assert image.shape == (*SIZE, FRAMES)
    assert image.is_rgb == (pix_fmt != "gray")
    assert not image.is_2d
    assert image.format == "video"
    bright = image.array[..., 0] if image.is_rgb else image.array
    for t in range(FRAMES):
        assert bright[2 * t + 8, 24, t] > bright[60, 40, t] + 30
        assert bright[:, :, t].argmax(axis=0)[24] in range(2 * t, 2 * t + 16)


def test_what_cannot_be_opened_says_why(tmp_path):
    good = clip(tmp_path / "good.mp4", "mpeg4", "yuv420p", frames=40)
    with pytest.raises(ImageTooLargeError, match="max_voxels"):
        read_image(good, SIZE[0] * SIZE[1] * 20)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(good.read_bytes()[:400])
    with pytest.raises(ImageError, match=r"cut\.mp4"):
        read_image(cut, LIMIT)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(ImageError, match="no video"):
        read_image(tmp_path / "sound.mp4", LIMIT)


def test_a_clip_with_fewer_frames_than_its_header_counts_is_refused(tmp_path):
    for name, codec, pix_fmt in (
        ("a.avi", "ffv1", "gray"),
        ("c.avi", "mjpeg", "yuvj420p"),
        ("b.avi", "mpeg4", "yuv420p"),
    ):
        good = clip(tmp_path / name, codec, pix_fmt, frames=100)
        whole = good.read_bytes()
        assert read_image(good, LIMIT).shape == (*SIZE, 100)
        damages = {f"cut at {share}": whole[: int(len(whole) * share)] for share in (0.3, 0.6)}
        start, stop = len(whole) // 2, int(len(whole) * 0.7)
        damages["zeroed in the middle"] = whole[:start] + bytes(stop - start) + whole[stop:]
        for number, data in enumerate(damages.values()):
            damaged = tmp_path / f"{number}{name}"
            damaged.write_bytes(data)
            with pytest.raises(ImageError, match=r"cut off or damaged|Invalid data"):
                read_image(damaged, LIMIT)
    # Only the index at the end is lost: every frame is there.
    (tmp_path / "no index.avi").write_bytes(whole[: int(len(whole) * 0.98)])
    assert read_image(tmp_path / "no index.avi", LIMIT).shape == (*SIZE, 100)


def test_a_header_that_counts_too_few_frames_loses_none(tmp_path):
    good = clip(tmp_path / "a.avi", "ffv1", "gray", frames=30)
    data = bytearray(good.read_bytes())
    for place in (data.index(b"avih") + 24, data.index(b"strh") + 40):  # dwTotalFrames and dwLength
        data[place : place + 4] = (7).to_bytes(4, "little")
    (tmp_path / "b.avi").write_bytes(data)
    found, expected = (read_image(tmp_path / name, LIMIT).array for name in ("b.avi", "a.avi"))
    assert np.array_equal(found, expected)


def test_a_playlist_that_is_called_a_video_opens_no_other_file(tmp_path):
    good = clip(tmp_path / "good.mp4", "mpeg4", "yuv420p")
    playlists = {
        "list.mp4": f"#EXTM3U\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n",
        "list.avi": f"ffconcat version 1.0\nfile '{good}'\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ImageError):
            read_image(tmp_path / name, LIMIT)


def test_a_film_shows_the_mask_in_colour(tmp_path):
    image = read_image(clip(tmp_path / "clip.avi", "ffv1", "gray", size=(63, 47)), LIMIT)
    labels = np.zeros(image.shape, np.uint8)
    labels[40:60, 5:15, 6] = 1
    film = write_mask(labels, image, ".mp4")
    try:
        shown = read_image(film, LIMIT)
    finally:
        film.unlink()
    assert shown.shape == (64, 48, FRAMES)
    red, green, blue = shown.array[50, 10, 6].astype(int)
    assert red > max(green, blue) + 40, "the first colour is vermillion"
    assert np.ptp(shown.array[50, 10, 5].astype(int)) < 20, "a frame without the object is grey"
