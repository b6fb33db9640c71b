"""Video files in and films with masks out; the clips are written and read with PyAV itself."""

import av
import numpy as np
import pytest

from lib.errors import ImageError, ImageTooLargeError
from lib.images import video
from lib.images.reading import read_image
from lib.images.writing import write_mask
from lib.prompts.views import ViewGrid
from lib.transforms.frames import FrameStack

LIMIT = 10**6
SIZE = (64, 48)  # width and height
FRAMES = 12


def clip(path, codec, pix_fmt, frames=FRAMES, size=SIZE, options=None, faststart=False):
    """A bright square that moves to the right on a dark ground, red where there are colours."""
    width, height = size
    first = {"movflags": "faststart"} if faststart and path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=first) as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for t in range(frames):
            pixels = np.full((height, width, 3), 20, np.uint8)
            pixels[16:32, 2 * t % width : 2 * t % width + 16, 0] = 220
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
    if not image.is_rgb:
        view = ViewGrid(np.eye(4)[[2, 1, 0, 3]], image.shape[::-1])
        assert np.array_equal(view.image(image.array), np.asarray(image.array).transpose(2, 1, 0))


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


def test_damage_within_frames_is_refused_and_trimmed_or_uneven_clips_are_opened(tmp_path):
    kinds = (("a.avi", "mjpeg", "yuvj420p"), ("b.mp4", "libx264", "yuv420p"), ("c.mp4", "mpeg4", "yuv420p"))
    for name, codec, pix_fmt in kinds:
        good = clip(tmp_path / name, codec, pix_fmt, frames=60, options={"g": "10"}, faststart=True)
        whole, shape = good.read_bytes(), (*SIZE, 60, 3)
        reference = read_image(good, LIMIT).array
        assert reference.shape == shape
        damages = [(int(len(whole) * share), len(whole)) for share in (0.55, 0.8, 0.99)]
        damages += [(len(whole) // 2, len(whole) // 2 + size) for size in (100, 400)]
        for start, stop in damages:
            data = whole[:start] + (bytes(stop - start) if stop < len(whole) else b"") + whole[stop:]
            (tmp_path / name).write_bytes(data)
            if name == "a.avi" and start > 0.9 * len(whole):  # only the index behind the frames is lost
                assert np.array_equal(read_image(tmp_path / name, LIMIT).array, reference)
                continue
            with pytest.raises(ImageError, match=r"cut off or damaged|Invalid data"):
                read_image(tmp_path / name, LIMIT)
    whole = clip(tmp_path / "whole.mp4", "libx264", "yuv420p", frames=40, options={"g": "10", "bf": "0"})
    trimmed = remuxed(whole, tmp_path / "trimmed.mp4", first=10, moved=-15)
    uneven = remuxed(whole, tmp_path / "uneven.mp4", first=0, moved=0, pause=35)
    before = read_image(whole, LIMIT).array
    assert np.array_equal(read_image(trimmed, LIMIT).array, before[:, :, 15:])
    assert np.array_equal(read_image(uneven, LIMIT).array, before)


def remuxed(source, path, first, moved, pause=0):
    """A copy from packet ``first`` on, ``moved`` by so many frames, with a ``pause`` behind the 20th."""
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.dts is None or number < first:
                continue
            step = int(1 / (10 * packet.time_base))
            later = (moved + (pause if number >= 20 else 0)) * step
            packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, stream
            new.mux(packet)
    return path


def test_frames_are_decoded_in_any_order_and_few_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "KEPT_BYTES", 7 * SIZE[0] * SIZE[1] * 3)
    rng = np.random.default_rng(0)
    for name, codec, options in (
        ("a.mp4", "libx264", {"g": "12"}),
        ("b.mp4", "libx264", {"g": "12", "x264-params": "open-gop=1"}),
        ("c.avi", "mjpeg", {}),
        ("d.avi", "mpeg4", {"bf": "2"}),
        ("e.mkv", "ffv1", {}),
    ):
        path = clip(
            tmp_path / name, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p", 50, options=options
        )
        with av.open(str(path)) as container:
            expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        image = read_image(path, LIMIT)
        path.unlink()
        order = [*range(50), *reversed(range(50)), *rng.integers(0, 50, 40).tolist()]
        for t in order:
            assert np.array_equal(image.array[:, :, t].swapaxes(0, 1), expected[t]), (name, t)
        assert image.array.nbytes <= 7 * SIZE[0] * SIZE[1] * 3 < np.asarray(image.array).nbytes
        column = FrameStack(image.array, 0, image.window())[30]
        assert np.array_equal(column, np.stack([frame[:, 30] for frame in expected]))
        with pytest.raises(IndexError, match="50"):
            image.array[:, :, 50]
        corners = np.array([0, -1])
        assert np.array_equal(image.array[corners, corners, 3], expected[3].swapaxes(0, 1)[corners, corners])
        with pytest.raises(ValueError, match="read-only"):
            image.array[:, :, 3][0] = 0


def test_a_clip_that_changes_while_it_is_read_is_refused(tmp_path):
    path = clip(tmp_path / "a.avi", "mjpeg", "yuvj420p", frames=30)
    image = read_image(path, LIMIT)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="has changed since it was opened"):
        image.array[:, :, 28]


def test_plain_frames_that_opencv_wrote_are_opened(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, SIZE)
    for level in (0, 128, 255):
        writer.write(np.full((SIZE[1], SIZE[0], 3), level, np.uint8))
    writer.release()
    image = read_image(tmp_path / "a.avi", LIMIT)
    assert np.abs(image.array[32, 24, :, 0].astype(int) - [0, 128, 255]).max() < 4
