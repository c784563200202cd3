"""`bridge sources …`: the meetergo workspaces, how their webhooks are verified, and their keys."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import click

from app.bootstrap import Services
from app.cli.command import Answer, Group, command
from app.cli.moments import read_moment
from app.cli.tables import table_of
from app.services.sources import SourceRules, UnknownSource
from config.settings import SignatureScheme

ACTOR = "cli"
OPTIONS = (
    click.option(
        "--scheme",
        type=click.Choice([scheme.value for scheme in SignatureScheme]),
        help="How its webhooks are signed.",
    ),
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


sources = Group("sources", help="The meetergo workspaces that bookings come from.")
COLUMNS = {
    "source": "name", "scheme": "scheme", "companies": "companies", "key": "key",
    "status": "state", "webhooks that wait": "waiting", "reason": "reason",
}  # fmt: skip


def _with_options(command: Any) -> Any:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@command("list", "bridge sources list", sources)
def list_(services: Services) -> Answer:
    """List the sources with their signature scheme and state."""
    views = services.sources.views()
    items = []
    for view in views:
        key = f"until {view.key_ends_at:%Y-%m-%d}" if view.key_ends_at else view.has_key
        items.append(
            {
                "name": view.name, "scheme": view.scheme, "key": key,
                "companies": view.company_ids or "all", "waiting": view.waiting or None,
                "state": view.status if view.has_key else "not asked",
                "reason": " ".join(filter(None, (view.problem, view.next_step))),
            }
        )  # fmt: skip
    table = table_of(items, COLUMNS)
    return Answer({"sources": [view.as_json() for view in views]}, [table])


@command("add", "bridge sources add berlin --scheme url-token --key - --company c1", sources)
@click.argument("name")
@_with_options
def add(services: Services, name: str, **given: Any) -> Answer:
    """Add a source; its webhooks go to /webhooks/meetergo/NAME."""
    if name in services.sources.names():
        raise click.ClickException(
            f"There is a source {name} already: `bridge sources change {name}`."
        )
    _save(services, SourceRules(name), given)
    told = f"{name} is added. Next: bridge secrets add --source {name}"
    return Answer({"source": name, "added": True}, [told])


@command("change", "bridge sources change berlin --key -", sources)
@click.argument("name")
@_with_options
def change(services: Services, name: str, **given: Any) -> Answer:
    """Change the given options of a source; the others stay."""
    if all(value in (None, ()) for value in given.values()):
        raise click.UsageError("Give an option to change; `bridge sources change -h` lists them.")
    try:
        rules = services.sources.rules(name)
    except UnknownSource:
        raise click.ClickException(f"There is no source {name!r}.") from None
    _save(services, rules, given)
    return Answer({"source": name, "changed": True}, [f"{name} is changed."])


@command("end", "bridge sources end berlin", sources)
@click.argument("name")
def end(services: Services, name: str) -> Answer:
    """Remove a source: its webhooks are refused from now on, and its bookings stay."""
    try:
        services.sources.end(name, ACTOR)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    return Answer({"source": name, "ended": True}, [f"{name} has ended."])


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
