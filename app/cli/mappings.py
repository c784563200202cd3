"""`bridge mappings …`: check, preview and compare mapping files before they touch a CRM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from app.bootstrap import Services
from app.cli.command import Answer, Group, Needs, as_json_text, command, many
from app.cli.connections import must_exist
from app.cli.later import Later
from app.cli.mapping_check import check
from app.cli.mapping_diff import diff
from app.cli.mapping_shared import FILE, failing, load_for, must_fit
from app.cli.mapping_shown import shown_value
from app.cli.mapping_versions import versions
from app.cli.moments import read_moment
from app.cli.tables import table_of
from app.domain.booking import Booking
from app.domain.errors import CrmError
from app.domain.events import FORM_EVENT, read_booking, read_event, read_form
from app.mapping.json_schema import json_schema
from app.mapping.load import MappingText
from app.mapping.mapping import Mapping
from app.services.overview import Overview
from app.services.preview import BookingPreview, Previewer, RecordView, describe
from app.services.questions import questions_seen, warn
from app.store.engine import utcnow
from app.sync.desired import DesiredBooking

mappings = Group("mappings", help="Which booking data goes into which CRM field.")
QUESTIONS = {
    "question": "label", "bookings": "bookings", "meeting types": "meeting_types",
    "used by": "used_by",
}  # fmt: skip
mappings.add_command(check)
mappings.add_command(diff)
mappings.add_command(versions)


@command("schema", "bridge mappings schema > mappings/schema.json", mappings, Needs.NOTHING)
def schema() -> Answer:
    """Print the JSON Schema of mapping files, for editors."""
    data = json_schema()
    return Answer(data, [as_json_text(data)])


@command(
    "preview", "bridge mappings preview hubspot payload.json --mapping draft.yaml", mappings,
    Needs.LATER,
)  # fmt: skip
@click.argument("crm")
@click.argument("payload", type=FILE, required=False)
@click.option("--event", type=int, help="The id of a stored webhook, instead of a file.")
@click.option("--booking", help="A stored booking, by its key or id.")
@click.option("--since", help="Stored bookings: today, last-week, last-month or a date.")
@click.option("--connection", type=int, help="Compare with the records in this CRM account.")
@click.option(
    "--mapping", "file", type=FILE, help="Use this mapping file instead of the one in use."
)
def preview(
    later: Later, crm: str, payload: Path | None, event: int | None, booking: str | None,
    since: str | None, connection: int | None, file: Path | None,
) -> Answer:  # fmt: skip
    """Show what a sync would create, change or leave; nothing is written.

    Without --connection only the fields and their values are shown, and no CRM is called.
    """
    stored = any(value is not None for value in (event, booking, since, connection))
    services = later.take() if stored else later.or_stand_in()
    if crm not in services.providers:
        there = ", ".join(services.providers)
        raise click.ClickException(f"There is no CRM {crm!r}; there are: {there}.")
    given = [value for value in (payload, event, booking, since) if value is not None]
    if len(given) != 1:
        raise click.UsageError("Give one of: a payload file, --event, --booking, --since.")
    previewer = Previewer(services.store, services.cipher, utcnow)
    bookings = _bookings(services, previewer, payload, event, booking, since)
    mapping = load_for(services, file, crm) if file else services.mappings[crm]
    text = MappingText(file.name if file else f"{crm}.yaml", mapping.text, crm)
    for line in warn(text, questions_seen(services.store, services.cipher), bookings):
        click.echo(f"Warning: {line}", err=True)
    if connection is None:
        return _offline(previewer.offline(mapping, services.shape(crm), bookings))
    found = _ask_crm(services, connection, previewer, mapping, file, bookings)
    keys = [item.key for item in found if item.fails]
    return Answer([item.as_json() for item in found], list(_live_parts(found)), failing(keys))


def _ask_crm(
    services: Services, connection: int, previewer: Previewer, mapping: Mapping,
    file: Path | None, bookings: list[Booking],
) -> list[BookingPreview]:  # fmt: skip
    row = must_exist(services, connection)
    if row.provider != mapping.crm:
        raise click.ClickException(
            f"Connection {connection} belongs to {row.provider}, not {mapping.crm}."
        )
    try:
        adapter = services.adapter(connection)
        directory = adapter.directory()
        must_fit(mapping, file, adapter.shape, directory)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Asking the CRM", total=len(bookings))
            return previewer.live(
                connection, adapter, mapping, bookings,
                lambda number: bar.update(task, completed=number), directory,
            )  # fmt: skip
    except CrmError as error:
        raise click.ClickException(f"{error.message} {error.advice}") from None


def _bookings(
    services: Services,
    previewer: Previewer,
    payload: Path | None,
    event: int | None,
    booking: str | None,
    since: str | None,
) -> list[Booking]:
    if since is not None:
        return previewer.since(read_moment(since))
    if booking is not None:
        found = previewer.stored(booking)
        if found is None:
            raise click.ClickException(f"There is no booking {booking!r}.")
        return [found]
    try:
        if payload is not None:
            message = read_event("default", _document(payload), utcnow())
        else:
            stored = Overview(services.store, services.cipher).event(event or 0)
            if stored is None:
                raise click.ClickException(f"There is no event {event}.")
            message = stored
        made = read_form(message) if message.type == FORM_EVENT else read_booking(message)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if made is None:
        raise click.ClickException("The form has neither an e-mail nor a phone number.")
    return [made]


def _document(payload: Path) -> object:
    """A file's JSON. Raises ValueError in words."""
    try:
        return json.loads(payload.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{payload.name} is not JSON.") from None


def _offline(pairs: list[tuple[Booking, DesiredBooking | CrmError]]) -> Answer:
    shown = [part for pair in pairs for part in _plan_parts(*pair)]
    fails = [b.key for b, plan in pairs if isinstance(plan, CrmError) or plan.problems]
    return Answer([_plain(*pair) for pair in pairs], shown, failing(fails))


def _plan_parts(booking: Booking, plan: DesiredBooking | CrmError) -> Iterator[str | Table]:
    key, title, who = describe(booking)
    yield click.style(f"{title}: {who} ({key})", bold=True)
    if isinstance(plan, CrmError) or plan.skipped:
        yield f"  {plan.message if isinstance(plan, CrmError) else f'skipped: {plan.skipped}'}"
        return
    table = Table("record", "field", "value", "written")
    for record in plan.records:
        for field, value in record.fields.items():
            if value not in (None, ""):
                rule = record.rules[field].value
                table.add_row(record.ref.object.value, Text(field), shown_value(value), rule)
        table.add_section()
    yield table
    yield from (*_refusals(plan), *plan.notes)


def _refusals(plan: DesiredBooking) -> list[str]:
    return [f"The {ref.object}: {error.message}" for ref, error in plan.problems.items()]


def _plain(booking: Booking, plan: DesiredBooking | CrmError) -> dict[str, object]:
    key, title, who = describe(booking)
    if isinstance(plan, CrmError):
        return {"key": key, "title": title, "who": who, "problem": plan.message}
    records = [{"object": r.ref.object.value, "fields": dict(r.fields)} for r in plan.records]
    return {
        "key": key, "title": title, "who": who, "skipped": plan.skipped, "records": records,
        "notes": [*_refusals(plan), *plan.notes],
    }  # fmt: skip


def _live_parts(found: list[BookingPreview]) -> Iterator[str | Table]:
    for item in found:
        yield click.style(f"{item.title}: {item.who} ({item.key})", bold=True)
        if item.skipped or item.problem:
            yield f"  {item.problem or 'skipped: ' + item.skipped}"
            continue
        table = Table("record", "what", "field", "now", "then")
        for record in item.records:
            _add_record(table, record)
        yield table
        yield from item.notes


def _add_record(table: Table, record: RecordView) -> None:
    first = (record.object, f"{record.action} {record.record_id or ''}".strip())
    for field in record.fields:
        table.add_row(*first, Text(field.name), shown_value(field.now), shown_value(field.then))
        first = ("", "")
    for link in record.links:
        table.add_row(*first, "link to", "", link)
        first = ("", "")
    if first[0]:
        table.add_row(*first)
    for note in record.notes:
        table.add_row("", "", "", "", Text(note))
    table.add_section()


@command("questions", "bridge mappings questions", mappings)
def questions(services: Services) -> Answer:
    """List the questions that stored bookings answer; also their meeting types, and who uses them."""
    files = {name: services.mappings[name] for name in services.providers}
    seen = questions_seen(services.store, services.cipher, files=files)
    items = [asdict(question) for question in seen.questions]
    unused = sum(not question.used_by for question in seen.questions)
    data = {"bookings": seen.bookings, "every": seen.every, "questions": items}
    which = "all that are stored" if seen.every else "the ones that changed last"
    told = f"{many(len(items), 'question')} in {many(seen.bookings, 'booking')}, {which}."
    if unused:
        told += f" No mapping file names {unused:,} of them."
    rows = [
        {**asdict(question), "meeting_types": _counted(question.by_type)}
        for question in seen.questions
    ]
    return Answer(data, [table_of(rows, QUESTIONS), told] if items else [told])


def _counted(by_type: MappingType[str, int]) -> str:
    return ", ".join(f"{name} ({number:,})" for name, number in by_type.items())
