"""`bridge retention … | export | erase`: people's data, by time and on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.table import Table

from app.bootstrap import Services
from app.cli.command import Answer, Group, as_json_text, command
from app.cli.tables import print_table, table_of
from app.security.encryption import UnreadableSecret
from app.services.erasure import Busy
from app.store.erasure import PersonRecord

retention = Group("retention", help="People's data, deleted RETENTION_DAYS after a meeting.")
COLUMNS = {
    "CRM": "provider", "record": "object", "id": "record_id", "link": "url", "what happens": "goes",
}  # fmt: skip
RESTORE = (
    "Backups still hold the person: after a restore, run this command again. See docs/privacy.md."
)


@command("show", "bridge retention show", retention)
def show(services: Services) -> Answer:
    """Show how long data is kept, and what the next run deletes."""
    kept = services.retention.figures()
    data = asdict(kept)
    if not kept.days:
        return Answer(data, ["RETENTION_DAYS is 0: nothing is deleted."])
    since = f", the oldest of {kept.oldest:%Y-%m-%d}" if kept.oldest else ""
    return Answer(data, [
        f"Data is deleted {kept.days} days after the end of a meeting (RETENTION_DAYS).",
        f"{kept.waiting} older bookings still hold data{since}: the next run deletes it,"
        " except where a CRM has yet to get the booking.",
    ])  # fmt: skip


@command("run", "bridge retention run", retention)
def run(services: Services) -> Answer:
    """Delete now what the scheduled run deletes every hour."""
    done = services.retention.run()
    told = ", ".join(f"{number} {name}" for name, number in done.items())
    return Answer({"deleted": done}, [f"Deleted: {told or 'nothing'}."])


@command("export", "bridge export --email jane@example.com > jane.json")
@click.option("--email", required=True, help="The person's e-mail address.")
def export(services: Services, email: str) -> Answer:
    """Print all that is held on a person, as JSON."""
    try:
        found = services.erasure.export(email)
    except (ValueError, UnreadableSecret) as error:
        raise click.ClickException(str(error)) from None
    return Answer(found, [as_json_text(found)])


@command("erase", "bridge erase --email jane@example.com --crm-records delete")
@click.option("--email", required=True, help="The person's e-mail address.")
@click.option(
    "--crm-records",
    type=click.Choice(["list", "delete"]),
    default="list",
    show_default=True,
    help="List the person's records in the CRMs, or also delete contact, lead and own meetings.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(services: Services, email: str, crm_records: str, yes: bool) -> Answer:
    """Erase a person from this service, for good; older bookings do not bring them back."""
    delete = crm_records == "delete"
    shown: list[str | Table] = []
    try:
        found = services.erasure.look(email)
        records = _records(found.records, delete)
        if yes:
            shown.append(records)
        else:
            _ask(records, len(found.bookings))
        done = services.erasure.erase(email, delete, "cli")
    except (ValueError, Busy, UnreadableSecret) as error:
        raise click.ClickException(str(error)) from None
    shown.append(f"Erased from {done.bookings} bookings and {done.webhooks} webhooks.")
    if delete:
        shown.append(f"{len(done.deleted)} records were deleted in the CRMs.")
    return Answer(done.as_json(), [*shown, *done.problems, RESTORE])


def _ask(records: str | Table, bookings: int) -> None:
    """Show the records on stderr and ask; end the command if the answer is no."""
    if isinstance(records, str):
        click.echo(records, err=True)
    else:
        print_table(records, err=True)
    click.confirm(f"Erase this person from {bookings} bookings?", abort=True, err=True)


def _records(records: Sequence[PersonRecord], delete: bool) -> str | Table:
    if not records:
        return "The CRMs hold no record of this person that this service knows."
    gone, stays = "is deleted there", "stays there: check it yourself"
    items = [{**asdict(r), "goes": gone if delete and r.alone else stays} for r in records]
    return table_of(items, COLUMNS)
