"""The pages for people: which bookings were synced, which were not, and why."""

from __future__ import annotations

import json

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.errors import ContentDeleted, UnfitPayload
from app.domain.limits import LARGEST_ID
from app.domain.masked import masked
from app.domain.roles import Permission
from app.security.encryption import UnreadableSecret
from app.services.booking_list import BookingList, Filters
from app.services.summary import MOST, Summary
from app.store.engine import utcnow
from app.store.models import EventRow
from app.store.states import EventStatus
from app.web import live
from app.web.access import i_may, me, needs, services, sign_in, sign_in_with_password
from app.web.access import sign_out as end_session
from app.web.causes import open_causes
from app.web.lookup import overview
from app.web.mappings import mapping_problems

blueprint = Blueprint("dashboard", __name__)
MOST_CAUSES = 8
PAGE_SIZE = 50
NEWEST = 10
"""Bookings on the first page."""
REFUSED = (
    "Address and password do not fit, or this user is disabled, or a first password is more than"
    " three days old. An admin can give you a new one."
)


@blueprint.get("/sign-in")
def sign_in_page() -> str:
    """Ask for address and password, or for a key."""
    return _sign_in_page()


@blueprint.post("/sign-in")
def sign_in_form() -> WerkzeugResponse | tuple[str, int]:
    """Begin a session."""
    if "key" in request.form:
        if sign_in(request.form["key"].strip()):
            return redirect(url_for("dashboard.index"), 303)
        return _sign_in_page(wrong_key=True), 401
    email, password = request.form.get("email", ""), request.form.get("password", "")
    if sign_in_with_password(email.strip(), password):
        return redirect(url_for("dashboard.index"), 303)
    return _sign_in_page(REFUSED), 401


@blueprint.post("/sign-out")
@needs(Permission.OWN_ACCOUNT)
def sign_out() -> WerkzeugResponse:
    """End the session."""
    end_session()
    return redirect(url_for("dashboard.sign_in_page"), 303)


@blueprint.get("/")
@needs(Permission.SEE_BOOKINGS)
def index() -> WerkzeugResponse:
    """What needs a person first, then how each account is doing, then the newest bookings."""
    asked = request.args.get("state")
    if asked is not None:
        # The list was here once: addresses that people keep go on working.
        return redirect(url_for("bookings.index", state=asked))
    workers = services().processes.workers()
    summary = Summary(services().store, services().sources)
    days = summary.days()
    values = {
        "providers": services().providers,
        "accounts": summary.accounts(),
        "days": days,
        "total_webhooks": sum(day.webhooks for day in days),
        "highest": max(day.webhooks for day in days),
        "silences": summary.silences(),
        "causes": open_causes(MOST_CAUSES),
        "quarantined": summary.quarantined(),
        "most": MOST,
        "problems": mapping_problems(),
        "workers": workers if workers.late(utcnow()) else None,
        "troubled": [v for v in services().sources.views() if not v.works or v.key_ends_soon],
    }
    if "HX-Request" not in request.headers:
        values |= {
            "bookings": BookingList(services().store, services().cipher)
            .page(Filters(), most=NEWEST)
            .bookings,
            "newest": NEWEST,
            "empty": "No booking has arrived yet.",
            "csrf": me().csrf,
        }
    return live.render("index.html", "overview_live.html", **values)


@blueprint.get("/events")
@needs(Permission.SEE_SETUP)
def events() -> WerkzeugResponse:
    """The webhooks that came last, or those in one status; each says what became of it."""
    asked = request.args.get("status", "")
    if asked and asked not in tuple(EventStatus):
        raise BadRequest(f"There is no status {asked!r}. There are: {', '.join(EventStatus)}.")
    before = request.args.get("before", type=int)
    before = before if before is not None and 0 < before <= LARGEST_ID else None
    rows = overview().events(PAGE_SIZE + 1, EventStatus(asked) if asked else None, before)
    return live.render(
        "events.html",
        "event_rows.html",
        events=rows[:PAGE_SIZE],
        before=rows[PAGE_SIZE - 1].id if len(rows) > PAGE_SIZE else None,
        status=asked,
        counts=overview().event_counts() if "HX-Request" not in request.headers else {},
        most=MOST,
    )


@blueprint.get("/events/<int:event_id>")
@needs(Permission.SEE_SETUP)
def event(event_id: int) -> str:
    """One webhook: what became of it, and its body, without people's data for those who only look."""
    row = _find_event(event_id)
    body, problem = None, ""
    try:
        found = overview().event(event_id)
        body = found.payload if found else None
    except (ContentDeleted, UnreadableSecret) as error:
        problem = str(error)
    whole = i_may(Permission.CHANGE_SETUP)
    shown = json.dumps(body if whole else masked(body), indent=2, ensure_ascii=False)
    return render_template(
        "event.html", event=row, body=shown if body is not None else "", problem=problem,
        whole=whole, csrf=me().csrf,
    )  # fmt: skip


@blueprint.post("/events/<int:event_id>/replay")
@needs(Permission.SYNC_BOOKINGS)
def replay(event_id: int) -> WerkzeugResponse:
    """Process a stored webhook again; records that are correct already are not written again."""
    _find_event(event_id)
    try:
        wake = services().intake.replay(event_id)
    except (LookupError, UnfitPayload) as error:
        raise BadRequest(f"It cannot be replayed: {error}.") from None
    services().waker.wake(wake)
    flash("The webhook is processed again. What is correct already is not written again.")
    return redirect(url_for("dashboard.event", event_id=event_id), 303)


def _find_event(event_id: int) -> EventRow:
    row = overview().event_row(event_id) if 0 < event_id <= LARGEST_ID else None
    if row is None:
        raise NotFound("There is no such webhook.")
    return row


def _sign_in_page(problem: str = "", wrong_key: bool = False) -> str:
    oidc = services().settings.oidc_issuer
    return render_template("sign_in.html", problem=problem, wrong_key=wrong_key, oidc=oidc)
