"""What a person would otherwise look for in every review."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "apps" / "biosam2"

# A longer file holds more than one concept.
LONGEST_FILE = 300
# A longer function does more than one thing.
LONGEST_FUNCTION = 40
# Lists of exact versions, of which only the names of packages matter.
GENERATED = ("constraints.txt",)
# Folders of one machine, and hosts of package registries: a clone on another machine has neither.
FOREIGN = re.compile(
    r"(?<![\w./<-])/(?:home|root|work|workspace|Users)/\w"
    r"|/tmp/\w{1,8}/"
    r"|https?://(?:[\w.-]*\.)?(?:pypi\.org|pythonhosted\.org|conda\.anaconda\.org|download\.pytorch\.org)"
    r"|https?://[\w.-]*(?:artifactory|nexus|registry|mirror|proxy)[\w.-]*[:/]"
)


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        # An archive of the repository has no git; everything in it was tracked.
        hidden = {".venv", ".git", "__pycache__", "studies", "outputs"}
        found = [path for path in REPOSITORY.rglob("*") if not hidden & set(path.parts)]
        return sorted(path for path in found if path.is_file())
    return [path for name in listed.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


def _python() -> list[Path]:
    return [path for path in _tracked() if path.suffix == ".py"]


def _library() -> list[Path]:
    return [path for path in _python() if APP in path.parents]


def _ids(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", _python(), ids=_ids)
def test_a_file_is_short_enough_to_hold_one_concept(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{path.name} has {lines} lines; {LONGEST_FILE} are the limit: split it"


@pytest.mark.parametrize("path", _library(), ids=_ids)
def test_functions_are_short_enough_to_do_one_thing(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= LONGEST_FUNCTION, f"{path.name}: {node.name} has {lines} lines of code"


@pytest.mark.parametrize("path", _library(), ids=_ids)
def test_the_library_does_not_print(path: Path) -> None:
    if path.name == "__main__.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path.name}:{node.lineno} prints; log it or return it"


@pytest.mark.parametrize("path", _library(), ids=_ids)
def test_a_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [tree, *(node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))]
    for node in named:
        name = getattr(node, "name", path.name)
        assert name.startswith("_") or ast.get_docstring(node), f"{path.name}: {name} has no docstring"


@pytest.mark.parametrize("path", _library(), ids=_ids)
def test_no_mutable_global(path: Path) -> None:
    """A module's own list, dict or set under a name in lower case is a variable that anybody can change."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node.value, (ast.List, ast.Dict, ast.Set)):
                constant = target.id.lstrip("_").isupper() or target.id == "__all__"
                assert constant, f"{path.name}:{node.lineno}: {target.id} can be changed by anybody"


def test_no_tracked_file_names_a_folder_of_one_machine_or_a_registry() -> None:
    found = []
    for path in _tracked():
        if path.name in GENERATED or path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or weights
        found += [f"{_ids(path)}: {match.group(0)}" for match in FOREIGN.finditer(text)]
    assert found == []


def test_a_unit_test_has_the_name_of_the_file_that_it_tests() -> None:
    missing = []
    for folder in sorted((REPOSITORY / "tests" / "unit").iterdir()):
        home = APP / "lib" / folder.name
        for test in sorted(folder.rglob("test_*.py")) if home.is_dir() else []:
            tested = home / test.relative_to(folder).with_name(test.name.removeprefix("test_"))
            if not tested.exists() and not tested.with_suffix("").is_dir():
                missing.append(_ids(test))
    assert missing == [], "these test no file of their name"
