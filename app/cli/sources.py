"""`flask sources`: the meetergo workspaces, how their webhooks are verified, and their keys."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.table import Table

from app.bootstrap import Services
from app.cli.moments import read_moment
from app.services.sources import SourceRules, UnknownSource
from config.settings import SignatureScheme

ACTOR = "cli"
OPTIONS = (
    click.option("--scheme", type=click.Choice([scheme.value for scheme in SignatureScheme])),
    click.option("--header", help="Header with the signature (schemes body and timestamped)."),
    click.option(
        "--company",
        multiple=True,
        help="Accept webhooks of this company id only; without it, of all.",
    ),
    click.option("--key", help="meetergo API key; `-` reads it from standard input."),
    click.option("--user-id", help="Id of the user that an ak_live key acts as."),
    click.option(
        "--key-ends", help="Date on which the key ends: people are notified a week before."
    ),
)


def sources_group(services: Services) -> AppGroup:
    """The commands about sources."""
    group = AppGroup("sources", help="The meetergo workspaces that bookings come from.")

    @group.command("list")
    def list_() -> None:
        """List the sources with their signature scheme and state."""
        table = Table(
            "source", "scheme", "companies", "key", "status", "webhooks that wait", "reason"
        )
        for view in services.sources.views():
            key = "yes" if view.has_key else "no"
            if view.key_ends_at:
                key = f"until {view.key_ends_at:%Y-%m-%d}"
            status = view.status if view.has_key else "not asked"
            waiting = str(view.waiting or "")
            companies = ", ".join(view.company_ids) or "all"
            reason = " ".join(filter(None, (view.problem, view.next_step)))
            table.add_row(view.name, view.scheme, companies, key, status, waiting, reason)
        Console().print(table)

    @group.command("add")
    @click.argument("name")
    @_with_options
    def add(name: str, **given: Any) -> None:
        """Add a source; its webhooks go to /webhooks/meetergo/NAME."""
        if name in services.sources.names():
            raise click.ClickException(
                f"There is a source {name} already: `sources change {name}`."
            )
        _save(services, SourceRules(name), given)
        click.echo(f"{name} is added. Next: flask --app app secrets add --source {name}")

    @group.command("change")
    @click.argument("name")
    @_with_options
    def change(name: str, **given: Any) -> None:
        """Change the given options of a source; the others stay."""
        try:
            rules = services.sources.rules(name)
        except UnknownSource:
            raise click.ClickException(f"There is no source {name!r}.") from None
        _save(services, rules, given)
        click.echo(f"{name} is changed.")

    @group.command("end")
    @click.argument("name")
    def end(name: str) -> None:
        """Remove a source: its webhooks are refused from now on, and its bookings stay."""
        try:
            services.sources.end(name, ACTOR)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"{name} has ended.")

    return group


def _with_options(command: Any) -> Any:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def _save(services: Services, rules: SourceRules, given: dict[str, Any]) -> None:
    values: dict[str, Any] = {}
    if given["scheme"]:
        values["scheme"] = SignatureScheme(given["scheme"])
    if given["header"]:
        values["header"] = given["header"]
    if given["company"]:
        values["company_ids"] = tuple(filter(None, given["company"]))
    if given["key"] is not None:
        key = sys.stdin.readline() if given["key"] == "-" else given["key"]
        values["api_key"] = key.strip()
    if given["user_id"] is not None:
        values["api_user_id"] = given["user_id"].strip()
    if given["key_ends"] is not None:
        values["key_ends_at"] = read_moment(given["key_ends"]) if given["key_ends"] else None
    try:
        services.sources.save(replace(rules, **values), ACTOR)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
