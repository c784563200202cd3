"""`flask mappings …`: check, preview and compare mapping files before they touch a CRM."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from app.bootstrap import Services
from app.cli.moments import read_moment
from app.crm.objects import FieldValue
from app.crm.schema import CrmShape, Directory, NewField
from app.domain.booking import Booking
from app.domain.errors import CrmError, MappingError
from app.domain.events import FORM_EVENT, read_booking, read_event, read_form
from app.domain.text import cut, nearest, quoted
from app.mapping.check import Complaint, check_against
from app.mapping.json_schema import json_schema
from app.mapping.load import MappingText, read_text
from app.mapping.mapping import Mapping
from app.mapping.provision import Seen as Answers
from app.mapping.provision import retyped, type_in_words
from app.services.preview import BookingPreview, Previewer, describe
from app.services.questions import answers_seen, questions_seen, warn
from app.store.delivery_marking import mark_replanned_due
from app.store.engine import utcnow
from app.store.inbox import read_event_row
from app.store.models import AuditLog, ConnectionRow, EventRow
from app.sync.desired import DesiredBooking, DesiredRecord, WriteRule
from app.sync.values import blank

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def mappings_group(services: Services) -> AppGroup:
    """The commands about mapping files."""
    group = AppGroup("mappings", help="Which booking data goes into which CRM field.")
    _add_check(group, services)
    _add_preview(group, services)
    _add_diff(group, services)
    _add_questions(group, services)

    @group.command("schema")
    def schema() -> None:
        """Print the JSON Schema of mapping files, for editors."""
        click.echo(json.dumps(json_schema(), indent=2))

    return group


def _add_check(group: AppGroup, services: Services) -> None:
    @group.command("check")
    @click.argument("file", type=FILE, required=False)
    @click.option("--connection", type=int, help="Also check against this CRM account.")
    @click.option("--provision", is_flag=True, help="Make the custom fields that are missing.")
    @click.option("--yes", is_flag=True, help="Make them without asking.")
    @click.option("--resync", is_flag=True, help="Then apply the mapping to past bookings.")
    def check(
        file: Path | None, connection: int | None, provision: bool, yes: bool, resync: bool
    ) -> None:
        """Check mapping files; exit 1 with file, line and key of every mistake.

        Without FILE and --connection every provider's own file is checked.
        """
        if connection is None:
            if provision or resync:
                raise click.ClickException("--provision and --resync need --connection.")
            _check_files(services, file)
            return
        row = _connection(services, connection)
        text = _read(file or services.mappings.path(row.provider), row.provider)
        _check_account(services, connection, text, provision, yes)
        if resync:
            if file and file.resolve() != services.mappings.path(row.provider).resolve():
                raise click.ClickException("--resync works on the file in use; put yours there.")
            with services.store.write() as session:
                number = mark_replanned_due(session, connection, text.version, utcnow())
                audit = AuditLog(actor="cli", action="resync", subject=str(connection), at=utcnow())
                session.add(audit)
            services.waker.wake([connection])
            click.echo(f"{number} bookings are synced again with {text.name} {text.version}")


def _check_files(services: Services, file: Path | None) -> None:
    mistakes: list[str] = []
    warnings: list[str] = []
    seen = questions_seen(services.store, services.cipher)
    if file is not None:
        files = {_crm_of(services, file): file}
    else:
        files = {name: services.mappings.path(name) for name in services.providers}
    for name, path in files.items():
        try:
            text = read_text(path, name)
        except MappingError as error:
            mistakes.append(str(error))
            continue
        if not text.mistakes:
            click.echo(f"{text.name} is good")
        mistakes += text.lines()
        warnings += warn(text, seen)
    _end(mistakes, warnings)


def _end(mistakes: Sequence[str], warnings: Sequence[str]) -> None:
    """Say what is wrong, and apart from it what may only be new; exit 1 where something is wrong."""
    if mistakes:
        click.echo("Error: " + "\n".join(mistakes), err=True)
    for line in warnings:
        click.echo(f"Warning: {line}", err=True)
    if mistakes:
        raise SystemExit(1)


def _crm_of(services: Services, file: Path) -> str:
    """The CRM that a file is for: the one that it names, or nearly; else the one it is called after.

    A slip in its name is told when the file is read, with all the others.
    """
    text = file.read_text("utf-8", errors="replace")
    said = re.search(r"^\W*crm\W+(\w+)", text, re.M)
    there = list(services.providers)
    near = nearest(said[1], there) if said else file.stem
    if near in there:
        return near
    if said is None:
        return there[0]
    line = text[: said.start(1)].count("\n") + 1
    raise click.ClickException(
        f"{file.name}:{line}: crm: there is no CRM {quoted(said[1])}; there are: {', '.join(there)}"
    )


def _read(path: Path, crm: str) -> MappingText:
    try:
        return read_text(path, crm)
    except MappingError as error:
        raise click.ClickException(str(error)) from None


def _check_account(
    services: Services, connection: int, text: MappingText, provision: bool, yes: bool
) -> None:
    try:
        adapter = services.adapter(connection)
        directory = adapter.directory()
        others = bool(text.mistakes)
        answers = answers_seen(services.store, services.cipher) if provision else {}
        complaints = _complain(text, adapter.shape, directory, answers)
        others = others or any(item.missing is None for item in complaints)
        missing = list(dict.fromkeys(item.missing for item in complaints if item.missing))
        if missing and provision and others:
            click.echo("No custom field is made before the other mistakes are mended.")
        elif missing and provision:
            wanted = missing if yes else _ask_for(missing)
            if yes:
                _show_new(wanted)
            if wanted:
                for line in adapter.provision(wanted):
                    click.echo(line)
                text.mistakes.clear()
                text.reread()
                _complain(text, adapter.shape, adapter.directory())
    except CrmError as error:
        raise click.ClickException(f"{error.message} {error.advice}") from None
    if not text.mistakes:
        click.echo(f"{text.name} is good for connection {connection}")
    _end(text.lines(), warn(text, questions_seen(services.store, services.cipher)))


def _show_new(fields: Sequence[NewField]) -> None:
    click.echo("These custom fields would be made:")
    for field in fields:
        click.echo(f"  {field.object}.{field.name} ({type_in_words(field)})")


def _ask_for(fields: list[NewField]) -> list[NewField]:
    """Let somebody say yes, or give one of the fields another type first; nothing for no."""
    _show_new(fields)
    click.echo(f"Another type? Answer {fields[0].object}.{fields[0].name}: one of a list: A, B")
    while True:
        answer = click.prompt("Make them? [y/N]", default="", show_default=False).strip()
        if answer.casefold() in ("y", "yes"):
            return fields
        if answer.casefold() in ("", "n", "no"):
            return []
        try:
            fields = retyped(fields, answer)
        except ValueError as error:
            click.echo(str(error))
        else:
            _show_new(fields)


def _complain(
    text: MappingText, shape: CrmShape, directory: Directory, answers: Answers | None = None
) -> list[Complaint]:
    """Note what the account speaks against, and give it."""
    if text.mapping is None:
        return []
    found = check_against(text.mapping, shape, directory, answers)
    complaints = [item for item in found if not text.left_out(item.location)]
    for complaint in complaints:
        text.note(complaint.location, complaint.message)
    return complaints


def _add_preview(group: AppGroup, services: Services) -> None:
    @group.command("preview")
    @click.argument("crm")
    @click.argument("payload", type=FILE, required=False)
    @click.option("--event", type=int, help="A stored webhook instead of a file.")
    @click.option("--booking", help="A stored booking, by its key or id.")
    @click.option("--since", help="Stored bookings: today, last-week, last-month or a date.")
    @click.option("--connection", type=int, help="Compare with what this CRM account holds.")
    @click.option("--mapping", "file", type=FILE, help="Another mapping file than the one in use.")
    @click.option("--json", "as_json", is_flag=True, help="As JSON.")
    def preview(
        crm: str, payload: Path | None, event: int | None, booking: str | None,
        since: str | None, connection: int | None, file: Path | None, as_json: bool,
    ) -> None:  # fmt: skip
        """Show what would be created, changed (old and new value) or left alone; nothing is written.

        Without --connection only the fields and their values are shown, and nobody is asked.
        """
        if crm not in services.providers:
            raise click.ClickException(f"There is no CRM {crm!r}.")
        previewer = Previewer(services.store, services.cipher, utcnow)
        bookings = _bookings(services, previewer, payload, event, booking, since)
        mapping = _load(services, file, crm) if file else services.mappings[crm]
        text = MappingText(file.name if file else f"{crm}.yaml", mapping.text, crm)
        _end((), warn(text, questions_seen(services.store, services.cipher), bookings))
        if connection is None:
            pairs = previewer.offline(mapping, services.shape(crm), bookings)
            _show_offline(pairs, as_json)
            return
        row = _connection(services, connection)
        if row.provider != crm:
            raise click.ClickException(f"Connection {connection} is one of {row.provider}.")
        try:
            adapter = services.adapter(connection)
            directory = adapter.directory()
            _must_fit(mapping, file, adapter.shape, directory)
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
        _fail_on([item.key for item in found if item.fails])


def _must_fit(mapping: Mapping, file: Path | None, shape: CrmShape, directory: Directory) -> None:
    """What the account would refuse is said instead of being shown as a plan."""
    if file:
        text = _read(file, mapping.crm)
        _complain(text, shape, directory)
        mistakes = text.lines()
    else:
        found = check_against(mapping, shape, directory)
        mistakes = [f"{complaint.key}: {complaint.message}" for complaint in found]
    if mistakes:
        raise click.ClickException("\n".join(mistakes))


def _load(services: Services, file: Path, crm: str) -> Mapping:
    try:
        return services.mappings.load(file, crm)
    except MappingError as error:
        raise click.ClickException(str(error)) from None


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
            with services.store.read() as session:
                row = session.get(EventRow, event)
            if row is None:
                raise click.ClickException(f"There is no event {event}.")
            message = read_event_row(row, services.cipher)
        made = read_form(message) if message.type == FORM_EVENT else read_booking(message)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if made is None:
        raise click.ClickException("The form names nobody: no e-mail and no phone number.")
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
    _fail_on(
        [booking.key for booking, plan in pairs if isinstance(plan, CrmError) or plan.problems]
    )


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
                table.add_row(record.ref.object.value, Text(field), _shown(value), rule)
        table.add_section()
    console.print(table)
    for words in (*_refusals(plan), *plan.notes):
        console.print(words, markup=False)


def _refusals(plan: DesiredBooking) -> list[str]:
    return [f"The {ref.object}: {error.message}" for ref, error in plan.problems.items()]


def _fail_on(problems: Sequence[str]) -> None:
    """End with exit code 1 where a booking would fail, once everything has been shown."""
    if problems:
        click.echo(f"{len(problems)} of the bookings would fail.", err=True)
        raise SystemExit(1)


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
                table.add_row(*first, Text(field.name), _shown(field.now), _shown(field.then))
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


def _shown(value: object) -> Text:
    """A value as it is: what strangers typed is no markup of a table."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Text(cut("" if value is None else text, 200))


