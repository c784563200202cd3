"""The pages for people: which bookings were synced, which were not, and why."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as WerkzeugResponse

from app.store.engine import utcnow
from app.store.states import DeliveryState
from app.web.access import me, services, sign_in, signed_in
from app.web.access import sign_out as end_session
from app.web.lookup import overview
from app.web.mappings import mapping_problems

LISTED = (
    DeliveryState.FAILED, DeliveryState.RETRYING, DeliveryState.DUE, DeliveryState.PARKED,
    DeliveryState.SKIPPED, DeliveryState.SYNCED,
)  # fmt: skip
"""The states that bookings may be listed by; those that need a person come first."""
blueprint = Blueprint("dashboard", __name__)
PAGE_SIZE = 50
MAX_PAGE = 1_000_000


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
def index() -> str:
    """Connections, then the bookings that changed last, all or those in one state."""
    asked = request.args.get("state", "")
    state = DeliveryState(asked) if asked in list(DeliveryState) else None
    workers = services().processes.workers()
    page = min(max(0, request.args.get("page", 0, type=int)), MAX_PAGE)
    return render_template(
        "index.html",
        providers=services().providers,
        connections=overview().connections(),
        bookings=overview().bookings(PAGE_SIZE, page * PAGE_SIZE, state),
        state=state,
        states=LISTED,
        problems=mapping_problems(),
        workers=workers if workers.late(utcnow()) else None,
        troubled=[v for v in services().sources.views() if not v.works or v.key_ends_soon],
        page=page,
        page_size=PAGE_SIZE,
        csrf=me().csrf,
    )


@blueprint.get("/events")
@signed_in
def events() -> str:
    """The webhooks that came last; quarantined ones show the reason."""
    return render_template("events.html", events=overview().events(100), csrf=me().csrf)
