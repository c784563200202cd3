"""`bridge connections …`: the CRM accounts."""

from __future__ import annotations

import sys

import click

from app.bootstrap import Services
from app.cli.command import Answer, Group, command, listing, many
from app.domain.errors import CrmError
from app.oauth.flow import ConnectRequest
from app.services.connect import OtherAccount, UnfitGrant
from app.services.overview import Overview
from app.store.models import ConnectionRow

connections = Group("connections", help="The CRM accounts.")
COLUMNS = {
    "id": "id", "CRM": "provider", "account": "account", "status": "status",
    "since (UTC)": "since", "why": "error", "what to do": "next_step",
}  # fmt: skip


@command("list", "bridge connections list", connections)
def list_(services: Services) -> Answer:
    """List the connections with their state."""
    items = [
        {
            "id": row.id, "provider": row.provider, "account": row.account,
            "account_id": row.account_id, "status": row.status, "since": row.status_since,
            "error": row.last_error, "next_step": row.next_step,
        }
        for row in Overview(services.store, services.cipher).connections()
    ]  # fmt: skip
    empty = f"No CRM is connected yet. Open {services.settings.public_url} and press its name."
    return listing("connections", items, COLUMNS, empty)


@command("add-token", "bridge connections add-token hubspot < key.txt", connections)
@click.argument("crm")
@click.option("--connection", type=int, help="The existing connection that gets the new key.")
@click.option("--other-account", is_flag=True, help="Accept a key of another account.")
def add_token(services: Services, crm: str, connection: int | None, other_account: bool) -> Answer:
    """Connect with a key that a person made; the command asks for it, or reads it from a pipe."""
    provider = services.providers.get(crm)
    if provider is None:
        there = ", ".join(services.providers)
        raise click.ClickException(f"There is no CRM {crm!r}; there are: {there}.")
    # Never an argument: the list of processes and the shell's history show arguments.
    words = provider.key.title if provider.key else "key"
    piped = not sys.stdin.isatty()
    key = sys.stdin.readline() if piped else click.prompt(words, hide_input=True, err=True)
    wish = ConnectRequest(connection_id=connection, other_account=other_account)
    try:
        number = services.connector.add_key(provider, key.strip(), "cli", wish)
    except (CrmError, UnfitGrant, OtherAccount) as error:
        raise click.ClickException(str(error)) from None
    services.waker.wake([number])
    return Answer({"connection": number}, [f"{provider.title} is connected as number {number}."])


@command("refresh", "bridge connections refresh 1", connections)
@click.argument("connection_id", type=int)
def refresh(services: Services, connection_id: int) -> Answer:
    """Renew a connection's access now and resume its work."""
    must_exist(services, connection_id)
    try:
        services.connector.resume(connection_id, "cli")
    except CrmError as error:
        raise click.ClickException(f"{error.message} {error.advice}") from None
    services.waker.wake([connection_id])
    told = f"Connection {connection_id} is refreshed."
    return Answer({"connection": connection_id, "refreshed": True}, [told])


@command("disconnect", "bridge connections disconnect 1 --parked keep", connections)
@click.argument("connection_id", type=int)
@click.option(
    "--parked", type=click.Choice(["keep", "discard"]), default=None,
    help="Keep or discard the bookings that wait; without this option the command asks.",
)  # fmt: skip
def disconnect(services: Services, connection_id: int, parked: str | None) -> Answer:
    """Erase a connection's tokens and revoke them at the CRM."""
    row = must_exist(services, connection_id)
    waiting = Overview(services.store, services.cipher).parked(connection_id)
    if waiting and parked is None:
        question = f"{waiting} bookings wait for this account. Keep them for a reconnect?"
        parked = "keep" if click.confirm(question, default=True, err=True) else "discard"
    gone, problem = services.connector.disconnect(connection_id, "cli", parked == "discard")
    discarded = f" {many(gone, 'waiting booking is', 'waiting bookings are')} discarded."
    provider = services.providers[row.provider]
    where = f"{provider.title} lists connected apps under: {provider.apps_where}"
    shown = [
        f"Connection {connection_id} is disconnected.{discarded if gone else ''}",
        problem,
        where,
    ]
    data = {"connection": connection_id, "discarded": gone, "note": problem or None}
    return Answer(data, [line for line in shown if line])


def must_exist(services: Services, connection_id: int) -> ConnectionRow:
    """A connection by its number; ends the command if there is none."""
    row = Overview(services.store, services.cipher).connection(connection_id)
    if row is None:
        raise click.ClickException(
            f"There is no connection {connection_id}: `bridge connections list` shows them."
        )
    return row
