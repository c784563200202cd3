"""The documentation and the program agree: everything named exists, and everything that exists is
named.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

from app.mapping.load import MappingText
from config.settings import Listening, Observing, Settings
from scripts.audit import OUT_OF_REACH, judged
from tests import guide
from tests.bridge import PROVIDERS
from tests.chaos.mutants import MUTANTS

ROOT = Path(__file__).parent.parent.parent


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_setting_is_documented() -> None:
    """docs/settings.md names every setting."""
    for kind in (Settings, Listening, Observing):
        for name in kind.model_fields:
            assert f"`{name.upper()}`" in text("docs/settings.md")


def test_the_piece_of_a_mapping_in_the_readme_is_good() -> None:
    """The README's piece of a mapping file is valid in the default file."""
    (piece,) = re.findall(r"A piece of one:\n\n((?:    .*\n)+)", text("README.md"))
    assert MappingText("x.yaml", guide.whole(dedent(piece)), "hubspot").lines() == []


def test_every_dependency_has_its_reason() -> None:
    """The README's table lists each runtime requirement with its reason, and each is pinned."""
    lines = text("requirements.txt").splitlines() + text("requirements-observe.txt").splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            name = re.split(r"[\[=]", line)[0]
            assert "==" in line
            assert re.search(rf"\b{re.escape(name)}\b", text("README.md")), name


def test_every_provider_has_all_its_parts() -> None:
    """Every provider has an adapter, a mapping file, a sandbox and a desk."""
    for name in PROVIDERS:
        assert (ROOT / f"config/mappings/{name}.yaml").exists()
        parts = (ROOT / f"crm_adapters/{name}.py", ROOT / f"crm_adapters/{name}/adapter.py")
        assert any(part.exists() for part in parts)
        assert any((ROOT / f"sandbox/{part}").exists() for part in (f"{name}.py", name))
        assert (ROOT / f"tests/contract/desk_{name}.py").exists()


def test_the_links_of_the_readme_lead_somewhere() -> None:
    """Every relative link in the README leads to an existing file."""
    for target in re.findall(r"\]\(([^)#:]+)\)", text("README.md")):
        assert (ROOT / target).exists(), target


def test_every_test_that_the_security_tables_name_exists() -> None:
    """Every test that docs/security.md names exists, and RFC 9700 has its 19 rows."""
    page = text("docs/security.md")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 15
    assert {name for name in named if f"def {name}(" not in code} == set()
    rows = re.findall(r"^\| (\d+) \| .*`test_\w+`.* \|$", page, re.M)
    assert rows == [str(number) for number in range(1, 20)]


def test_every_crash_point_has_its_test() -> None:
    """docs/reliability.md names an existing test or command for each crash point."""
    page = text("docs/reliability.md")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    table = page.partition("## Crash points")[2].partition("`make chaos SEED")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 15
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert all(f"def {name}(" in code for name in named), row
    for mutant in MUTANTS.values():
        for test in mutant.tests:
            path, _, name = test.partition("[")[0].partition("::")
            assert (
                f"def {name}(" in (ROOT / path).read_text("utf-8")
                if name
                else (ROOT / path).exists()
            )
    number = {32: "thirty-two"}[len(MUTANTS)]
    assert f"plants {number} bugs" in " ".join(page.split())


def test_every_command_is_documented() -> None:
    """The README or docs name each command of the command line."""
    pages = text("README.md") + "".join(p.read_text("utf-8") for p in (ROOT / "docs").glob("*.md"))
    groups = {
        "connections": ["list", "add-token"], "mappings": ["check", "preview", "diff", "schema", "questions"],
        "events": ["replay"], "webhooks": ["register", "list"], "secrets": ["add", "list", "end"],
        "deliveries": ["list", "retry"], "keys": ["create", "rotate"], "bookings": ["outcome"],
        "db": ["current", "upgrade", "downgrade"],
    }  # fmt: skip
    for group, names in groups.items():
        for name in names:
            assert f"{group} {name}" in pages, f"{group} {name}"
    for name in ("doctor", "backfill", "reconcile", "version"):
        assert f"bridge {name}" in pages, name


