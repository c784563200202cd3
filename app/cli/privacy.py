"""`flask retention …`: the deletion of people's data whose time is over."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from app.bootstrap import Services


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
