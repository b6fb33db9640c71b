"""Compares pinned packages with a copy of the PyPA advisory database, where PyPI itself cannot be asked.

``python -m docs.audit ADVISORIES constraints.txt``, where ADVISORIES is a clone of
github.com/pypa/advisory-database.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def main(argv: Sequence[str] | None = None) -> int:
    """Prints each finding; the exit status is 1 where there is one."""
    parser = argparse.ArgumentParser(prog="python -m docs.audit", description=__doc__)
    parser.add_argument("advisories", type=Path, help="clone of github.com/pypa/advisory-database")
    parser.add_argument("constraints", type=Path, help="file of pinned packages")
    options = parser.parse_args(argv)
    files = sorted(options.advisories.glob("vulns/*/*.yaml"))
    if not files:
        parser.error(f"{options.advisories} holds no vulns/<package>/<advisory>.yaml")
    pins = read_pins(options.constraints)
    found = [line for file in files for line in findings(file, pins.get(file.parent.name, set()))]
    summary = f"{len(pins)} packages, {len(files)} advisories, {len(found)} findings"
    sys.stdout.write("\n".join([*found, summary]) + "\n")
    return int(bool(found))


def read_pins(path: Path) -> dict[str, set[Version]]:
    """The pinned versions of each package; several where they depend on the platform.

    Args:
        path: File with a line ``name==version`` for each package.
    """
    pins: dict[str, set[Version]] = {}
    for line in path.read_text().splitlines():
        if "==" in (text := line.split("#")[0].strip()):
            pin = Requirement(text)
            versions = {Version(each.version) for each in pin.specifier}
            pins.setdefault(canonicalize_name(pin.name), set()).update(versions)
    return pins


def findings(file: Path, versions: set[Version]) -> Iterator[str]:
    """A line for each version that an advisory names.

    Args:
        file: Advisory in OSV's format, in a folder of the package's name.
        versions: Pinned versions of that package.
    """
    if not versions:
        return
    advisory = yaml.safe_load(file.read_text())
    if advisory.get("withdrawn"):
        return
    names = ", ".join([advisory["id"], *advisory.get("aliases", ())])
    for version in sorted(versions):
        if any(_is_affected(version, part) for part in advisory["affected"]):
            yield f"{file.parent.name} {version}: {names}"


def _is_affected(version: Version, part: dict) -> bool:
    listed = str(version) in part.get("versions", ())
    spans = [each["events"] for each in part.get("ranges", ()) if each["type"] == "ECOSYSTEM"]
    return listed or any(_lies_in(version, events) for events in spans)


def _lies_in(version: Version, events: Sequence[dict[str, str]]) -> bool:
    """Whether the last event of a range that applies to a version introduced the vulnerability."""
    inside = False
    for event in events:
        (kind, text), *_ = event.items()
        bound = Version(text)
        if kind == "introduced":
            inside = inside or version >= bound
        else:
            ended = version > bound if kind == "last_affected" else version >= bound
            inside = inside and not ended
    return inside


if __name__ == "__main__":
    sys.exit(main())