def _add_diff(group: AppGroup, services: Services) -> None:
    @group.command("diff")
    @click.argument("old", type=FILE)
    @click.argument("new", type=FILE)
    @click.option("--events", "since", default="last-week", show_default=True,
                  help="Which stored bookings: today, last-week, last-month or a date.")  # fmt: skip
    def diff(old: Path, new: Path, since: str) -> None:
        """Say which bookings would come out differently; nobody is asked, nothing is written."""
        crm = _crm_of(services, new)
        first, second = _load(services, old, crm), _load(services, new, crm)
        previewer = Previewer(services.store, services.cipher, utcnow)
        bookings, shape = previewer.since(read_moment(since)), services.shape(crm)
        before = previewer.offline(first, shape, bookings)
        after = previewer.offline(second, shape, bookings)
        table = Table("booking", "who", "record", "field", "old", "new")
        different = set()
        for (booking, one), (_, two) in zip(before, after, strict=True):
            key, _, who = describe(booking)
            for row in _differences(one, two):
                different.add(key)
                table.add_row(Text(key), Text(who), *map(_shown, row))
        if different:
            Console().print(table)
        click.echo(f"{len(different)} of {len(bookings)} bookings would come out differently")


def _add_questions(group: AppGroup, services: Services) -> None:
    @group.command("questions")
    @click.option("--json", "as_json", is_flag=True, help="As JSON.")
    def questions(as_json: bool) -> None:
        """List the questions that stored bookings answer, with their meeting types."""
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
        which = "all there are" if seen.every else "those that changed last"
        click.echo(f"{len(seen.questions)} questions in {seen.bookings:,} bookings, {which}")


