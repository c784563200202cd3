"""The audit log as a page and as CSV: who did what, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import Blueprint, Response, render_template, request
from werkzeug.exceptions import BadRequest

from app.domain.limits import KEY_NAME
from app.domain.roles import Permission
from app.store.audit import AuditFilter
from app.web.access import needs, services

blueprint = Blueprint("audit", __name__)
PAGE_SIZE = 100
DIGITS = 15
"""The most digits of an act's number."""


@blueprint.get("/audit")
@needs(Permission.SEE_AUDIT)
def index() -> str:
    """The acts that were noted last, those of one person, of one kind or of a period."""
    rows = services().audit.page(_wanted(), _older_than(), PAGE_SIZE + 1)
    asked = {name: text for name in ("actor", "action", "from", "to") if (text := _given(name))}
    return render_template(
        "audit.html",
        rows=rows[:PAGE_SIZE],
        next=rows[PAGE_SIZE - 1].id if len(rows) > PAGE_SIZE else None,
        actions=services().audit.actions(),
        asked=asked,
    )


@blueprint.get("/audit.csv")
@needs(Permission.SEE_AUDIT)
def as_csv() -> Response:
    """The same acts, all of them, as CSV."""
    return Response(
        services().audit.csv(_wanted()),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": "attachment; filename=audit.csv"},
    )


def _wanted() -> AuditFilter:
    since, until = _day("from"), _day("to")
    return AuditFilter(
        actor=_given("actor")[:KEY_NAME],
        action=_given("action")[:KEY_NAME],
        since=since,
        before=until + timedelta(days=1) if until else None,
    )


def _given(name: str) -> str:
    return request.args.get(name, "").strip()


def _day(name: str) -> datetime | None:
    """The beginning of a day in UTC. Raises BadRequest."""
    text = _given(name)
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise BadRequest(f"{name} is a day such as 2027-02-01.") from None


def _older_than() -> int | None:
    text = _given("before")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS):
        raise BadRequest("before is the number of an act: follow the link 'Older'.")
    return int(text)
