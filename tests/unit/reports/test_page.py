"""Pages, read back with the standard library's parser."""

import base64
import io
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.reports.page import Page
from lib.reports.pictures import png_bytes

NASTY = "<script>alert('x')</script> & \"y\" {title} %s"
PICTURE = png_bytes(np.full((20, 30, 3), (9, 99, 199), np.uint8))


class Read(HTMLParser):
    """Tags with their attributes, and the text inside each kind of tag."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.texts = {}
        self._open = []
        self.feed(page)
        assert self._open == [], "a tag is not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def full_page(text="some text"):
    page = Page(text)
    page.heading(text)
    page.heading(text, 3)
    page.paragraph(text)
    page.key_values({text: text, "n": 3, "nothing": None})
    page.table([text, "Dice"], [[text, "0.91"], ["b", 0.5]], caption=text)
    page.picture(PICTURE, text)
    return page


def test_every_text_is_there_and_none_becomes_html():
    page = full_page(NASTY).render()
    read = Read(page)
    assert "script" not in dict(read.tags)
    assert "<script" not in page
    for tag in ("title", "h1", "h2", "h3", "p", "th", "td", "caption"):
        assert NASTY in "".join(read.texts[tag]), tag
    assert dict(read.tags)["img"]["alt"] == NASTY


def test_nothing_comes_from_elsewhere():
    page = full_page().render()
    # In the base64 of a picture there is no colon.
    assert not re.search(r"https?:|//\w|@import|url\(|<link|<iframe|<script|<base", page)
    for _, attributes in Read(page).tags:
        assert not {"href", "srcset", "onload", "onclick", "action"} & set(attributes)
        assert attributes.get("src", "data:").startswith("data:")
    assert "default-src 'none'" in page


def test_light_dark_and_phone():
    page = full_page().render()
    assert "prefers-color-scheme: dark" in page
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in Read(page).tags
    assert 'lang="en"' in page


def test_a_picture_is_inside_and_whole():
    (picture,) = (attributes for tag, attributes in Read(full_page().render()).tags if tag == "img")
    data = base64.b64decode(picture["src"].removeprefix("data:image/png;base64,"), validate=True)
    image = Image.open(io.BytesIO(data))
    assert image.size == (30, 20)
    assert np.asarray(image)[0, 0].tolist() == [9, 99, 199]


def test_columns_of_numbers_are_set_to_the_right():
    page = Page("a")
    page.table(
        ["case", "Dice", "HD95", "spread", "note"],
        [
            ["case 1", 0.5, "3.1 mm", "0.91 \u00b1 0.02", "3 voxels were lost"],
            ["2_b", None, "inf", "-0.1 (-0.3 to 0.1)", "-"],
            ["3", "93.1%", "<1", "3/4", "5"],
        ],
    )
    heads = [attributes.get("class") for tag, attributes in Read(page.render()).tags if tag == "th"]
    assert heads == [None, "number", "number", "number", None]


def test_pairs_may_come_one_by_one():
    page = Page("a")
    page.key_values((name, len(name)) for name in ("one", "three"))
    assert Read(page.render()).texts["td"] == ["3", "5"]


def test_writing_and_writing_again(tmp_path):
    path = tmp_path / "report.html"
    full_page("first").write(path)
    full_page("second \u00e4\u4e2d").write(path)
    assert path.read_text(encoding="utf-8") == full_page("second \u00e4\u4e2d").render()
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_half_a_character_out_of_a_files_name_can_be_written(tmp_path):
    full_page("bad \udce4 name").write(tmp_path / "report.html")
    assert "bad ? name" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_page_survives_a_failing_write(tmp_path, monkeypatch, failing):
    path = tmp_path / "report.html"
    full_page("old").write(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[failing], full)
    with pytest.raises(OSError, match="No space left"):
        full_page("new").write(path)
    assert path.read_text(encoding="utf-8") == full_page("old").render()
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_who_reads_while_others_write_finds_a_whole_page(tmp_path):
    path = tmp_path / "report.html"
    pages = [full_page(f"number {number}") for number in range(8)]
    whole = {page.render() for page in pages}
    pages[0].write(path)
    with ThreadPoolExecutor(4) as pool:
        written = [pool.submit(page.write, path) for page in pages * 5]
        while not all(one.done() for one in written):
            assert path.read_text(encoding="utf-8") in whole
    for one in written:
        one.result()
    assert len(list(tmp_path.iterdir())) == 1
