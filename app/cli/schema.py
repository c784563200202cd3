"""`bridge db …`: the schema of the database; works also while it does not fit the code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from app.bootstrap import Services
from app.cli.command import Answer, Group, Needs, command
from app.store.engine import DBAPIError, PoolTimeout
from app.store.schema import SchemaFit, UnfitSchema

STOPPED = (
    "Web, workers and scheduler must be stopped: they work only with the newest schema, and each one"
    " brings the database up to date again when it starts."
)
db = Group("db", help="The schema of the database: its revision, the way up and down.")


@command("current", "bridge db current", db, Needs.WIRED)
def current(services: Services) -> Answer:
    """Show the revisions of database and code; exit 1 unless they fit."""
    with _told(services):
        state = services.store.schema.state()
    fits = state.fit is SchemaFit.FITS
    line = f"Database: {state.database or 'empty'}. Code: {state.code}."
    data = {"database": state.database, "code": state.code, "fit": state.fit}
    return Answer(data, [line, state.advice] if fits else [line], "" if fits else state.advice)


@command("upgrade", "bridge db upgrade", db, Needs.WIRED)
def upgrade(services: Services) -> Answer:
    """Bring the schema to the revision of the code."""
    with _told(services):
        before = services.store.schema.upgrade(services.cipher)
    told = (
        f"The database is at revision {before.code} already."
        if before.fit is SchemaFit.FITS
        else f"The database went from {before.database or 'empty'} to {before.code}."
    )
    return Answer({"before": before.database, "after": before.code}, [told])


@command("downgrade", "bridge db downgrade 0010", db, Needs.WIRED)
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
def downgrade(services: Services, revision: str, yes: bool) -> Answer:
    """Take the schema back to an older revision, such as 0010; what that one lacks is lost."""
    schema = services.store.schema
    with _told(services):
        state = schema.state()
        schema.check_downgrade(revision, state)
    data = {"before": state.database, "after": revision}
    if revision == state.database:
        return Answer(data, [f"The database is at revision {revision} already."])
    lost = f"{STOPPED}\nTables and columns that {revision} lacks are lost: make a backup."
    click.echo(lost, err=True)
    if not yes:
        question = f"Take the database from {state.database} to {revision}?"
        click.confirm(question, abort=True, err=True)
    with _told(services):
        schema.downgrade(revision, services.cipher)
    return Answer(data, [f"The database went from {state.database} to {revision}."])


@contextmanager
def _told(services: Services) -> Iterator[None]:
    """End the command with a sentence if the schema or the database does not allow it."""
    try:
        yield
    except UnfitSchema as error:
        raise click.ClickException(str(error)) from None
    except (DBAPIError, PoolTimeout, OSError) as error:
        raise click.ClickException(services.store.explain(error)) from None
