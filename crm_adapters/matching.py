"""Compares a hit again: what a CRM's search calls a match is its own affair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.crm.lookup import LookupKey, MatchKey
from app.domain.people import normalise_email
from app.domain.phones import is_number


@dataclass(frozen=True)
class Shown:
    """What a record shows of that by which it may be recognised, in no CRM's words."""

    emails: Sequence[object] = ()
    """E-mail addresses; the first one is the person's own, the others are secondary ones."""
    phones: Sequence[object] = ()
    country: str | None = None
    """In which country (ISO) the person lives, where the CRM tells."""
    domains: Sequence[str] = ()
    """Domains of a company, as they are kept here."""
    value: object = None
    """What stands in the field that the key names."""


def matches(key: LookupKey, shown: Shown, country: str | None = None) -> bool:
    """Whether a record is what a key looks for; `country`: in which one the account is."""
    if key.kind is MatchKey.PHONE:
        others = (key.field, country)
        return any(is_number(entry, key.value, shown.country, others) for entry in shown.phones)
    if key.kind is MatchKey.DOMAIN:
        return key.value in shown.domains
    if key.kind is MatchKey.FIELD:
        return shown.value is not None and str(shown.value).lower() == key.value.lower()
    first = 1 if key.kind is MatchKey.SECONDARY_EMAIL else 0
    return key.value in [normalise_email(entry) for entry in shown.emails[first:]]