def test_every_planted_bug_can_be_planted() -> None:
    """Each planted bug can be planted, in its own process: a renamed target would make it useless."""
    code = "import sys; from tests.chaos.mutants import plant; [plant(n) for n in sys.argv[1:]]"
    done = subprocess.run(
        [sys.executable, "-c", code, *MUTANTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_a_planted_bug_replaces_is_there() -> None:
    """Each name that a planted bug replaces exists: otherwise the bug would have no effect."""
    for file in ("tests/chaos/mutants.py", "tests/chaos/planted.py"):
        for function in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef):
                lacking = list(_replaced_in_vain(function))
                assert not lacking, f"{file}, {function.name}: nothing is called {lacking}"


def _replaced_in_vain(function: ast.FunctionDef) -> Iterator[str]:
    """Return the module attributes that a function assigns although no module has them."""
    modules = {}
    for node in ast.walk(function):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                with suppress(ImportError):
                    name = f"{node.module}.{alias.name}"
                    modules[alias.asname or alias.name] = importlib.import_module(name)
    for node in ast.walk(function):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                module = modules.get(target.value.id)
                if module is not None and not hasattr(module, target.attr):
                    yield f"{target.value.id}.{target.attr}"


def test_every_threat_has_its_test() -> None:
    """docs/threat-model.md names an existing test for each threat, and has a table for each entry point."""
    page = text("docs/threat-model.md")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    threats = page.partition("## Threats")[2]
    entries = page.partition("## Entry points")[2].partition("## Threats")[0]
    doors = re.findall(r"^\| (\w[^|]+?) \|", entries, re.M)[1:]
    tables = re.findall(r"^### (.*)$", threats, re.M)
    assert [door.casefold() for door in doors] == [table.casefold() for table in tables]
    rows = [line for line in threats.splitlines() if re.match(r"\| ?\S? ?\|", line)]
    rows = [row for row in rows if not row.startswith(("| | threat", "|---"))]
    assert len(rows) >= 60
    for row in rows:
        assert re.match(r"\| [STRIDE] \| .+ \| .+ \| .+ \|$", row), row
        named = re.findall(r"`(test_\w+)`", row.rpartition(" | ")[2])
        assert named, row
        assert all(f"def {name}(" in code for name in named), row


def test_every_exception_of_bandit_has_its_reason() -> None:
    """A line that bandit passes over says why, and `make check` and CI run bandit and the audit."""
    for folder in ("app", "config", "crm_adapters", "sandbox", "scripts", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if "# nosec" in line:
                    assert re.search(r"# nosec B\d{3}  # (noqa: S\d+ - )?\w.{7,}$", line), (
                        path,
                        line,
                    )
    skips = text("pyproject.toml").partition("[tool.bandit]")[2].partition("]\n\n")[0]
    lines = [line.strip() for line in skips.splitlines() if line.startswith("    ")]
    assert all(lines[at - 1].startswith("#") for at, line in enumerate(lines) if line[0] == '"')
    assert "bandit" in text("Makefile").partition("\ncheck:")[2].partition("\n\n")[0]
    assert "make audit" in text(".ci/run")


def test_an_audit_says_what_it_found_or_that_it_could_not_look() -> None:
    """A known hole exits 1 and names its version; without the advisory service a sentence says so."""
    fine = {"name": "flask", "version": "3", "vulns": []}
    hole = {"name": "x", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    unknown = {"name": "y", "skip_reason": "Dependency not found on PyPI"}
    assert judged(json.dumps({"dependencies": [fine, unknown]}))[0] == 0
    code, lines = judged(json.dumps({"dependencies": [fine, hole]}))
    assert code == 1 and "x 1: CVE-1, mended in 2" in lines
    for nothing in ("", "[]", "Traceback", json.dumps({"dependencies": [unknown]})):
        assert judged(nothing) == (0, [OUT_OF_REACH])
