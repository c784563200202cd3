"""What a CRM holds in one neutral shape, so that one suite looks at all CRMs."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass
class Contact:
    """A person, as the tests of all CRMs see one."""

    id: str
    email: str | None
    phone: str | None
    first: str | None
    last: str | None
    company_id: str | None
    owner: str | None


@dataclass
class Company:
    """A company, likewise."""

    id: str
    name: str | None
    domain: str | None


@dataclass
class Deal:
    """A deal, likewise."""

    id: str
    title: str | None
    stage: str | None
    contact_ids: list[str]
    company_id: str | None
    booking: str | None
    owner: str | None


@dataclass
class Meeting:
    """A meeting, likewise."""

    id: str
    title: str | None
    start: str
    minutes: int
    cancelled: bool
    link: str | None
    body: str
    contact_ids: list[str]
    deal_id: str | None
    owner: str | None


@dataclass
class View:
    """Everything in a CRM in one neutral shape, so that one suite can look at all of them."""

    contacts: list[Contact]
    companies: list[Company]
    deals: list[Deal]
    meetings: list[Meeting]


def plain(html: str) -> str:
    """Undo what as_html did, for comparing bodies."""
    text = html.replace("<br>", "\n")
    for char in "<>&":
        text = text.replace(escape(char), char)
    return text
