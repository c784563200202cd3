"""The columns that are read of each object, as far as the org shows them."""

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
"""What is read of every record beside the fields asked for, where the org shows it."""


PHONES = ("Phone", "MobilePhone", "HomePhone", "OtherPhone")
"""Fields in which a person's own numbers stand."""


COUNTRIES = ("MailingCountryCode", "MailingCountry", "CountryCode", "Country")
"""In which country a contact or a lead lives; the codes are there where the org has picklists of them."""


IF_SHOWN = {
    ObjectName.CONTACT: ("IsPersonAccount", *PHONES[2:], *COUNTRIES[:2]),
    ObjectName.LEAD: COUNTRIES[2:],
}
"""Likewise, of orgs that have it."""


class Columns:
    """Which columns may be asked for: a query that names one that the user does not see fails whole."""

    def __init__(self) -> None:
        self._shown: dict[ObjectName, frozenset[str]] = {}
        self.times: dict[ObjectName, frozenset[str]] = {}
        """The fields of an object that hold a time of day."""
        self._kinds: dict[ObjectName, dict[str, FieldKind]] = {}

    def show(self, name: ObjectName, fields: Mapping[str, CrmField]) -> None:
        """Note what the org shows of an object."""
        self._shown[name] = frozenset(fields)
        times = (field.name for field in fields.values() if field.kind is FieldKind.TIME)
        self.times[name] = frozenset(times)
        self._kinds[name] = {key: field.kind for key, field in fields.items()}

    def kind_of(self, name: ObjectName, field: str) -> FieldKind | None:
        """What stands in a column: a query that compares it with anything else is refused."""
        return self._kinds.get(name, {}).get(field)

    def of(self, name: ObjectName) -> tuple[str, ...]:
        """The columns to read of an object; of one that was not described the usual ones."""
        shown = self._shown.get(name)
        if shown is None:
            return COLUMNS[name]
        return tuple(c for c in (*COLUMNS[name], *IF_SHOWN.get(name, ())) if c in shown)

    def has(self, name: ObjectName, field: str) -> bool:
        """Whether a column may be asked for; of an object that was not described every one may."""
        shown = self._shown.get(name)
        return shown is None or field in shown
