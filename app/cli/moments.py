"""Points in time as people type them on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from app.store.engine import utcnow

SPANS = {"today": 1, "last-week": 7, "last-month": 30}
"""Days back from now."""


def read_moment(text: str) -> datetime:
    """A date, a time or one of SPANS, in UTC. Raises UsageError."""
    if text in SPANS:
        return utcnow() - timedelta(days=SPANS[text])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        known = ", ".join(SPANS)
        raise click.UsageError(f"{text!r} is neither a date nor one of: {known}.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
