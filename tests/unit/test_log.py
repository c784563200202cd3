"""The lines of the log: one shape whoever writes them, and nothing of a person in any."""

from __future__ import annotations

import ast
import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy.exc import OperationalError

from config.log_fields import HIDDEN, SHOWN, shown
from config.log_repeats import AT_ONCE, Repeats
from config.logging import configure_logging, text_of
from config.version import VERSION

ROOT = Path(__file__).parent.parent.parent
METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
BINDS = {"bind_contextvars", "bound_contextvars"}
JANE = ("Jane", "Smith", "jane@corp.example", "+49 170 1234567", "pat-eu1-0123")


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in the code that writes a line or binds a value to the lines that follow."""
    for folder in ("app", "workers", "crm_adapters", "config"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                function, place = node.func, f"{path.relative_to(ROOT)}:{node.lineno}"
                name = getattr(function, "id", getattr(function, "attr", ""))
                if name in BINDS:
                    yield place, node
                if not isinstance(function, ast.Attribute) or function.attr not in METHODS:
                    continue
                if ast.unparse(function.value) in ("log", "structlog.get_logger()"):
                    yield place, node


def test_every_key_of_a_log_call_is_listed() -> None:
    """Each `log.…` call in the code has a constant event and only keys whose values are checked."""
    calls = list(log_calls())
    assert len(calls) > 40
    for place, call in calls:
        keys = [keyword.arg for keyword in call.keywords if keyword.arg != "exc_info"]
        assert None not in keys, f"{place}: no **values, so that the keys can be read"
        assert not [key for key in keys if key not in SHOWN], f"{place}: {keys}"


def test_no_other_way_leads_to_the_log() -> None:
    """The code writes through structlog alone: no print, no logger of the standard library."""
    for folder in ("app", "workers", "crm_adapters", "config"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                words = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                place = f"{path.relative_to(ROOT)}: {words}"
                assert words not in ("print", "traceback.print_exc"), place
                assert not words.startswith(("logging.info", "logging.warning", "self.log.")), place


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Return the lines that were written since the last call."""
    configure_logging("DEBUG")
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    "values",
    [
        {"first_name": "Jane"}, {"note": "Smith"}, {"booking": "Jane Smith"}, {"place": "Jane"},
        {"event_id": "jane@corp.example"}, {"kind": ["Jane"]}, {"event_ids": ["Jane Smith", {"a": "Jane"}]},
        {"reason": "the name 'Jane' of \"Smith\" <jane@corp.example> is too long"},
        {"reason": "call +49 170 1234567"}, {"reason": f"token {'pat-eu1-0123' * 5}"}, {"tries": "Jane"},
        {"problem": "owner: jane@corp.example"}, {"seconds": {"Jane": 1}}, {"trace": ["Jane Smith"]},
        {"address": "https://x.example/?q=Jane"},
    ],
)  # fmt: skip
def test_nothing_of_a_person_is_written(values: dict[str, Any], lines: Any) -> None:
    """A key that is not listed, or a value of another form than its key asks for, is hidden."""
    structlog.get_logger().warning("something", **values)
    (line,) = lines()
    assert line["event"] == "something"
    for word in JANE:
        assert word not in json.dumps(line)


def test_what_is_listed_is_written(lines: Any) -> None:
    """A line has time, level, process, pid and version, and the values that it is about."""
    values = {
        "connection_id": 7, "booking": "default:8a4c-11", "event_ids": [1, 2], "seconds": 1.5,
        "problem": "hubspot.yaml, line 3: there is no field 'no_such_field'", "code": None,
        "reason": "It waits since 2026-11-28 03:15 UTC.", "place": "workers/drain.py:17",
    }  # fmt: skip
    structlog.get_logger().error("something", **values)
    (line,) = lines()
    assert {key: line.get(key) for key in values} == values
    assert (line["level"], line["version"], line["process"]) == ("error", VERSION, "cli")
    assert isinstance(line["pid"], int) and line["timestamp"].endswith("Z")
    assert len(shown("reason", "x " * 1000)) <= 300


