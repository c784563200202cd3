"""Compares each hit with the key again: every CRM's search has its own idea of a match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.crm.lookup import LookupKey, MatchKey
from app.domain.people import normalise_email
from app.domain.phones import is_number


@dataclass(frozen=True)
class Shown:
    """The values of a record by which it may be recognised, in the same form for all CRMs."""

    emails: Sequence[object] = ()
    """E-mail addresses; the first one is the person's own, the others are secondary ones."""
    phones: Sequence[object] = ()
    country: str | None = None
    """The country (ISO) in which the person lives, if the CRM has it."""
    domains: Sequence[str] = ()
    """Domains of a company, in the form that this service stores."""
    value: object = None
    """The value of the field that the key names."""


def matches(key: LookupKey, shown: Shown, country: str | None = None) -> bool:
    """Whether a record matches a key; `country`: the country of the account."""
    if key.kind is MatchKey.PHONE:
        others = (key.field, country)
        return any(is_number(entry, key.value, shown.country, others) for entry in shown.phones)
    if key.kind is MatchKey.DOMAIN:
        return key.value in shown.domains
    if key.kind is MatchKey.FIELD:
        return shown.value is not None and str(shown.value).lower() == key.value.lower()
    first = 1 if key.kind is MatchKey.SECONDARY_EMAIL else 0
    return key.value in [normalise_email(entry) for entry in shown.emails[first:]]
