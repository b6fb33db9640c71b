import re
from pathlib import Path

import yaml

from docs.write_settings import PAGE, settings_page

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_it_is_short():
    assert len(README.splitlines()) <= 200


def test_the_page_of_settings_is_up_to_date():
    assert PAGE.read_text() == settings_page(), "run `make docs`"


def test_every_model_is_in_the_table_with_its_licence_and_input_size():
    registry = yaml.safe_load((ROOT / "apps/biosam2/model/registry.yaml").read_text())["weights"]
    rows = [line.split("|")[1:5] for line in section("Models").splitlines() if line.startswith("| `")]
    listed = {name: row for row in rows for name in re.findall(r"`([\w.]+)`", row[0])}
    assert sorted(listed) == sorted(registry)
    for name, entry in registry.items():
        size = entry["image_size"]
        assert listed[name][1].strip() == entry["licence"]
        assert listed[name][2].strip() == f"{size['cuda']} / {size['cpu']}"


def test_every_file_that_a_page_points_to_is_there():
    missing = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text()):
            if not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert missing == []
