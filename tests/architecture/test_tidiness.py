"""What a person would otherwise look for in every review."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "apps" / "biosam2"

# A longer file holds more than one concept.
LONGEST_FILE = 500
# A longer function does more than one thing.
LONGEST_FUNCTION = 40
# OHIF's toolbar is an addition to a viewer: lines of code in all its files, and characters of a line.
LARGEST_TOOLBAR = 900
LONGEST_SCRIPT_LINE = 130
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


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in _library():
        yield _name(path), ast.parse(path.read_text(encoding="utf-8"))


def test_files_are_short_enough_to_hold_one_concept() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _python()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_functions_are_short_enough_to_do_one_thing() -> None:
    long = []
    for name, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > LONGEST_FUNCTION:
                    long.append(f"{name}: {node.name} has {lines} lines")
    assert long == []


def test_ohifs_toolbar_stays_small() -> None:
    lines = []
    for path in sorted((APP / "ohif").glob("*.js")):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        lines += [line for line in code.splitlines() if line.strip() and not line.strip().startswith("//")]
    assert 0 < len(lines) <= LARGEST_TOOLBAR
    assert [line for line in lines if len(line) > LONGEST_SCRIPT_LINE] == []


def test_a_public_name_has_a_docstring() -> None:
    missing = []
    for name, tree in _trees():
        definitions = (ast.FunctionDef, ast.ClassDef)
        for node in [tree, *(node for node in tree.body if isinstance(node, definitions))]:
            if not getattr(node, "name", "").startswith("_") and not ast.get_docstring(node):
                missing.append(f"{name}: {getattr(node, 'name', 'the module')}")
    assert missing == []


def test_no_mutable_global() -> None:
    """A module's list, dict or set under a name in lower case can be changed from anywhere."""
    found = []
    for name, tree in _trees():
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                constant = isinstance(target, ast.Name) and (
                    target.id.lstrip("_").isupper() or target.id == "__all__"
                )
                if not constant and isinstance(node.value, (ast.List, ast.Dict, ast.Set)):
                    found.append(f"{name}:{node.lineno}: {ast.unparse(target)}")
    assert found == []


def test_no_tracked_file_names_a_folder_of_one_machine_or_a_registry() -> None:
    found = []
    for path in _tracked():
        if path.name in GENERATED or path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or weights
        found += [f"{_name(path)}: {match.group(0)}" for match in FOREIGN.finditer(text)]
    assert found == []


def test_a_unit_test_has_the_name_of_the_file_that_it_tests() -> None:
    missing = []
    for folder in sorted((REPOSITORY / "tests" / "unit").iterdir()):
        home = APP / "lib" / folder.name
        for test in sorted(folder.rglob("test_*.py")) if home.is_dir() else []:
            tested = home / test.relative_to(folder).with_name(test.name.removeprefix("test_"))
            # A long test has a file of its own in a folder that is named after the file.
            places = (tested, tested.with_suffix(""), tested.parent.with_suffix(".py"))
            if not any(place.exists() for place in places):
                missing.append(_name(test))
    assert missing == [], "these test no file of their name"
