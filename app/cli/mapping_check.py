"""`flask mappings check`: whether a file is correct, for the language and for an account."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click
from flask.cli import AppGroup

from app.bootstrap import Services
from app.cli.mapping_shared import FILE, connection_row, read_file
from app.cli.mapping_words import complain, end
from app.crm.port import Adapter
from app.crm.schema import NewField
from app.domain.errors import CrmError, MappingError
from app.domain.text import nearest, quoted
from app.mapping.load import MappingText, read_text
from app.mapping.provision import retyped, type_in_words
from app.services.bookings import resync_all
from app.services.questions import answers_seen, questions_seen, warn


def add_check(group: AppGroup, services: Services) -> None:
    @group.command("check")
    @click.argument("file", type=FILE, required=False)
    @click.option("--connection", type=int, help="Also check against this CRM account.")
    @click.option("--provision", is_flag=True, help="Create the missing custom fields.")
    @click.option("--yes", is_flag=True, help="Create them without asking.")
    @click.option("--resync", is_flag=True, help="Then apply the mapping to past bookings.")
    def check(
        file: Path | None, connection: int | None, provision: bool, yes: bool, resync: bool
    ) -> None:
        """Check mapping files; exit 1 with file, line and key of every mistake.

        Without FILE and --connection the command checks the file of every CRM.
        """
        if connection is None:
            if provision or resync:
                raise click.ClickException("--provision and --resync need --connection.")
            _check_files(services, file)
            return
        row = connection_row(services, connection)
        text = read_file(file or services.mappings.path(row.provider), row.provider)
        _check_account(services, connection, text, provision, yes)
        if resync:
            if file and file.resolve() != services.mappings.path(row.provider).resolve():
                raise click.ClickException(
                    "--resync needs the file in use: put your file in its place."
                )
            number = resync_all(services.store, connection, text.version, "cli")
            services.waker.wake([connection])
            click.echo(f"{number} bookings are synced again with {text.name} {text.version}")


def _check_files(services: Services, file: Path | None) -> None:
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
            click.echo(f"{text.name} is good")
        mistakes += text.lines()
        warnings += warn(text, seen)
    end(mistakes, warnings)


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


def _check_account(
    services: Services, connection: int, text: MappingText, provision: bool, yes: bool
) -> None:
    try:
        adapter = services.adapter(connection)
        directory = adapter.directory()
        others = bool(text.mistakes)
        answers = answers_seen(services.store, services.cipher) if provision else {}
        complaints = complain(text, adapter.shape, directory, answers)
        others = others or any(item.missing is None for item in complaints)
        missing = list(dict.fromkeys(item.missing for item in complaints if item.missing))
        if missing and provision and others:
            click.echo("No custom field is created before the other mistakes are corrected.")
        elif missing and provision and _provision(adapter, missing, yes):
            text.mistakes.clear()
            text.reread()
            complain(text, adapter.shape, adapter.directory())
    except CrmError as error:
        raise click.ClickException(f"{error.message} {error.advice}") from None
    if not text.mistakes:
        click.echo(f"{text.name} is good for connection {connection}")
    end(text.lines(), warn(text, questions_seen(services.store, services.cipher)))


def _provision(adapter: Adapter, missing: list[NewField], yes: bool) -> bool:
    """Make the custom fields that a person agrees to, or all; return whether any was made."""
    wanted = missing if yes else _ask_for(missing)
    if yes:
        _show_new(wanted)
    for line in adapter.provision(wanted) if wanted else ():
        click.echo(line)
    return bool(wanted)


def _show_new(fields: Sequence[NewField]) -> None:
    click.echo("These custom fields would be created:")
    for field in fields:
        click.echo(f"  {field.object}.{field.name} ({type_in_words(field)})")


def _ask_for(fields: list[NewField]) -> list[NewField]:
    """Let a person agree, or give a field another type first; return none if the answer is no."""
    _show_new(fields)
    click.echo(f"For another type, answer {fields[0].object}.{fields[0].name}: one of a list: A, B")
    while True:
        answer = click.prompt("Create them? [y/N]", default="", show_default=False).strip()
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
