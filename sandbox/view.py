"""A CRM's contents in one neutral shape, so that one test suite can check all CRMs."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass
class Contact:
    """A person, in the shape that the tests of all CRMs use."""

    id: str
    email: str | None
    phone: str | None
    first: str | None
    last: str | None
    company_id: str | None
    owner: str | None


@dataclass
class Company:
    """A company, in the same neutral shape."""

    id: str
    name: str | None
    domain: str | None


@dataclass
class Deal:
    """A deal, in the same neutral shape."""

    id: str
    title: str | None
    stage: str | None
    contact_ids: list[str]
    company_id: str | None
    booking: str | None
    owner: str | None


@dataclass
class Meeting:
    """A meeting, in the same neutral shape."""

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
    """All records of a CRM in the neutral shape."""

    contacts: list[Contact]
    companies: list[Company]
    deals: list[Deal]
    meetings: list[Meeting]


def plain(html: str) -> str:
    """Undo as_html, to compare bodies."""
    text = html.replace("<br>", "\n")
    for char in "<>&":
        text = text.replace(escape(char), char)
    return text
