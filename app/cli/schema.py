"""`flask db …`: the schema of the database; works also while it does not fit the code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from flask.cli import AppGroup

from app.bootstrap import Services
from app.store.engine import DBAPIError, PoolTimeout
from app.store.schema import SchemaFit, UnfitSchema

STOPPED = (
    "Web, workers and scheduler must be stopped: they work only with the newest schema, and each one"
    " brings the database up to date again when it starts."
)


def db_group(services: Services) -> AppGroup:
    """The commands about the schema of the database."""
    group = AppGroup("db", help="The schema of the database: its revision, the way up and down.")
    schema = services.store.schema

    @group.command("current")
    def current() -> None:
        """Show the revisions of database and code; exit 1 unless they fit."""
        with _told(services):
            state = schema.state()
        click.echo(f"Database: {state.database or 'empty'}. Code: {state.code}.")
        if state.fit is not SchemaFit.FITS:
            raise click.ClickException(state.advice)
        click.echo(state.advice)

    @group.command("upgrade")
    def upgrade() -> None:
        """Bring the schema to the revision of the code."""
        with _told(services):
            before = schema.upgrade(services.cipher)
        click.echo(
            f"The database is at revision {before.code} already."
            if before.fit is SchemaFit.FITS
            else f"The database went from {before.database or 'empty'} to {before.code}."
        )

    @group.command("downgrade")
    @click.argument("revision")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    def downgrade(revision: str, yes: bool) -> None:
        """Take the schema back to an older revision, such as 0010; what that one lacks is lost."""
        with _told(services):
            state = schema.state()
            schema.check_downgrade(revision, state)
        if revision == state.database:
            click.echo(f"The database is at revision {revision} already.")
            return
        click.echo(f"{STOPPED}\nTables and columns that {revision} lacks are lost: make a backup.")
        if not yes:
            click.confirm(f"Take the database from {state.database} to {revision}?", abort=True)
        with _told(services):
            schema.downgrade(revision, services.cipher)
        click.echo(f"The database went from {state.database} to {revision}.")

    return group


@contextmanager
def _told(services: Services) -> Iterator[None]:
    """End the command with a sentence if the schema or the database does not allow it."""
    try:
        yield
    except UnfitSchema as error:
        raise click.ClickException(str(error)) from None
    except (DBAPIError, PoolTimeout, OSError) as error:
        raise click.ClickException(services.store.explain(error)) from None
