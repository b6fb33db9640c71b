"""Docstrings and names that a reader understands at once."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

APP = Path(__file__).resolve().parents[2] / "apps" / "biosam2"

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
# "settings: of the app." says nothing; "settings: App settings." does.
_FRAGMENT = re.compile(r"    (\*{0,2}\w+): (of|which|that|who|whose|where)\b")


@cache
def _nodes() -> list[tuple[str, ast.AST]]:
    return [
        (path.relative_to(APP).as_posix(), node)
        for path in sorted(APP.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]


def test_the_doc_of_an_argument_starts_with_a_noun() -> None:
    found = []
    for name, node in _nodes():
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            section = ""
            for line in (ast.get_docstring(node) or "").splitlines():
                section = match[1] if (match := _SECTION.match(line)) else section
                if section in ("Args", "Attributes") and _FRAGMENT.match(line):
                    found.append(f"{name}: {getattr(node, 'name', 'the module')}: {line.strip()}")
    assert found == []


def test_a_class_name_is_used_once() -> None:
    places = defaultdict(list)
    for name, node in _nodes():
        if isinstance(node, ast.ClassDef):
            places[node.name].append(name)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_assert_at_run_time() -> None:
    found = [f"{name}:{node.lineno}" for name, node in _nodes() if isinstance(node, ast.Assert)]
    assert found == [], "raise an error that says what is wrong"
