"""OHIF's page with the toolbar and without it, and the toolbar's files."""

import pytest

from lib.server.pages import COMPANION, VIEWER, documents

SCRIPT = '<script type="module" src="/ohif/companion/companion.js"></script>'
STYLE = '<link rel="stylesheet" href="/ohif/companion/companion.css">'


@pytest.mark.parametrize("path", ["", "index.html", "monai-label"])
def test_ohifs_page_gets_the_toolbar_on_its_way_out(serve, path):
    before = (VIEWER / "index.html").read_text(encoding="utf-8")
    added = serve(documents, ohif_companion=True).get(f"/ohif/{path}").text
    assert added.count(SCRIPT) == 1
    assert added.replace(SCRIPT, "").replace(STYLE, "") == before
    assert serve(documents, ohif_companion=False).get(f"/ohif/{path}").text == before


def test_the_toolbars_files_are_scripts_and_a_style_sheet_and_no_others(serve):
    web = serve(documents, ohif_companion=True)
    for file in COMPANION.iterdir():
        answer = web.get(f"/ohif/companion/{file.name}")
        assert answer.text == file.read_text(encoding="utf-8")
        assert answer.headers["content-type"].startswith(
            {".js": "text/javascript", ".css": "text/css"}[file.suffix]
        )
    for name in ("main.py", "none.js"):
        assert web.get(f"/ohif/companion/{name}").status_code == 404
