"""Archives that want to leave their folder, or fill the disk."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.errors import ImageError, ImageTooLargeError
from lib.server import sessions
from lib.server.sessions import unpack

MANY = 1 << 30


def tar_of(*members: tuple[str, bytes | None, str], mode: str = "w") -> bytes:
    """An archive of (name, content, kind); ``content`` of a link is its target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            if kind == "file":
                info.size = len(content or b"")
                archive.addfile(info, io.BytesIO(content or b""))
            else:
                info.type = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}[kind]
                info.linkname = (content or b"").decode()
                archive.addfile(info)
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes], link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if link else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    def run(content: bytes, max_bytes: int = MANY) -> dict[str, bytes]:
        archive, folder = tmp_path / "archive", tmp_path / "inner" / "folder"
        archive.write_bytes(content)
        folder.mkdir(parents=True)
        unpack(archive, folder, max_bytes)
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    return run


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_files_and_folders_are_unpacked(unpacked: Callable[..., dict[str, bytes]], mode: str) -> None:
    members = (("a/b/1.dcm", b"one"), ("2.dcm", b"two"))
    content = zip_of(*members) if mode == "zip" else tar_of(*((*item, "file") for item in members), mode=mode)
    assert unpacked(content) == dict(members)


BAD = {
    "absolute": tar_of(("/tmp/slipped", b"x", "file")),
    "parent": tar_of(("../slipped", b"x", "file")),
    "parent inside": tar_of(("a/../../slipped", b"x", "file")),
    "link": tar_of(("link", b"/etc", "link")),
    "link and through it": tar_of(("link", b"..", "link"), ("link/slipped", b"x", "file")),
    "hard link": tar_of(("hard", b"/etc/passwd", "hard")),
    "pipe": tar_of(("pipe", None, "pipe")),
    "long name": tar_of(("n" * 100_000, b"x", "file")),
    "file as a folder": tar_of(("a", b"x", "file"), ("a/b", b"x", "file")),
    "twice": tar_of(("a", b"x", "file"), ("a", b"y", "file")),
    "cut off": tar_of(("a", bytes(100_000), "file"), mode="w:gz")[:-40],
    "zip absolute": zip_of(("/tmp/slipped", b"x")),
    "zip parent": zip_of(("../slipped", b"x")),
    "zip windows": zip_of(("..\\slipped", b"x"), ("C:\\slipped", b"x")),
    "zip link": zip_of(("link", b"/etc"), link=True),
    "no archive": b"these are not the bytes of an archive" * 100,
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_nothing_leaves_the_folder(
    unpacked: Callable[..., dict[str, bytes]], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ImageError, match=r".{20}"):
        unpacked(BAD[name])
    inside = tmp_path / "inner" / "folder"
    outside = [path for path in tmp_path.rglob("*") if inside not in path.parents and path.is_file()]
    assert [path.name for path in outside] == ["archive"]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert not Path("/tmp/slipped").exists()


def test_a_bomb_stops_at_the_limit(
    unpacked: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sessions, "ALWAYS_ALLOWED", 1 << 20)
    bomb = zip_of(*((str(number), bytes(1 << 24)) for number in range(3)))
    with pytest.raises(ImageTooLargeError, match="too many bytes"):
        unpacked(bomb)
    assert len(bomb) * sessions.MAX_RATIO < 1 << 25
    written = sum(path.stat().st_size for path in (tmp_path / "inner").rglob("*") if path.is_file())
    assert written <= len(bomb) * sessions.MAX_RATIO


def test_the_number_of_files_is_bounded(
    unpacked: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_FILES", 3)
    with pytest.raises(ImageTooLargeError, match="files"):
        unpacked(tar_of(*((str(number), b"x", "file") for number in range(5))))