def test_an_outage_has_no_stack_and_a_fault_has_one(lines: Any) -> None:
    """A stack has places, no texts and no values; an error that only says that something is away has none."""
    jane = "jane@corp.example"
    for error in (
        ValueError(jane),
        ConnectionError(jane),
        OperationalError(jane, {}, OSError(jane)),
    ):
        try:
            raise error
        except Exception:
            structlog.get_logger().exception("something", event_id=1)
    fault, *outages = lines()
    assert fault["kind"] == "ValueError"
    assert fault["trace"][0].endswith(" test_an_outage_has_no_stack_and_a_fault_has_one")
    assert [line["kind"] for line in outages] == ["ConnectionError", "OperationalError"]
    assert all("trace" not in line for line in outages)
    assert "jane" not in json.dumps([fault, outages])


@pytest.mark.parametrize(
    ("logger", "message", "args", "text"),
    [
        ("gunicorn.error", "Booting worker with pid: %s", (17,), "Booting worker with pid: 17"),
        ("gunicorn.error", "Handling signal: %s", ("term",), "Handling signal: term"),
        ("gunicorn.error", "Error handling request %s", ("/x?a=Jane",), f"Error handling request {HIDDEN}"),
        ("urllib3.pool", "Retrying %s after %r: %d%%", ("Jane", "Smith", 3), f"Retrying {HIDDEN} after {HIDDEN}: 3%"),
        ("a.lib", "refused: Jane Smith", (), f"refused: {HIDDEN}"),
        ("a.lib", "at name=Jane", (), f"at name= {HIDDEN}"),
        ("a.lib", ValueError("Jane"), (), "ValueError"),
        ("a.lib", "%(a)s and %(b)d", ({"a": "Jane", "b": 2},), f"{HIDDEN} and 2"),
        ("a.lib", "%s", (), "%s"),
    ],
)  # fmt: skip
def test_the_words_of_a_library(
    logger: str, message: Any, args: tuple[Any, ...], text: str
) -> None:
    """Of a library's line the words are written, and of its values only numbers."""
    assert text_of(logging.LogRecord(logger, 20, "x.py", 1, message, args, None)) == text


def test_a_fault_that_repeats_itself_is_told_at_growing_intervals() -> None:
    """The same warning comes a few times at once, then after 1, 3, 7 … minutes with its number."""
    at = 0.0
    repeats, told = Repeats(lambda: at), []
    for _ in range(3600):
        at += 1
        try:
            told.append((at, repeats(None, "", {"level": "error", "event": "x", "seconds": at})))
        except structlog.DropEvent:
            continue
        repeats(None, "", {"level": "info", "event": "x"})
    times = [moment for moment, _ in told]
    assert times[:AT_ONCE] == [1, 2, 3, 4, 5]
    assert [b - a for a, b in itertools.pairwise(times[4:])] == [60, 120, 240, 480, 960]
    assert told[5][1]["times"] == 60
    # Another line, and the same line after a calm time, are told at once.
    assert repeats(None, "", {"level": "error", "event": "x", "event_id": 2})
    at += 100_000
    assert "times" not in repeats(None, "", {"level": "error", "event": "x", "seconds": at})


def test_faults_of_a_process_are_lines_too(tmp_path: Path) -> None:
    """An uncaught exception, in a thread as well, a warning and a library's line are JSON."""
    code = (
        "import logging, threading, warnings\n"
        "from config.logging import start_logging\n"
        "start_logging('worker')\n"
        "warnings.warn('Jane', UserWarning)\n"
        "logging.getLogger('alembic').error('no %s', 'Jane')\n"
        "logging.getLogger('alembic').info('quiet')\n"
        "def fail(): raise KeyError('Jane')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "fail()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout) == (1, "")
    events = ["python_warning", "library", "uncaught", "uncaught"]
    assert [line["event"] for line in told] == events
    assert {line["process"] for line in told} == {"worker"}
    assert [line.get("kind") for line in told] == ["UserWarning", None, "KeyError", "KeyError"]
    assert "Jane" not in done.stderr and "fail" in told[2]["trace"][-1]
