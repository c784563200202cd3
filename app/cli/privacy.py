"""`flask retention …`: the deletion of people's data whose time is over."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from flask import Flask
from flask.cli import AppGroup
from rich.console import Console
from rich.table import Table

from app.bootstrap import Services
from app.security.encryption import UnreadableSecret
from app.services.erasure import Busy
from app.store.erasure import PersonRecord


def retention_group(services: Services) -> AppGroup:
    """The commands about the deletion of old data."""
    group = AppGroup("retention", help="People's data, deleted RETENTION_DAYS after a meeting.")

    @group.command("show")
    def show() -> None:
        """Show how long data is kept, and what the next run deletes."""
        kept = services.retention.figures()
        if not kept.days:
            click.echo("RETENTION_DAYS is 0: nothing is deleted.")
            return
        since = f", the oldest of {kept.oldest:%Y-%m-%d}" if kept.oldest else ""
        click.echo(
            f"Data is deleted {kept.days} days after the end of a meeting (RETENTION_DAYS)."
            f"\n{kept.waiting} older bookings still hold data{since}: the next run deletes it,"
            " except where a CRM has yet to get the booking."
        )

    @group.command("run")
    def run() -> None:
        """Delete now what the scheduled run deletes every hour."""
        done = services.retention.run()
        told = ", ".join(f"{number} {name}" for name, number in done.items())
        click.echo(f"Deleted: {told or 'nothing'}.")

    return group


def register_privacy(app: Flask, services: Services) -> None:
    """Add the commands about one person."""

    @app.cli.command("export")
    @click.option("--email", required=True, help="The person's e-mail address.")
    def export(email: str) -> None:
        """Print all that is held on a person, as JSON."""
        try:
            found = services.erasure.export(email)
        except (ValueError, UnreadableSecret) as error:
            raise click.ClickException(str(error)) from None
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))

    @app.cli.command("erase")
    @click.option("--email", required=True, help="The person's e-mail address.")
    @click.option(
        "--crm-records",
        type=click.Choice(["list", "delete"]),
        default="list",
        show_default=True,
        help="List the person's records in the CRMs, or also delete contact, lead and own meetings.",
    )
    @click.option("--yes", is_flag=True, help="Do not ask.")
    def erase(email: str, crm_records: str, yes: bool) -> None:
        """Erase a person from this service, for good; older bookings do not bring them back."""
        try:
            found = services.erasure.look(email)
            _show(found.records, crm_records == "delete")
            if not yes:
                question = f"Erase this person from {len(found.bookings)} bookings?"
                click.confirm(question, abort=True)
            done = services.erasure.erase(email, crm_records == "delete", "cli")
        except (ValueError, Busy, UnreadableSecret) as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"Erased from {done.bookings} bookings and {done.webhooks} webhooks.")
        if crm_records == "delete":
            click.echo(f"{len(done.deleted)} records were deleted in the CRMs.")
        for problem in done.problems:
            click.echo(problem)
        click.echo(
            "Backups still hold the person: after a restore, run this command again."
            " See docs/privacy.md."
        )


def _show(records: list[PersonRecord], delete: bool) -> None:
    if not records:
        click.echo("The CRMs hold no record of this person that this service knows.")
        return
    table = Table("CRM", "record", "id", "link", "what happens")
    for record in records:
        goes = "is deleted there" if delete and record.alone else "stays there: check it yourself"
        told = asdict(record)
        table.add_row(told["provider"], told["object"], told["record_id"], told["url"], goes)
    Console().print(table)
