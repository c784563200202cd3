"""The columns to read of each object, as far as the org shows them."""

from __future__ import annotations

from collections.abc import Mapping

from app.crm.objects import ObjectName
from app.crm.schema import CrmField, FieldKind

COLUMNS: dict[ObjectName, tuple[str, ...]] = {
    ObjectName.COMPANY: ("Website",),
    ObjectName.CONTACT: ("Email", "Phone", "MobilePhone", "AccountId"),
    ObjectName.LEAD: ("Email", "Phone", "MobilePhone", "ConvertedContactId"),
    ObjectName.DEAL: ("AccountId",),
    ObjectName.CASE: ("AccountId", "ContactId"),
    ObjectName.MEETING: ("WhoId", "WhatId"),
}
"""Columns that are read of every record besides the requested ones, if the org shows them."""


PHONES = ("Phone", "MobilePhone", "HomePhone", "OtherPhone")
"""Fields for a person's own numbers."""


COUNTRIES = ("MailingCountryCode", "MailingCountry", "CountryCode", "Country")
"""The country of a contact or a lead; orgs with country picklists also have the codes."""


IF_SHOWN = {
    ObjectName.CONTACT: ("IsPersonAccount", *PHONES[2:], *COUNTRIES[:2]),
    ObjectName.LEAD: COUNTRIES[2:],
}
"""Further columns, which only some orgs have."""


class Columns:
    """The columns that a query may name: it fails as a whole if the user may not see one of them."""

    def __init__(self) -> None:
        self._shown: dict[ObjectName, frozenset[str]] = {}
        self.times: dict[ObjectName, frozenset[str]] = {}
        """The fields of an object that hold a time of day."""
        self._kinds: dict[ObjectName, dict[str, FieldKind]] = {}

    def show(self, name: ObjectName, fields: Mapping[str, CrmField]) -> None:
        """Note which fields of an object the org shows."""
        self._shown[name] = frozenset(fields)
        times = (field.name for field in fields.values() if field.kind is FieldKind.TIME)
        self.times[name] = frozenset(times)
        self._kinds[name] = {key: field.kind for key, field in fields.items()}

    def kind_of(self, name: ObjectName, field: str) -> FieldKind | None:
        """Return the kind of a column: a query that compares it with another kind is refused."""
        return self._kinds.get(name, {}).get(field)

    def of(self, name: ObjectName) -> tuple[str, ...]:
        """Return the columns to read of an object; the usual ones if the object was not described."""
        shown = self._shown.get(name)
        if shown is None:
            return COLUMNS[name]
        return tuple(c for c in (*COLUMNS[name], *IF_SHOWN.get(name, ())) if c in shown)

    def has(self, name: ObjectName, field: str) -> bool:
        """Whether a query may name a column; any column if the object was not described."""
        shown = self._shown.get(name)
        return shown is None or field in shown
