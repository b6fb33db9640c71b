import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
FILES = ("requirements.txt", "requirements-dev.txt", "requirements-viewers.txt")
PYTHONS = ("3.10", "3.11", "3.12")


def lines(name):
    return [
        line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith(("#", "-r"))
    ]


def requirements(name):
    return [Requirement(line.split("#")[0]) for line in lines(name)]


@pytest.mark.parametrize("name", [*FILES, "requirements-openvino.txt", "requirements-ray.txt"])
def test_every_ceiling_has_its_reason(name):
    for line in lines(name):
        requirement, _, reason = line.partition("#")
        if re.search(r"<|==", requirement):
            assert len(reason.split()) >= 3, line


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_requirement_has_one_exact_version_that_satisfies_it(python, platform):
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": platform}
    pins = {}
    for pin in requirements("constraints.txt"):
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            assert name not in pins, f"{name} is there twice"
            pins[name] = pin.specifier
    for name in FILES:
        for requirement in requirements(name):
            (version,) = pins[canonicalize_name(requirement.name)]
            assert version.operator == "=="
            assert requirement.specifier.contains(version.version), requirement


def test_the_exact_versions_come_from_no_place_of_ones_own():
    for line in lines("constraints.txt"):
        assert not re.search(r"@|file:|https?:|\+|/", line), line
