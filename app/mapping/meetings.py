"""Plans a booking's meeting and, if the file keeps a history, its meetings at earlier times."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial

from app.crm.objects import ObjectName, Ref
from app.domain.booking import Booking, BookingStatus
from app.mapping.plan_context import PlanInputs, PlanReport
from app.mapping.records import attempt, record_of_booking
from app.mapping.schema import MeetingRules
from app.sync.desired import DesiredRecord


def meeting_records(
    inputs: PlanInputs,
    report: PlanReport,
    section: MeetingRules,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
    current_key: str = "",
) -> list[DesiredRecord]:
    """Return the meeting, and before it one for each earlier start if the history is kept.

    `current_key`: our key for the existing meeting that moves with the booking; if empty, the
    booking's own key.
    """
    booking = inputs.booking
    records: list[DesiredRecord] = []
    key = current_key or booking.record_key
    if section.on_reschedule == "keep_history":
        keys = meeting_keys(booking)
        key = keys[booking.start]
        for start in booking.previous_starts:
            then = _moved_away(inputs, start)
            records += _meeting(then, report, section, links, {}, keys[start])
    current = _meeting(inputs, report, section, links, overflow, key)
    if booking.cancelled and section.on_cancel == "delete":
        current = [replace(record, delete=True) for record in current]
    return records + current


def _moved_away(inputs: PlanInputs, start: datetime) -> PlanInputs:
    """Return the inputs for the meeting at an earlier start, marked as moved away."""
    booking = inputs.booking
    end = start + (booking.end - booking.start)
    then = replace(booking, start=start, end=end, status=BookingStatus.SCHEDULED)
    return replace(inputs, booking=then, moved_away=True)


def _meeting(
    inputs: PlanInputs,
    report: PlanReport,
    section: MeetingRules,
    links: tuple[Ref, ...],
    overflow: dict[str, str],
    key: str,
) -> list[DesiredRecord]:
    ref = Ref(ObjectName.MEETING, key)
    make = partial(record_of_booking, inputs, report, ref, section, links, overflow)
    return attempt(inputs, report, ref, make)


def meeting_keys(booking: Booking) -> dict[datetime, str]:
    """Return start -> our key for that meeting. The earliest one has the booking's own key: a
    meeting that was created before the file asked for a history is not created again."""
    starts = sorted({*booking.previous_starts, booking.start})
    base = booking.record_key
    later = {start: f"{base}@{start:%Y%m%dT%H%M%SZ}" for start in starts[1:]}
    return {starts[0]: base, **later}
