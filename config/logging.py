"""The log of every process: one line is one JSON object, whoever writes it; see log_fields.py."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, TextIO

import structlog

from config.log_fields import HIDDEN, shown
from config.log_repeats import Repeats
from config.version import VERSION

LIBRARY = "library"
"""The event of a line that a library writes; `logger` names the library."""
MOST_FRAMES = 20
OUTAGES = frozenset(
    ["OSError", "RedisError", "OperationalError", "InterfaceError", "InternalError", "HTTPError"]
)
"""Names of classes (also those above an error's own): something is away, which needs no stack."""

_process = "cli"
_report: Callable[[BaseException, Mapping[str, Any]], None] | None = None


def configure_logging(level: str = "INFO") -> None:
    """Set up structlog: one JSON line per event on stderr, times in UTC, only keys that are listed."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            describe_error,
            Repeats(),
            add_process,
            report_fault,
            hide_unlisted,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=lambda *_: _ErrorOutput(),
        cache_logger_on_first_use=False,
    )
    # The HTTP libraries log URLs and bodies below WARNING.
    for noisy in ("urllib3", "requests_oauthlib", "oauthlib", "hubspot", "simple_salesforce"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("rq").setLevel(logging.WARNING)


def start_logging(process: str) -> None:
    """Begin the log of a process (web, worker, scheduler, cli): of its libraries and faults as well.

    Call it once, before anything else: `configure_logging` later only sets the level.
    """
    global _process  # noqa: PLW0603 - a process has one name
    _process = process
    configure_logging()
    root = logging.getLogger()
    root.handlers[:] = [LibraryLines()]
    root.setLevel(logging.WARNING)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warned


class _ErrorOutput:
    """Writes a line to stderr, at once and whole, so that lines of two threads do not mix."""

    def msg(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg


class LibraryLines(logging.Handler):
    """Writes what libraries log, in the shape of every other line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        structlog.get_logger().log(
            record.levelno,
            LIBRARY,
            logger=record.name,
            text=text_of(record),
            exc_info=record.exc_info,
        )


def text_of(record: logging.LogRecord) -> str:
    """Return a library's message without the values that it puts in: they may be a person's data.

    The words come from the library's code. Numbers stay, and so do gunicorn's names of signals.
    """
    words = str(record.msg)
    if isinstance(record.msg, BaseException):
        return type(record.msg).__name__
    if record.args:
        args = record.args.values() if isinstance(record.args, dict) else record.args
        values = iter([_harmless(record.name, value) for value in args])
        return _HOLE.sub(lambda hole: _filled(hole.group(), values), words)
    # The values may stand in the text already: they follow a colon, or an equals sign.
    return _VALUE.sub(rf"\1 {HIDDEN}", words)


_HOLE = re.compile(r"%(?:\(\w+\))?[#0 +-]*[\d.*]*[a-zA-Z%]")
_VALUE = re.compile(r"([:=]).*", re.DOTALL)
_SIGNAL = re.compile(r"[a-zA-Z]{2,10}")


def _filled(hole: str, values: Any) -> str:
    return "%" if hole == "%%" else str(next(values, HIDDEN))


def _harmless(logger: str, value: object) -> str:
    if isinstance(value, bool | int | float):
        return str(value)
    of_gunicorn = logger == "gunicorn.error" and isinstance(value, str) and _SIGNAL.fullmatch(value)
    return str(value) if of_gunicorn else HIDDEN


def describe_error(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Put kind and places of an error in place of its stack, whose texts and values may be data."""
    found = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["kind"] = type(error).__name__
        if not is_outage(error):
            event["trace"], event["error"] = frames_of(error.__traceback__), error
    return event


def use_reporter(report: Callable[[BaseException, Mapping[str, Any]], None] | None) -> None:
    """Have each fault that the log tells of reported elsewhere, too; an outage is none."""
    global _report  # noqa: PLW0603 - one reporter a process
    _report = report


def report_fault(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Hand the error of a line to the reporter, and take it out of the line."""
    error = event.pop("error", None)
    if _report is not None and isinstance(error, BaseException):
        _report(error, event)
    return event


def is_outage(error: BaseException) -> bool:
    """Whether an error only says that a database, Redis or a CRM cannot be used."""
    return not OUTAGES.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def frames_of(trace: TracebackType | None) -> list[str]:
    """Return the places of a stack, the innermost last, as `file:line function`."""
    frames = traceback.extract_tb(trace)[-MOST_FRAMES:]
    return [
        f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}"
        for frame in frames
    ]


def add_process(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Say which process writes, and its version."""
    event["process"], event["pid"], event["version"] = _process, os.getpid(), VERSION
    return event


def hide_unlisted(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Write each value only if its key is listed and it has the form that the key asks for."""
    return {key: shown(key, value) for key, value in event.items()}


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger().critical("uncaught", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    structlog.get_logger().critical("uncaught", exc_info=args.exc_value)


def _unraisable(args: Any) -> None:
    structlog.get_logger().error("uncaught", exc_info=args.exc_value)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Tell of a warning of Python or of a library by its place: its text may quote a value."""
    place = f"{'/'.join(filename.split('/')[-3:])}:{lineno}"
    structlog.get_logger().warning("python_warning", kind=category.__name__, place=place)
