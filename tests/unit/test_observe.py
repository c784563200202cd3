"""OpenTelemetry and Sentry: nothing unless they are asked for, and nothing of a person in either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.transport import Transport
from sqlalchemy.exc import OperationalError

from app.outbound import tracing
from app.outbound.tracing import pattern_of, span
from config import observe
from config.logging import configure_logging, use_reporter
from config.version import VERSION
from tests.bridge import KEY, Bridge, sample

ROOT = Path(__file__).parent.parent.parent
PEOPLE = ("van der Berg", "van.der.berg", "23456789", "Globex")
DSN = "http://key-of-sentry@127.0.0.1:9/1"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Collect the spans of a test."""
    exporter = InMemorySpanExporter()
    provider = observe.make_provider("bridge")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider.get_tracer("bridge").start_as_current_span)
    yield exporter
    tracing.use(None)


def test_a_booking_on_its_way_is_spans_without_a_person(
    bridge: Bridge, spans: InMemorySpanExporter
) -> None:
    """Request, inbox, drain, batch and each call are spans; paths are patterns, without queries."""
    bridge.sync(sample("booking_created"))
    found = spans.get_finished_spans()
    names = {each.name for each in found}
    assert {"POST /webhooks/meetergo", "inbox", "drain", "batch: plan", "batch: write"} <= names
    calls = [each for each in found if "url.template" in (each.attributes or {})]
    assert calls and all((each.attributes or {})["server.address"] == "127.0.0.1" for each in calls)
    assert all((each.attributes or {})["http.response.status_code"] for each in calls)
    ids = {each.context.span_id: each.name for each in found}
    parents = {ids.get(each.parent.span_id) for each in calls if each.parent}
    assert parents <= {"batch: plan", "batch: write", "drain"}, parents
    whole = "".join(each.to_json() for each in found)
    for word in (*PEOPLE, "?", "@", KEY):
        assert word not in whole, word
    resource = found[0].resource.attributes
    assert (resource["service.name"], resource["service.version"]) == ("bridge", VERSION)


def test_the_error_of_a_span_is_its_kind(spans: InMemorySpanExporter) -> None:
    """A span that ends in an error names its class, and has no text of it."""
    with pytest.raises(ValueError), span("x"):
        raise ValueError("van der Berg")
    (found,) = spans.get_finished_spans()
    assert (found.attributes or {})["error.type"] == "ValueError"
    assert "Berg" not in found.to_json()


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/crm/v3/objects/contacts/batch/upsert", "/crm/v3/objects/contacts/batch/upsert"),
        ("/crm/v3/objects/contacts/501?email=jane@x.example", "/crm/v3/objects/contacts/{id}"),
        ("/services/data/v62.0/sobjects/Event/00U5e", "/services/data/v62.0/sobjects/Event/{id}"),
        ("/persons/jane@x.example", "/persons/{id}"),
        ("/persons/Jane", "/persons/{id}"),
        ("/", "/"),
    ],
)
def test_the_pattern_of_a_path(path: str, pattern: str) -> None:
    """Whatever may be an id or a value of a person is no part of a pattern."""
    assert pattern_of(path) == pattern


class Heard(Transport):
    """Takes the place of Sentry's transport."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep an event."""
        self.events.append(envelope.get_event())


@pytest.fixture
def sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """Turn Sentry on, with a transport that keeps the events."""
    heard = Heard()
    monkeypatch.setenv("SENTRY_DSN", DSN)
    observe.start_observing(heard)
    configure_logging("INFO")
    yield heard
    use_reporter(None)
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)
    monkeypatch.setattr(observe, "_sentry", None)


def fail(person: str) -> None:
    """Fail with a person in variables and texts."""
    local = {"email": person}
    raise KeyError(f"{person} {local}") from ValueError(person)


def test_a_fault_is_an_event_without_a_person(sentry: Heard) -> None:
    """Kind, places, release and ids reach Sentry: no text of an error, value of a variable or other tag."""
    try:
        fail("jane@corp.example")
    except KeyError as error:
        log = structlog.get_logger()
        log.error(
            "drain_failed", connection_id=7, reason="Jane", booking="Jane Smith", exc_info=error
        )
    (event,) = sentry.events
    assert event["release"] == VERSION and event["tags"]["connection_id"] == "7"
    assert event["tags"]["event"] == "drain_failed"
    cause, fault = event["exception"]["values"]
    assert (cause["type"], fault["type"]) == ("ValueError", "KeyError")
    assert fault["stacktrace"]["frames"][-1]["function"] == "fail"
    assert "jane" not in json.dumps(event).lower()
    assert set(event) <= {
        "event_id", "timestamp", "level", "platform", "release", "environment", "tags", "sdk", "exception",
    }  # fmt: skip


def test_an_outage_and_a_warning_are_no_events(sentry: Heard) -> None:
    """What is only away reaches the log, not Sentry; so does a line without an error."""
    for error in (OperationalError("x", {}, OSError()), ConnectionError()):
        structlog.get_logger().error("look_failed", exc_info=error)
    structlog.get_logger().error("overdue", connection_id=1)
    assert sentry.events == []


def test_a_request_that_fails_is_an_event(
    bridge: Bridge, sentry: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unforeseen error of a page reaches Sentry with its number, without address, headers or body."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("van der Berg")

    monkeypatch.setattr(bridge.services.intake, "accept", broken)
    answer = bridge.post(sample("booking_created"))
    assert answer.status_code == 500
    (event,) = sentry.events
    assert event["tags"]["error_id"] in answer.get_data(as_text=True)
    whole = json.dumps(event)
    assert "request" not in event and not [word for word in PEOPLE if word in whole]


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process with these variables."""
    environment = {
        "PATH": os.environ["PATH"], "SECRET_KEY": KEY, "ENCRYPTION_KEYS": KEY,
        "DATABASE_URL": "sqlite:///none.sqlite3", **variables,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    """Without the variables neither package is loaded; with them both are."""
    code = (
        "import sys\nfrom app.bootstrap import begin\nbegin()\n"
        "print({'opentelemetry.exporter', 'sentry_sdk'} & sys.modules.keys())"
    )
    asked = {"SENTRY_DSN": DSN, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    off = run(code, OTEL_SDK_DISABLED="true", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (run(code).stdout, off.stdout) == ("set()\n", "set()\n")
    assert (
        "opentelemetry" in run(code, **asked).stdout and "sentry_sdk" in run(code, **asked).stdout
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SENTRY_DSN": DSN}, "SENTRY_DSN is set, but the package sentry_sdk is not installed."),
        (
            {"OTEL_TRACES_EXPORTER": "otlp"},
            "OTEL_* is set, but the package opentelemetry is not installed.",
        ),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is not usable"),
        ({"SENTRY_DSN": "key-of-sentry"}, ""),
    ],
)
def test_what_is_asked_for_in_vain_is_a_sentence(variables: dict[str, str], words: str) -> None:
    """A package that is not installed, or a wrong value, is a sentence at the start."""
    gone = "sys.modules.update({'sentry_sdk': None, 'opentelemetry': None})" if words else "0"
    ended = run(f"import sys\n{gone}\nfrom app.bootstrap import begin\nbegin()\n", **variables)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert (words or "SENTRY_DSN is not usable") in ended.stderr
    assert "key-of-sentry" not in ended.stderr
