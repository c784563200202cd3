"""Turns on OpenTelemetry and Sentry where their variables are set; otherwise imports neither.

The packages are extras: requirements-observe.txt.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from app.outbound import tracing
from config import logging as service_log
from config.log_fields import shown
from config.settings import Observing, SettingsError, load_observing
from config.version import VERSION

INSTALL = (
    "Install the extras (pip install -r requirements-observe.txt -c constraints.txt), or unset it."
)
FLUSH_SECONDS = 1
"""How long a worker that ends waits for its last spans and faults to be sent."""
TAGS = ("event", "process", "place", "error_id", "request_id", "event_id", "booking", "delivery_id",
        "connection_id", "logger")  # fmt: skip
"""What a fault in Sentry says besides its stack; each has the form that the log asks for."""

_provider: Any = None
_sentry: Any = None


def start_observing(transport: Any = None) -> None:
    """Turn on what the environment asks for. Raises SettingsError with a sentence.

    Call it in the process that works, after gunicorn has forked: both have threads. `transport`:
    takes the place of Sentry's own in tests.
    """
    asked = load_observing()
    if asked.wants_spans:
        _trace(asked)
    if asked.sentry_dsn:
        _report_faults(asked, transport)


def stop_observing() -> None:
    """Send what is not sent yet, for a second at most: the process ends now."""
    if _provider is not None:
        _provider.force_flush(FLUSH_SECONDS * 1000)
    if _sentry is not None:
        _sentry.flush(timeout=FLUSH_SECONDS)


def _trace(asked: Observing) -> None:
    global _provider  # noqa: PLW0603 - one provider a process
    if _provider is not None:
        return
    exporters = _load("opentelemetry.exporter.otlp.proto.http.trace_exporter", "OTEL_* is set")
    exported = _load("opentelemetry.sdk.trace.export", "OTEL_* is set")
    _provider = make_provider(asked.otel_service_name)
    _provider.add_span_processor(exported.BatchSpanProcessor(exporters.OTLPSpanExporter()))
    tracing.use(_provider.get_tracer(asked.otel_service_name, VERSION).start_as_current_span)


def make_provider(name: str) -> Any:
    """Return a provider of OpenTelemetry with the name and the version of this service."""
    sdk = _load("opentelemetry.sdk.trace", "OTEL_* is set")
    resources = _load("opentelemetry.sdk.resources", "OTEL_* is set")
    named = {"service.name": name, "service.version": VERSION}
    return sdk.TracerProvider(resource=resources.Resource.create(named))


def _report_faults(asked: Observing, transport: Any) -> None:
    """Send each fault that the log tells of to Sentry; nothing is collected but what is given."""
    global _sentry  # noqa: PLW0603 - one client a process
    sentry = _load("sentry_sdk", "SENTRY_DSN is set")
    try:
        sentry.init(
            dsn=asked.sentry_dsn,
            release=VERSION,
            environment=asked.sentry_environment,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            server_name="",
            before_send=only_listed,
            transport=transport,
        )
    except Exception as error:
        # The address holds a key, and so may the text of the error.
        if type(error).__name__ != "BadDsn":
            raise
        raise SettingsError("SENTRY_DSN is not usable: it is no address of a project.") from None
    _sentry = sentry
    service_log.use_reporter(_report)


def _report(error: BaseException, line: Mapping[str, Any]) -> None:
    with _sentry.new_scope() as scope:
        for key in TAGS:
            if line.get(key) is not None:
                scope.set_tag(key, str(shown(key, line[key])))
        _sentry.capture_exception(error)


def only_listed(event: dict[str, Any], _hint: object = None) -> dict[str, Any]:
    """Return an event of Sentry with kinds, places and ids: no texts of errors, values or requests."""
    kept = ("event_id", "timestamp", "level", "platform", "release", "environment", "tags", "sdk")
    found = {key: event[key] for key in kept if key in event}
    values = event.get("exception", {}).get("values", [])
    found["exception"] = {"values": [_without_text(value) for value in values]}
    return found


def _without_text(value: Mapping[str, Any]) -> dict[str, Any]:
    frames = (value.get("stacktrace") or {}).get("frames", [])
    kept = ("filename", "function", "lineno", "module", "in_app")
    return {
        "type": value.get("type"),
        "module": value.get("module"),
        "stacktrace": {"frames": [{k: f[k] for k in kept if k in f} for f in frames]},
    }


def _load(module: str, why: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise SettingsError(
            f"{why}, but the package {package} is not installed. {INSTALL}"
        ) from None
