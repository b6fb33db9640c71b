import re
from pathlib import Path

import yaml

from lib.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_setting_and_no_other_is_in_the_table():
    listed = re.findall(r"^\| `(\w+)` \|", section("Settings"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(Settings.model_fields)


def test_every_model_is_in_the_table_with_its_licence_and_input_size():
    registry = yaml.safe_load((ROOT / "apps/biosam2/model/registry.yaml").read_text())["weights"]
    rows = [
        line.split("|")[1:5] for line in section("Models and licences").splitlines() if line.startswith("| `")
    ]
    listed = {name: row for row in rows for name in re.findall(r"`([\w.]+)`", row[0])}
    assert sorted(listed) == sorted(registry)
    for name, entry in registry.items():
        size = entry["image_size"]
        assert listed[name][1].strip() == entry["licence"]
        assert listed[name][2].strip() == f"{size['cuda']} / {size['cpu']}"


def test_every_file_it_points_to_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_sections_that_the_benchmarks_fill_are_marked():
    for name in ("accuracy", "speed", "finetuning"):
        assert README.count(f"<!-- {name}: begin") == README.count(f"<!-- {name}: end -->") == 1
