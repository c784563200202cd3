"""`bridge mappings diff`: what two files would do differently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from app.bootstrap import Services
from app.cli.command import Answer, command
from app.cli.mapping_check import crm_of
from app.cli.mapping_shared import FILE, load_for
from app.cli.mapping_shown import shown_value
from app.cli.moments import read_moment
from app.crm.objects import FieldValue
from app.domain.errors import CrmError
from app.services.preview import Previewer, describe
from app.store.engine import utcnow
from app.sync.desired import DesiredBooking, DesiredRecord, WriteRule
from app.sync.values import blank

KEYS = ("booking", "who", "record", "field", "old", "new")


@command("diff", "bridge mappings diff mappings/hubspot.yaml draft.yaml --since last-month")
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@click.option("--since", "--events", "since", default="last-week", show_default=True,
              help="Which stored bookings: today, last-week, last-month or a date.")  # fmt: skip
def diff(services: Services, old: Path, new: Path, since: str) -> Answer:
    """List the bookings that would be written differently; no CRM is called, nothing is written."""
    crm = crm_of(services, new)
    first, second = load_for(services, old, crm), load_for(services, new, crm)
    previewer = Previewer(services.store, services.cipher, utcnow)
    bookings, shape = previewer.since(read_moment(since)), services.shape(crm)
    before = previewer.offline(first, shape, bookings)
    after = previewer.offline(second, shape, bookings)
    table, items = Table("booking", "who", "record", "field", "old", "new"), []
    for (booking, one), (_, two) in zip(before, after, strict=True):
        key, _, who = describe(booking)
        for row in _differences(one, two):
            items.append(dict(zip(KEYS, (key, who, *row), strict=True)))
            table.add_row(Text(key), Text(who), *map(shown_value, row))
    different = len({item["booking"] for item in items})
    words = f"{different} of {len(bookings)} bookings would be written differently."
    data = {"bookings": len(bookings), "different": different, "differences": items}
    return Answer(data, [table, words] if items else [words])


def _differences(
    one: DesiredBooking | CrmError, two: DesiredBooking | CrmError
) -> list[tuple[str, str, str, str]]:
    if isinstance(one, CrmError) or isinstance(two, CrmError):
        old, new = (side.message if isinstance(side, CrmError) else "works" for side in (one, two))
        return [("", "", old, new)] if old != new else []
    if one.skipped != two.skipped:
        return [("", "skipped", one.skipped, two.skipped)]
    rows: list[tuple[str, str, str, str]] = []
    first = {record.ref: record for record in one.records}
    second = {record.ref: record for record in two.records}
    for ref in dict.fromkeys([*first, *second]):
        if ref not in first or ref not in second:
            there = ("none", "created") if ref in second else ("created", "none")
            rows.append((ref.object.value, "", *there))
        else:
            pairs = _record_differences(first[ref], second[ref])
            rows += [(ref.object.value, *pair) for pair in pairs]
    return rows


def _record_differences(
    left: DesiredRecord, right: DesiredRecord
) -> Iterator[tuple[str, str, str]]:
    for field in dict.fromkeys([*left.fields, *right.fields]):
        old, new = left.fields.get(field), right.fields.get(field)
        rules = (left.rules.get(field, ""), right.rules.get(field, ""))
        # An empty field is not written, unless the rule may clear it.
        idle = blank(old) and blank(new) and WriteRule.ALWAYS not in rules
        if old != new and not idle:
            yield field, _words(old), _words(new)
        elif rules[0] != rules[1] and not idle:
            yield f"{field} (write)", str(rules[0]), str(rules[1])
    for name, say in (("(on cancel)", _ending), ("(linked to)", _links), ("(found by)", _finding)):
        if say(left) != say(right):
            yield name, say(left), say(right)


def _words(value: FieldValue) -> str:
    return "" if value is None else str(value)


def _ending(record: DesiredRecord) -> str:
    return "deleted" if record.delete else "kept"


def _links(record: DesiredRecord) -> str:
    return ", ".join(f"{link.object} {link.key}" for link in record.links)


def _finding(record: DesiredRecord) -> str:
    match = record.match
    keys = ", ".join(" ".join(filter(None, (key.kind, key.field, key.value))) for key in match.keys)
    made = "created if none is found" if match.create else "never created"
    lost = f"if deleted: {match.lost}"
    return f"{keys}; the {match.several} of several; {made}; {lost}"
