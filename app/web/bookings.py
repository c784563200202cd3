"""A booking's page: its details, its state in each CRM, a preview, and how the meeting went."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as WerkzeugResponse

from app.domain.booking import Booking, MeetingOutcome
from app.domain.zones import local
from app.services.bookings import sync_again
from app.store.engine import utcnow
from app.web.access import me, services, signed_in
from app.web.lookup import connected, find_booking

blueprint = Blueprint("bookings", __name__, url_prefix="/bookings")
TAKE_BACK = "none"
"""The value that the form sends to take an outcome back."""


@blueprint.get("/<path:key>")
@signed_in
def show(key: str) -> str:
    """One booking."""
    found = find_booking(key)
    booking = found.booking
    return render_template(
        "booking.html",
        view=found.view,
        booking=booking,
        log=found.log,
        providers=services().providers,
        accounts={d.connection_id: d.provider for d in found.view.deliveries},
        when=span(booking),
        previous_starts=[local(moment, booking.timezone) for moment in booking.previous_starts],
        begun=booking.start <= utcnow(),
        csrf=me().csrf,
    )


@blueprint.post("/<path:key>/outcome")
@signed_in
def outcome(key: str) -> WerkzeugResponse:
    """Note how the meeting went, or take that back; the CRMs follow."""
    booking = find_booking(key).booking
    said = request.form.get("outcome", "")
    if booking.form or said not in (*MeetingOutcome, TAKE_BACK):
        raise BadRequest("A form has no meeting, so it has no outcome.")
    meant = None if said == TAKE_BACK else MeetingOutcome(said)
    wake = services().intake.say_outcome(booking.key, meant, me().name)
    services().waker.wake(wake)
    return redirect(url_for("bookings.show", key=booking.key), 303)


@blueprint.post("/<path:key>/sync")
@signed_in
def sync(key: str) -> WerkzeugResponse:
    """Sync the booking to every CRM once more."""
    booking = find_booking(key).booking
    services().waker.wake(sync_again(services().store, booking.key, me().name))
    return redirect(url_for("bookings.show", key=booking.key), 303)


@blueprint.get("/<path:key>/preview")
@signed_in
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
