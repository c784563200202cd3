"""The pages of a CRM for people: the list of its contents, and one page for each record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Response, abort, render_template, request

from sandbox.view import Company, Contact, Deal, Meeting, View, plain

if TYPE_CHECKING:
    from sandbox.core import Sandbox

TEMPLATES = Path(__file__).parent / "templates"
PREFIX = "people_"
"""Begins the endpoint of each of these pages: they need no token, and no fault meets them."""
ID = "<record_id>"
LONGEST_HISTORY = 5_000
Item = Contact | Company | Deal | Meeting
Named = tuple[str, str, str]
"""Object, id, and the words for a record."""


@dataclass
class Change:
    """A change to one field; without a field, to the record as a whole."""

    at: datetime
    object: str
    record_id: str
    field: str
    old: str
    new: str


@dataclass
class Page:
    """What a record's page shows."""

    title: str
    fields: Mapping[str, str]
    linked: list[Named]
    changes: list[Change]
    anchor: str = ""


def add_pages(crm: Sandbox) -> None:
    """Add the pages to a sandbox's app."""
    crm.app.add_url_rule("/", f"{PREFIX}contents", partial(_show_contents, crm))
    for name, place in crm.record_pages.items():
        path = place.partition("#")[0]
        crm.app.add_url_rule(path, f"{PREFIX}{name}", partial(_show_record, crm, name))


def address(crm: Sandbox, name: str, record_id: str) -> str:
    """Return the path of a record's page; empty if there is none."""
    place = crm.record_pages.get(name, "")
    return place.replace("<account>", crm.account_id).replace(ID, record_id)


def _show_contents(crm: Sandbox) -> str:
    with crm.lock:
        view = crm.view()
    items = _by_object(view)

    def words(name: str, record_id: str) -> str:
        found = items[name].get(record_id)
        return title_of(found) if found else record_id

    return render_template(
        "contents.html", crm=crm, view=view, words=words, address=partial(address, crm)
    )


def _show_record(
    crm: Sandbox, name: str, record_id: str | None = None, account: str | None = None
) -> Response | str:
    """Show one record; without an id all of an object, each under its own anchor."""
    if account not in (None, crm.account_id):
        abort(404)
    with crm.lock:
        items = _by_object(crm.view())
        wanted = list(items[name]) if record_id is None else [record_id]
        pages = [_page(crm, items, name, each) for each in wanted if each in items[name]]
    if record_id is None:
        for page, each in zip(pages, wanted, strict=True):
            page.anchor = address(crm, name, each).partition("#")[2]
    elif not pages:
        abort(404)
    heading = pages[0].title if record_id else f"{crm.title}: {name}s"
    return render_template(
        "record.html", crm=crm, pages=pages, heading=heading, listed=record_id is None,
        address=partial(address, crm),
    )  # fmt: skip


def _page(crm: Sandbox, items: Mapping[str, Mapping[str, Item]], name: str, own: str) -> Page:
    fields = {"id": own, **fields_of(crm, name, items[name][own])}
    linked = [
        (other, each, title_of(item))
        for other, rows in items.items()
        for each, item in rows.items()
        if _leads_to(item, name, own) or _leads_to(items[name][own], other, each)
    ]
    changes = [c for c in crm.changes if (c.object, c.record_id) == (name, own)]
    return Page(f"{name.capitalize()}: {title_of(items[name][own])}", fields, linked, changes[::-1])


def title_of(item: Item) -> str:
    """Return the words for a record."""
    match item:
        case Contact():
            return " ".join(filter(None, (item.first, item.last))) or item.email or item.id
        case Company():
            return item.name or item.id
    return item.title or item.id


def fields_of(crm: Sandbox, name: str, item: Item) -> dict[str, str]:
    """Return the fields that are not empty, as texts."""
    own = crm.fields_of(name, item.id)
    raw = {key: value for key, value in asdict(item).items() if key != "id"} if own is None else own
    if own is not None and getattr(item, "owner", None):
        raw = {**raw, "(owner)": getattr(item, "owner", None)}
    return {key: plain(_text(value)) for key, value in raw.items() if value not in (None, "", [])}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return str(value.get("value", value))
    return str(value)


def _by_object(view: View) -> dict[str, dict[str, Item]]:
    lists = {"contact": view.contacts, "company": view.companies, "deal": view.deals,
             "meeting": view.meetings}  # fmt: skip
    return {name: {item.id: item for item in items} for name, items in lists.items()}


def _leads_to(item: Item, name: str, record_id: str) -> bool:
    """Whether a record is linked to another one, by what it says itself."""
    match name:
        case "contact":
            return record_id in getattr(item, "contact_ids", ())
        case "company":
            return getattr(item, "company_id", None) == record_id
        case "deal":
            return getattr(item, "deal_id", None) == record_id
    return False


@dataclass
class History:
    """Notes every change of a sandbox's records, whoever makes it; for the demo."""

    crm: Sandbox
    _before: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def look(self, response: Response) -> Response:
        """Compare the records with those of the last look, after an answer."""
        with self.crm.lock:
            items = _by_object(self.crm.view())
            now = {(name, each): fields_of(self.crm, name, item)
                   for name, rows in items.items() for each, item in rows.items()}  # fmt: skip
            moment = datetime.now(UTC)
            for place in now | self._before:
                self.crm.changes += self._between(moment, place, now)
            del self.crm.changes[:-LONGEST_HISTORY]
            self._before = now
        return response

    def _between(
        self, moment: datetime, place: tuple[str, str], now: dict[tuple[str, str], dict[str, str]]
    ) -> Iterator[Change]:
        old, new = self._before.get(place), now.get(place)
        if old is None or new is None:
            words = ("", "made") if old is None else ("", "deleted")
            yield Change(moment, *place, "", *words)
            return
        for name in old | new:
            if old.get(name) != new.get(name):
                yield Change(moment, *place, name, old.get(name, ""), new.get(name, ""))


def keep_history(crm: Sandbox) -> None:
    """Let a sandbox note its changes, and show them on the records' pages. Call it before the first
    request."""
    history = History(crm)

    def after(response: Response) -> Response:
        return response if request.method == "GET" else history.look(response)

    crm.app.after_request(after)