def _differences(
    one: DesiredBooking | CrmError, two: DesiredBooking | CrmError
) -> list[tuple[str, str, str, str]]:
    if isinstance(one, CrmError) or isinstance(two, CrmError):
        old, new = (side.message if isinstance(side, CrmError) else "works" for side in (one, two))
        return [("", "", old, new)] if old != new else []
    if one.skipped != two.skipped:
        return [("", "skipped", one.skipped, two.skipped)]
    rows: list[tuple[str, str, str, str]] = []
    first = {record.ref: record for record in one.records}
    second = {record.ref: record for record in two.records}
    for ref in dict.fromkeys([*first, *second]):
        if ref not in first or ref not in second:
            there = ("none", "made") if ref in second else ("made", "none")
            rows.append((ref.object.value, "", *there))
        else:
            pairs = _record_differences(first[ref], second[ref])
            rows += [(ref.object.value, *pair) for pair in pairs]
    return rows


def _record_differences(
    left: DesiredRecord, right: DesiredRecord
) -> Iterator[tuple[str, str, str]]:
    for field in dict.fromkeys([*left.fields, *right.fields]):
        old, new = left.fields.get(field), right.fields.get(field)
        rules = (left.rules.get(field, ""), right.rules.get(field, ""))
        # Nothing is written of a field that is empty, unless it may wipe one.
        idle = blank(old) and blank(new) and WriteRule.ALWAYS not in rules
        if old != new and not idle:
            yield field, _words(old), _words(new)
        elif rules[0] != rules[1] and not idle:
            yield f"{field} (write)", str(rules[0]), str(rules[1])
    for name, say in (("(on cancel)", _ending), ("(linked to)", _links), ("(found by)", _finding)):
        if say(left) != say(right):
            yield name, say(left), say(right)


def _words(value: FieldValue) -> str:
    return "" if value is None else str(value)


def _ending(record: DesiredRecord) -> str:
    return "taken out" if record.delete else "kept"


def _links(record: DesiredRecord) -> str:
    return ", ".join(f"{link.object} {link.key}" for link in record.links)


def _finding(record: DesiredRecord) -> str:
    match = record.match
    keys = ", ".join(" ".join(filter(None, (key.kind, key.field, key.value))) for key in match.keys)
    made = "made where none is found" if match.create else "never made"
    lost = f"where deleted: {match.lost}"
    return f"{keys}; the {match.several} of several; {made}; {lost}"


def _connection(services: Services, connection_id: int) -> ConnectionRow:
    with services.store.read() as session:
        row = session.get(ConnectionRow, connection_id)
    if row is None:
        raise click.ClickException(f"There is no connection {connection_id}.")
    return row
