"""The pages for people: which bookings were synced, which were not, and why."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as WerkzeugResponse

from app.services.booking_list import BookingList, Filters
from app.services.summary import MOST, Summary
from app.store.engine import utcnow
from app.web import live
from app.web.access import me, services, sign_in, signed_in
from app.web.access import sign_out as end_session
from app.web.lookup import overview
from app.web.mappings import mapping_problems

blueprint = Blueprint("dashboard", __name__)
NEWEST = 10
"""Bookings on the first page."""


@blueprint.get("/sign-in")
def sign_in_page() -> str:
    """Ask for a key."""
    return render_template("sign_in.html", wrong=False)


@blueprint.post("/sign-in")
def sign_in_form() -> WerkzeugResponse | tuple[str, int]:
    """Begin a session."""
    if sign_in(request.form.get("key", "").strip()):
        return redirect(url_for("dashboard.index"), 303)
    return render_template("sign_in.html", wrong=True), 401


@blueprint.post("/sign-out")
@signed_in
def sign_out() -> WerkzeugResponse:
    """End the session."""
    end_session()
    return redirect(url_for("dashboard.sign_in_page"), 303)


@blueprint.get("/")
@signed_in
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
@signed_in
def events() -> str:
    """The webhooks that came last; quarantined ones show the reason."""
    return render_template("events.html", events=overview().events(100), csrf=me().csrf)
