"""`flask mappings …`: check, preview and compare mapping files before they touch a CRM."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from app.bootstrap import Services
from app.cli.mapping_check import add_check
from app.cli.mapping_diff import add_diff
from app.cli.mapping_shared import FILE, connection_row, fail_on, load_for, must_fit
from app.cli.mapping_shown import shown_value
from app.cli.mapping_words import end
from app.cli.moments import read_moment
from app.domain.booking import Booking
from app.domain.errors import CrmError
from app.domain.events import FORM_EVENT, read_booking, read_event, read_form
from app.mapping.json_schema import json_schema
from app.mapping.load import MappingText
from app.services.overview import Overview
from app.services.preview import BookingPreview, Previewer, describe
from app.services.questions import questions_seen, warn
from app.store.engine import utcnow
from app.sync.desired import DesiredBooking


def mappings_group(services: Services) -> AppGroup:
    """The commands about mapping files."""
    group = AppGroup("mappings", help="Which booking data goes into which CRM field.")
    add_check(group, services)
    _add_preview(group, services)
    add_diff(group, services)
    _add_questions(group, services)

    @group.command("schema")
    def schema() -> None:
        """Print the JSON Schema of mapping files, for editors."""
        click.echo(json.dumps(json_schema(), indent=2))

    return group


def _add_preview(group: AppGroup, services: Services) -> None:
    @group.command("preview")
    @click.argument("crm")
    @click.argument("payload", type=FILE, required=False)
    @click.option("--event", type=int, help="The id of a stored webhook, instead of a file.")
    @click.option("--booking", help="A stored booking, by its key or id.")
    @click.option("--since", help="Stored bookings: today, last-week, last-month or a date.")
    @click.option("--connection", type=int, help="Compare with the records in this CRM account.")
    @click.option(
        "--mapping", "file", type=FILE, help="Use this mapping file instead of the one in use."
    )
    @click.option("--json", "as_json", is_flag=True, help="As JSON.")
    def preview(
        crm: str, payload: Path | None, event: int | None, booking: str | None,
        since: str | None, connection: int | None, file: Path | None, as_json: bool,
    ) -> None:  # fmt: skip
        """Show what would be created, changed (old and new value) or left alone; nothing is written.

        Without --connection only the fields and their values are shown, and no CRM is called.
        """
        if crm not in services.providers:
            raise click.ClickException(f"There is no CRM {crm!r}.")
        previewer = Previewer(services.store, services.cipher, utcnow)
        bookings = _bookings(services, previewer, payload, event, booking, since)
        mapping = load_for(services, file, crm) if file else services.mappings[crm]
        text = MappingText(file.name if file else f"{crm}.yaml", mapping.text, crm)
        end((), warn(text, questions_seen(services.store, services.cipher), bookings))
        if connection is None:
            pairs = previewer.offline(mapping, services.shape(crm), bookings)
            _show_offline(pairs, as_json)
            return
        row = connection_row(services, connection)
        if row.provider != crm:
            raise click.ClickException(
                f"Connection {connection} belongs to {row.provider}, not {crm}."
            )
        try:
            adapter = services.adapter(connection)
            directory = adapter.directory()
            must_fit(mapping, file, adapter.shape, directory)
            with Progress(console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task("Asking the CRM", total=len(bookings))
                found = previewer.live(
                    connection, adapter, mapping, bookings,
                    lambda number: bar.update(task, completed=number), directory,
                )  # fmt: skip
        except CrmError as error:
            raise click.ClickException(f"{error.message} {error.advice}") from None
        if as_json:
            click.echo(json.dumps([item.as_json() for item in found], indent=2, ensure_ascii=False))
        else:
            _show_live(found)
        fail_on([item.key for item in found if item.fails])


def _bookings(
    services: Services,
    previewer: Previewer,
    payload: Path | None,
    event: int | None,
    booking: str | None,
    since: str | None,
) -> list[Booking]:
    given = [value for value in (payload, event, booking, since) if value is not None]
    if len(given) != 1:
        raise click.ClickException("Give one of: a payload file, --event, --booking, --since.")
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


def _show_offline(pairs: list[tuple[Booking, DesiredBooking | CrmError]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_plain(*pair) for pair in pairs], indent=2, ensure_ascii=False))
    else:
        for booking, plan in pairs:
            _show_plan(Console(), booking, plan)
    fail_on([booking.key for booking, plan in pairs if isinstance(plan, CrmError) or plan.problems])


def _show_plan(console: Console, booking: Booking, plan: DesiredBooking | CrmError) -> None:
    key, title, who = describe(booking)
    console.print(f"{title}: {who} ({key})", style="bold", markup=False)
    if isinstance(plan, CrmError) or plan.skipped:
        words = plan.message if isinstance(plan, CrmError) else f"skipped: {plan.skipped}"
        console.print(f"  {words}", markup=False)
        return
    table = Table("record", "field", "value", "written")
    for record in plan.records:
        for field, value in record.fields.items():
            if value not in (None, ""):
                rule = record.rules[field].value
                table.add_row(record.ref.object.value, Text(field), shown_value(value), rule)
        table.add_section()
    console.print(table)
    for words in (*_refusals(plan), *plan.notes):
        console.print(words, markup=False)


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


def _show_live(found: list[BookingPreview]) -> None:
    console = Console()
    for item in found:
        console.print(f"{item.title}: {item.who} ({item.key})", style="bold", markup=False)
        if item.skipped or item.problem:
            console.print(f"  {item.problem or 'skipped: ' + item.skipped}", markup=False)
            continue
        table = Table("record", "what", "field", "now", "then")
        for record in item.records:
            first = (record.object, f"{record.action} {record.record_id or ''}".strip())
            for field in record.fields:
                table.add_row(
                    *first, Text(field.name), shown_value(field.now), shown_value(field.then)
                )
                first = ("", "")
            for link in record.links:
                table.add_row(*first, "link to", "", link)
                first = ("", "")
            if first[0]:
                table.add_row(*first)
            for note in record.notes:
                table.add_row("", "", "", "", Text(note))
            table.add_section()
        console.print(table)
        for note in item.notes:
            console.print(note, markup=False)


def _add_questions(group: AppGroup, services: Services) -> None:
    @group.command("questions")
    @click.option("--json", "as_json", is_flag=True, help="As JSON.")
    def questions(as_json: bool) -> None:
        """List the questions answered in stored bookings, with their meeting types."""
        seen = questions_seen(services.store, services.cipher)
        if as_json:
            shown = {
                "bookings": seen.bookings,
                "every": seen.every,
                "questions": [asdict(question) for question in seen.questions],
            }
            click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
            return
        table = Table("question", "bookings", "meeting types")
        for question in seen.questions:
            types = ", ".join(question.meeting_types)
            table.add_row(Text(question.label), str(question.bookings), Text(types))
        if seen.questions:
            Console().print(table)
        which = "all that are stored" if seen.every else "the ones that changed last"
        click.echo(f"{len(seen.questions)} questions in {seen.bookings:,} bookings, {which}")
