"""A booking's page: its details, its state in each CRM, a preview, and how the meeting went."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime

from flask import Blueprint, flash, jsonify, redirect, render_template, request, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.booking import Booking, MeetingOutcome
from app.domain.roles import Permission
from app.domain.zones import local
from app.services.booking_list import PERIODS, BookingList, BookingPage, Filters, UnfitFilter
from app.services.bookings import sync_again
from app.services.overview import BookingDetail, LogView, WebhookView
from app.store.engine import utcnow
from app.web import live
from app.web.access import me, needs, services
from app.web.lists import as_csv
from app.web.lookup import connected, find_booking

blueprint = Blueprint("bookings", __name__)
PAGE_SIZE = 50
MOST_ROWS = 1000
"""Bookings in one file."""
MOST_TEXT = 200
"""Characters of one filter."""
TAKE_BACK = "none"
"""The value that the form sends to take an outcome back."""


@blueprint.get("/bookings")
@needs(Permission.SEE_BOOKINGS)
def index() -> WerkzeugResponse | tuple[WerkzeugResponse, int]:
    """The list of bookings: searched, filtered, live."""
    filters, problem = _filters(), ""
    try:
        most = min(max(1, request.args.get("most", PAGE_SIZE, type=int)), PAGE_SIZE)
        page = booking_list().page(filters, request.args.get("after"), most)
    except UnfitFilter as error:
        page, problem = BookingPage((), None), str(error)
    found = live.render(
        "bookings.html",
        "booking_rows.html",
        bookings=page.bookings,
        after=page.after,
        filters=filters,
        facets=booking_list().facets(filters) if "HX-Request" not in request.headers else {},
        periods=tuple(PERIODS),
        problem=problem,
        providers=services().providers,
        empty="No booking fits." if filters.given() else "No booking has arrived yet.",
    )
    return (found, 400) if problem else found


@blueprint.get("/bookings.json")
@needs(Permission.SEE_BOOKINGS)
def as_json() -> WerkzeugResponse:
    """The same list as data."""
    page = _page_or_refuse()
    return jsonify(bookings=[view.as_json() for view in page.bookings], after=page.after)


@blueprint.get("/bookings.csv")
@needs(Permission.SEE_BOOKINGS)
def as_csv_file() -> WerkzeugResponse:
    """The same list for a spreadsheet, a line for each booking and CRM."""
    columns = (
        "key",
        "title",
        "who",
        "start",
        "status",
        "outcome",
        "crm",
        "state",
        "reason",
        "advice",
    )
    rows = [
        {
            "key": view.key, "title": view.title, "who": view.who, "start": view.start,
            "status": view.status, "outcome": view.outcome, "crm": delivery.provider,
            "state": delivery.state, "reason": delivery.error, "advice": delivery.advice,
        }
        for view in _page_or_refuse().bookings
        for delivery in view.deliveries
    ]  # fmt: skip
    return as_csv("bookings", columns, rows)


def _history(found: BookingDetail) -> list[tuple[datetime, LogView | WebhookView]]:
    """What came and what was done, the last first."""
    every: list[tuple[datetime, LogView | WebhookView]] = [
        *((line.at, line) for line in found.log),
        *((webhook.at, webhook) for webhook in found.webhooks),
    ]
    return sorted(every, key=lambda each: each[0], reverse=True)


def booking_list() -> BookingList:
    """The reader of the list."""
    return BookingList(services().store, services().cipher)


def _filters() -> Filters:
    names = [field.name for field in fields(Filters)]
    return Filters(**{name: request.args.get(name, "")[:MOST_TEXT] for name in names})


def _page_or_refuse() -> BookingPage:
    try:
        return booking_list().page(_filters(), request.args.get("after"), MOST_ROWS)
    except UnfitFilter as error:
        raise BadRequest(str(error)) from None


@blueprint.get("/bookings/<path:key>")
@needs(Permission.SEE_BOOKINGS)
def show(key: str) -> WerkzeugResponse:
    """One booking."""
    found = find_booking(key)
    booking = found.booking
    planned = {(d.provider, d.mapping_version or "") for d in found.view.deliveries}
    return live.render(
        "booking.html",
        "booking_live.html",
        view=found.view,
        kept=services().versions.kept(planned),
        booking=booking,
        history=_history(found),
        providers=services().providers,
        accounts={d.connection_id: d.provider for d in found.view.deliveries},
        when=span(booking),
        previous_starts=[local(moment, booking.timezone) for moment in booking.previous_starts],
        begun=booking.start <= utcnow(),
        csrf=me().csrf,
    )


@blueprint.post("/bookings/<path:key>/outcome")
@needs(Permission.SAY_OUTCOMES)
def outcome(key: str) -> WerkzeugResponse:
    """Note how the meeting went, or take that back; the CRMs follow."""
    booking = find_booking(key).booking
    said = request.form.get("outcome", "")
    if booking.form or said not in (*MeetingOutcome, TAKE_BACK):
        raise BadRequest("A form has no meeting, so it has no outcome.")
    meant = None if said == TAKE_BACK else MeetingOutcome(said)
    wake = services().intake.say_outcome(booking.key, meant, me().name)
    services().waker.wake(wake)
    told = f"The outcome is {said.replace('_', '-')}" if meant else "The outcome is taken back"
    flash(f"{told}. The CRMs are being brought up to date.")
    return redirect(url_for("bookings.show", key=booking.key), 303)


@blueprint.post("/bookings/<path:key>/sync")
@needs(Permission.SYNC_BOOKINGS)
def sync(key: str) -> WerkzeugResponse:
    """Sync the booking to every CRM once more."""
    booking = find_booking(key).booking
    services().waker.wake(sync_again(services().store, booking.key, me().name))
    flash("The sync has begun. This page shows by itself how it ends.")
    return redirect(url_for("bookings.show", key=booking.key), 303)


@blueprint.get("/bookings/<path:key>/preview")
@needs(Permission.SEE_BOOKINGS)
def ask_preview(key: str) -> str:
    """Show what would be created, changed or left alone in each CRM now; nothing is written."""
    found = find_booking(key)
    return render_template(
        "preview.html",
        view=found.view,
        when=span(found.booking),
        accounts=[services().trial.preview_account(row, [found.booking]) for row in connected()],
        providers=services().providers,
        html_fields=html_fields(),
    )


def html_fields() -> dict[str, frozenset[str]]:
    """Provider -> `object.field` of the fields that hold HTML there."""
    return {name: services().shape(name).html_fields for name in services().providers}


def span(booking: Booking) -> str:
    """Day, time, zone and length, on the attendee's clock."""
    start, end = local(booking.start, booking.timezone), local(booking.end, booking.timezone)
    if booking.form:
        return f"{start:%Y-%m-%d %H:%M} ({booking.timezone})"
    until = f"{end:%H:%M}" if end.date() == start.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"{start:%A %Y-%m-%d %H:%M}–{until} ({booking.timezone}), {booking.minutes} minutes"
