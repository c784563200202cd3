"""Structured logs to stderr; keys with secrets and personal data are hidden by name."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

HIDDEN_KEYS = frozenset(
    [
        "token",
        "access_token",
        "refresh_token",
        "secret",
        "client_secret",
        "password",
        "authorization",
        "signature",
        "code",
        "code_verifier",
        "state",
        "email",
        "phone",
        "name",
        "attendee",
        "attendees",
        "body",
        "payload",
        "headers",
        "cookie",
    ]
)


def hide_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace the value of every key that names a credential or a person."""
    for key in event:
        if key.lower() in HIDDEN_KEYS:
            event[key] = "[hidden]"
    return event


def configure_logging(level: str = "INFO") -> None:
    """Set up structlog for this process: one JSON line per event, times in UTC."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            hide_secrets,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Without local variables: a traceback must not print a token from one.
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # The HTTP libraries log URLs and bodies below WARNING.
    for noisy in ("urllib3", "requests_oauthlib", "oauthlib", "hubspot", "simple_salesforce"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("rq").setLevel(logging.WARNING)
