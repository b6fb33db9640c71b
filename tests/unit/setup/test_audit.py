"""The comparison of pins with a copy of the advisory database."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.audit import main

ADVISORY = """
id: PYSEC-1
aliases: [CVE-1]
affected:
- package: {{name: some-tool, ecosystem: PyPI}}
  ranges:
  - type: ECOSYSTEM
    events: {events}
  versions: {versions}
"""


def _status(tmp_path: Path, pin: str, events: str, versions: str = "[]", more: str = "") -> int:
    folder = tmp_path / "vulns" / "some-tool"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "PYSEC-1.yaml").write_text(ADVISORY.format(events=events, versions=versions) + more)
    pins = tmp_path / "constraints.txt"
    pins.write_text(f"# pins\nother==1.0\nSome_Tool=={pin} ; python_version < '3.11'\n")
    return main([str(tmp_path), str(pins)])


def test_versions_inside_a_range_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = "[{introduced: '1.0'}, {fixed: '1.10'}]"
    last = "[{introduced: '0'}, {last_affected: '1.9'}]"
    twice = "[{introduced: '0'}, {fixed: '1.1'}, {introduced: '2.0'}, {fixed: '2.2'}]"
    cases = [
        *(("0.9", fixed, 0), ("1.0", fixed, 1), ("1.9", fixed, 1), ("1.10", fixed, 0)),
        *(("1.9", last, 1), ("1.9.1", last, 0)),
        *(("1.0", twice, 1), ("1.5", twice, 0), ("2.1", twice, 1), ("2.2", twice, 0)),
    ]
    for pin, events, status in cases:
        assert _status(tmp_path, pin, events) == status, (pin, events)
        assert ("some-tool " + pin + ": PYSEC-1, CVE-1" in capsys.readouterr().out) == bool(status)


def test_listed_versions_count_and_withdrawn_advisories_do_not(tmp_path: Path) -> None:
    assert _status(tmp_path, "3.1", "[{introduced: '5'}]", "['3.1']") == 1
    assert _status(tmp_path, "3.1", "[{introduced: '0'}]", more="withdrawn: '2024-01-01T00:00:00Z'") == 0


def test_a_folder_without_advisories_is_refused(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("other==1.0\n")
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / "constraints.txt")])
