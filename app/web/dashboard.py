"""The pages for people: which bookings were synced, which were not, and why."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.roles import Permission
from app.services.booking_list import BookingList, Filters
from app.services.summary import MOST, Summary
from app.store.engine import utcnow
from app.web import live
from app.web.access import me, needs, services, sign_in, sign_in_with_password
from app.web.access import sign_out as end_session
from app.web.causes import open_causes
from app.web.lookup import overview
from app.web.mappings import mapping_problems

blueprint = Blueprint("dashboard", __name__)
MOST_CAUSES = 8
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
def events() -> str:
    """The webhooks that came last; quarantined ones show the reason."""
    return render_template("events.html", events=overview().events(100), csrf=me().csrf)


def _sign_in_page(problem: str = "", wrong_key: bool = False) -> str:
    oidc = services().settings.oidc_issuer
    return render_template("sign_in.html", problem=problem, wrong_key=wrong_key, oidc=oidc)
