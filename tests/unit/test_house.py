"""The code stays easy to take over: sizes, names, the way of a webhook, the glossary."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PRODUCT = ("app", "workers", "crm_adapters", "config")
LONGEST_FILE, LONGEST_FUNCTION, DEEPEST = 430, 60, 3
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)


def files(*folders: str) -> list[Path]:
    """Return the Python files of folders, without the migrations, which never change."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "versions" not in path.parts]


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Return every function and method of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


def depth(node: ast.AST, at: int = 0) -> int:
    """Return how deeply blocks are nested; an `elif` is on the same level as its `if`."""
    deepest = at
    for name, value in ast.iter_fields(node):
        children = [c for c in (value if isinstance(value, list) else [value])]
        for child in children:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                continue
            beside = isinstance(node, ast.If) and name == "orelse" and len(children) == 1
            step = isinstance(child, BLOCKS) and not (beside and isinstance(child, ast.If))
            deepest = max(deepest, depth(child, at + step))
    return deepest


def test_no_file_is_too_long_to_read() -> None:
    """Every file is short enough to read."""
    for path in files(*PRODUCT, "sandbox"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= LONGEST_FILE, f"{path.relative_to(ROOT)} has {lines} lines"


def test_no_function_is_too_long_or_too_deep() -> None:
    """Every function fits on a screen and is not nested too deeply."""
    for path in files(*PRODUCT, "sandbox"):
        for function in functions(path):
            place = f"{path.relative_to(ROOT)} {function.name}"
            lines = (function.end_lineno or 0) - function.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{place} has {lines} lines"
            assert depth(function) <= DEEPEST, f"{place} is nested {depth(function)} deep"


def test_no_two_classes_have_one_name() -> None:
    """Each class name is used once, so that readers know the class; adapters' own parts may repeat."""
    homes = defaultdict(set)
    for path in files("app", "workers", "config"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].add(str(path.relative_to(ROOT)))
    assert {name: sorted(there) for name, there in homes.items() if len(there) > 1} == {}


def names_in(path: str) -> set[str]:
    """Return the classes, functions and methods (as `Class.method`) of a file."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return found


def named(text: str) -> list[tuple[str, str]]:
    """Return the pairs of file and name in a text: a file, then names in it, all in backticks."""
    pairs, file = [], ""
    for word in re.findall(r"`([^`]+)`", text):
        if word.endswith(".py"):
            file = word
        elif file:
            pairs.append((file, word))
    return pairs


def test_the_way_of_a_webhook_leads_somewhere() -> None:
    """Each step in CONTRIBUTING.md's way of a webhook is an existing function; there are twelve at
    most.
    """
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    way = text.split("## The way of a webhook", 1)[1].split("\n## ", 1)[0]
    stations = re.findall(r"^\d+\. .*$", way, re.MULTILINE)
    assert 8 <= len(stations) <= 12
    for station in stations:
        pairs = named(station)
        assert pairs, station
        for file, name in pairs:
            assert name in names_in(file), f"{file} has no {name}"


def test_the_glossary_names_classes_that_are_there() -> None:
    """The glossary has twenty terms or more, each with an existing class."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        (pair,) = named(row)
        assert pair[1] in names_in(pair[0]), row


@pytest.mark.parametrize("name", ["_Judge", "_Draft", "Known", "Surroundings", "Findings"])
def test_no_private_word_comes_back(name: str) -> None:
    """No class has a name that the glossary has replaced."""
    for path in files(*PRODUCT):
        classes = re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert name not in classes, path
