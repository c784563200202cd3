"""`bridge mappings check`: whether a file is correct, for the language and for an account."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from app.bootstrap import Services
from app.cli.command import Answer, Needs, command, many
from app.cli.connections import must_exist
from app.cli.later import Later
from app.cli.mapping_shared import FILE, read_file
from app.cli.mapping_words import checked, complain
from app.crm.schema import Directory, NewField
from app.domain.errors import CrmError, MappingError
from app.domain.text import nearest, quoted
from app.mapping.load import MappingText, read_text
from app.mapping.provision import Seen as Answers
from app.mapping.provision import new_in_words, retyped
from app.mapping.unfit_answers import unfit_answers
from app.services.bookings import resync_all
from app.services.questions import answers_seen, questions_seen, warn


@command("check", "bridge mappings check draft.yaml --connection 1", needs=Needs.LATER)
@click.argument("file", type=FILE, required=False)
@click.option("--connection", type=int, help="Also check against this CRM account.")
@click.option("--provision", is_flag=True, help="Create the missing custom fields.")
@click.option("--yes", is_flag=True, help="Create them without asking.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="FIELD: TYPE",
    help='A new field\'s type: "contact.plan: one of a list: A, B". May be repeated.',
)
@click.option("--resync", is_flag=True, help="Then apply the mapping to past bookings.")
def check(
    later: Later, file: Path | None, connection: int | None, provision: bool, yes: bool,
    resync: bool, types: tuple[str, ...],
) -> Answer:  # fmt: skip
    """Check mapping files; exit 1 with file, line and key of every mistake.

    Without FILE and --connection the command checks the file of every CRM.
    """
    if connection is None:
        if provision or resync or types:
            raise click.UsageError("--provision, --type and --resync need --connection.")
        return _check_files(later.or_stand_in(), file)
    if types and not provision:
        raise click.UsageError("--type needs --provision.")
    services = later.take()
    row = must_exist(services, connection)
    text = read_file(file or services.mappings.path(row.provider), row.provider)
    in_use = services.mappings.path(row.provider)
    if resync and file and file.resolve() != in_use.resolve():
        raise click.ClickException("--resync needs the file in use: put your file in its place.")
    lines = _check_account(services, connection, text, _Creation(provision, yes, types))
    warnings = warn(text, questions_seen(services.store, services.cipher))
    if text.mistakes:
        return checked([], text.lines(), warnings, lines)
    lines.append(f"{text.name} is good for connection {connection}.")
    if not resync:
        return checked([text.name], [], warnings, lines)
    number = resync_all(services.store, connection, text.version, "cli")
    services.waker.wake([connection])
    lines.append(
        f"{many(number, 'booking is', 'bookings are')} synced again with {text.name} {text.version}."
    )
    return checked([text.name], [], warnings, lines, number)


def _check_files(services: Services, file: Path | None) -> Answer:
    good: list[str] = []
    mistakes: list[str] = []
    warnings: list[str] = []
    seen = questions_seen(services.store, services.cipher)
    if file is not None:
        files = {crm_of(services, file): file}
    else:
        files = {name: services.mappings.path(name) for name in services.providers}
    for name, path in files.items():
        try:
            text = read_text(path, name)
        except MappingError as error:
            mistakes.append(str(error))
            continue
        if not text.mistakes:
            good.append(text.name)
        mistakes += text.lines()
        warnings += warn(text, seen)
    return checked(good, mistakes, warnings, [f"{name} is good." for name in good])


def crm_of(services: Services, file: Path) -> str:
    """The CRM of a file: the one that it names, or nearly names; else the one of the file's name.

    A misspelt name is reported when the file is read, with all other mistakes.
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


@dataclass(frozen=True)
class _Creation:
    """Whether missing custom fields are created, without a question, and with which types."""

    wanted: bool
    yes: bool
    types: tuple[str, ...]

    def agreed(self, missing: list[NewField]) -> list[NewField]:
        """The fields to create: those that a person agrees to. Raises UsageError for a wrong type."""
        for words in self.types:
            try:
                missing = retyped(missing, words)
            except ValueError as error:
                raise click.UsageError(f"--type {words!r}: {error}") from None
        if self.yes:
            _show_new(missing)
        return missing if self.yes else _ask_for(missing)


def _check_account(
    services: Services, connection: int, text: MappingText, creation: _Creation
) -> list[str]:
    """Note in the text what does not fit the account; return what was done, in lines."""
    lines: list[str] = []
    try:
        adapter = services.adapter(connection)
        directory = adapter.directory()
        others = bool(text.mistakes)
        answers = answers_seen(services.store, services.cipher)
        complaints = complain(text, adapter.shape, directory, answers)
        _doubt(text, directory, answers)
        others = others or any(item.missing is None for item in complaints)
        missing = list(dict.fromkeys(item.missing for item in complaints if item.missing))
        if missing and creation.wanted and others:
            lines.append("No custom field is created before the other mistakes are corrected.")
        elif missing and creation.wanted and (wanted := creation.agreed(missing)):
            lines += adapter.provision(wanted)
            text.mistakes.clear()
            text.reread()
            complain(text, adapter.shape, adapter.directory())
    except CrmError as error:
        raise click.ClickException(f"{error.message} {error.advice}") from None
    return lines


def _doubt(text: MappingText, directory: Directory, answers: Answers) -> None:
    """Warn of answers that did not fit their field so far."""
    for doubt in unfit_answers(text.mapping, directory, answers) if text.mapping else ():
        text.warn(doubt.location, doubt.message)


def _show_new(fields: Sequence[NewField]) -> None:
    click.echo("These custom fields would be created:", err=True)
    for field in fields:
        click.echo(f"  {new_in_words(field)}", err=True)


def _ask_for(fields: list[NewField]) -> list[NewField]:
    """Let a person agree, or give a field another type first; return none if the answer is no."""
    _show_new(fields)
    first = f"{fields[0].object}.{fields[0].name}"
    click.echo(f"For another type, answer {first}: one of a list: A, B", err=True)
    while True:
        answer = click.prompt(
            "Create them? [y/N]", default="", show_default=False, err=True
        ).strip()
        if answer.casefold() in ("y", "yes"):
            return fields
        if answer.casefold() in ("", "n", "no"):
            return []
        try:
            fields = retyped(fields, answer)
        except ValueError as error:
            click.echo(str(error), err=True)
        else:
            _show_new(fields)
