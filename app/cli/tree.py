"""All commands, by the area in which `bridge --help` shows them."""

from __future__ import annotations

import click
from flask import Flask

from app.bootstrap import Services
from app.cli.bookings import bookings
from app.cli.causes import causes
from app.cli.command import HELP
from app.cli.connections import connections
from app.cli.events import events
from app.cli.keys import keys
from app.cli.later import EXTENSION, Later
from app.cli.mappings import mappings
from app.cli.meetergo import backfill, reconcile, webhooks
from app.cli.privacy import erase, export, retention
from app.cli.recovery import deliveries, secrets
from app.cli.schema import db
from app.cli.service import check, doctor, sweep, version
from app.cli.sources import sources
from app.cli.users import users
from config.version import VERSION

AREAS: dict[str, tuple[click.Command, ...]] = {
    "Is all well": (check, doctor, sweep, version),
    "meetergo": (sources, secrets, webhooks, backfill, reconcile),
    "CRMs": (connections, mappings),
    "Bookings": (bookings, causes, deliveries, events),
    "People's data": (export, erase, retention),
    "Access and database": (users, keys, db),
}


class Root(click.Group):
    """`bridge`, whose help shows the commands by area."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line for each command."""
        longest = max(len(name) for name in self.commands)
        for area, items in AREAS.items():
            lines = [((c.name or "").ljust(longest), c.get_short_help_str()) for c in items]
            with formatter.section(area):
                formatter.write_dl(lines)


def commands() -> list[click.Command]:
    """Every command and group of the top level."""
    return [item for area in AREAS.values() for item in area]


def make_root() -> Root:
    """The command `bridge`."""
    root = Root(
        "bridge",
        help="The bridge from meetergo's bookings to your CRM: settings from the environment and .env.",
        epilog="`bridge COMMAND --help` shows an example. Each command takes --json.",
        context_settings=HELP,
    )
    for item in commands():
        root.add_command(item)
    return click.version_option(VERSION, prog_name="bridge", message="%(prog)s %(version)s")(root)


def register_commands(app: Flask, services: Services | None) -> None:
    """Add the commands to an application; without services, each command makes them when needed."""
    app.extensions[EXTENSION] = Later(services, prepared=services is not None)
    for item in commands():
        app.cli.add_command(item)


def seeks_command() -> bool:
    """Whether `flask` is loading the application to find a command in it, and not to serve it."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, click.Group)
