"""The pages of causes: why bookings are not synced, and one order for all that share a cause."""

from __future__ import annotations

from flask import Blueprint, flash, jsonify, redirect, request, url_for
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.roles import Permission
from app.services.causes import CauseState, CauseView, NoCause
from app.web import live
from app.web.access import me, needs, services
from app.web.lists import as_csv

blueprint = Blueprint("causes", __name__)
ACTIVE = (CauseState.OPEN, CauseState.CAME_BACK)
MOST = 200
LONGEST_KEY = 64
COLUMNS = (
    "key", "crm", "account", "state", "bookings", "sentence", "advice", "first_seen", "last_seen",
)  # fmt: skip


@blueprint.get("/causes")
@needs(Permission.SEE_BOOKINGS)
def index() -> WerkzeugResponse:
    """The causes that are open, or those in one state."""
    return live.render(
        "causes.html",
        "cause_rows.html",
        causes=_listed(),
        state=request.args.get("state", ""),
        states=tuple(CauseState),
    )


@blueprint.get("/causes.json")
@needs(Permission.SEE_BOOKINGS)
def as_json() -> WerkzeugResponse:
    """The same list as data."""
    return jsonify(causes=[cause.as_json() for cause in _listed()])


@blueprint.get("/causes.csv")
@needs(Permission.SEE_BOOKINGS)
def as_csv_file() -> WerkzeugResponse:
    """The same list for a spreadsheet."""
    return as_csv("causes", COLUMNS, [cause.as_json() for cause in _listed()])


@blueprint.get("/causes/<key>")
@needs(Permission.SEE_BOOKINGS)
def show(key: str) -> WerkzeugResponse:
    """One cause: what happened, what to do, its bookings, and how far a retry is."""
    cause = _find(key)
    return live.render(
        "cause.html",
        "cause_live.html",
        cause=cause,
        plan=services().causes.plan(key),
        providers=services().providers,
        csrf=me().csrf,
    )


@blueprint.post("/causes/<key>/retry")
@needs(Permission.SYNC_BOOKINGS)
def retry(key: str) -> WerkzeugResponse:
    """Try all bookings of a cause again."""
    _find(key)
    try:
        begun = services().causes.retry(key, me().name)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    many = f"{begun.planned:,} bookings are" if begun.planned != 1 else "1 booking is"
    flash(f"{many} being tried again. This page shows by itself how far that is.")
    return redirect(url_for("causes.show", key=key), 303)


@blueprint.post("/causes/<key>/stop")
@needs(Permission.SYNC_BOOKINGS)
def stop(key: str) -> WerkzeugResponse:
    """Stop the last retry of a cause."""
    last = _find(key).retry
    if last is None:
        raise BadRequest("There is no retry to stop.")
    services().causes.stop(last.id, me().name)
    flash("The retry is stopped. What had not begun stays failed.")
    return redirect(url_for("causes.show", key=key), 303)


@blueprint.post("/causes/<key>/ignore")
@needs(Permission.SYNC_BOOKINGS)
def ignore(key: str) -> WerkzeugResponse:
    """Ignore a cause until the mapping file changes."""
    _find(key)
    services().causes.ignore(key, me().name)
    flash("The cause is ignored until the mapping file changes.")
    return redirect(url_for("causes.show", key=key), 303)


@blueprint.post("/causes/<key>/unignore")
@needs(Permission.SYNC_BOOKINGS)
def unignore(key: str) -> WerkzeugResponse:
    """Ignore a cause no longer."""
    _find(key)
    services().causes.unignore(key, me().name)
    flash("The cause is open again.")
    return redirect(url_for("causes.show", key=key), 303)


def open_causes(most: int) -> list[CauseView]:
    """The causes that need a person."""
    return [each for each in services().causes.listed(limit=MOST) if each.state in ACTIVE][:most]


def _listed() -> list[CauseView]:
    state = request.args.get("state", "")
    if not state:
        return open_causes(MOST)
    if state not in tuple(CauseState):
        raise BadRequest(f"There is no state {state!r}. There are: {', '.join(CauseState)}.")
    return services().causes.listed(CauseState(state), MOST)


def _find(key: str) -> CauseView:
    try:
        return services().causes.one(key[:LONGEST_KEY])
    except NoCause as error:
        raise NotFound(str(error)) from None
