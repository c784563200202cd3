"""HubSpot's own switches beside `sandbox.account`: companies made by itself, limits, groups."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sandbox.hubspot.schema import GROUPS

if TYPE_CHECKING:
    from sandbox.hubspot.state import HubSpotState

FREE_MAIL = {"gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "yahoo.com", "gmx.de"}
"""Domains for which no portal creates a company; HubSpot's own list is longer."""


class Portal:
    """The switches that only HubSpot has; in a new portal all are off."""

    def __init__(self, sandbox: HubSpotState) -> None:
        self._sandbox = sandbox
        self.companies_after: float | None = None
        """The seconds until the portal itself creates and links a contact's company.

        https://knowledge.hubspot.com/records/automatically-create-and-associate-companies-with-contacts
        """
        self.most_links: dict[tuple[str, str], int] = {}
        """(object, other object) -> the maximum number of links of a record."""
        self.meeting_group = "engagement_info"
        """The group of hs_meeting_title; a property in an unknown group is refused."""
        self.phone_country: str | None = None
        """The country that the portal assumes for phone numbers without a country code."""
        self.time_zone = "US/Eastern"
        """The portal's time zone in account-info; the guide's example."""
        self._awaited: list[tuple[float, str]] = []

    def fills_companies(self) -> None:
        """Make every company full, so that it takes no further contact."""
        self.most_links["companies", "contacts"] = 1

    def groups(self, kind: str) -> set[str]:
        """Return the groups in which an object's properties may be created."""
        return {GROUPS.get(kind, self.meeting_group)}

    def contact_made(self, record_id: str) -> None:
        """Register a new contact: the portal processes it some moments later."""
        if self.companies_after is not None:
            self._awaited.append((time.time() + self.companies_after, record_id))

    def makes_companies(self, now: float | None = None) -> None:
        """Create and link the companies that are due; `now`: Unix time in seconds."""
        moment = time.time() if now is None else now
        due = [item for item in self._awaited if item[0] <= moment]
        self._awaited = [item for item in self._awaited if item not in due]
        for _, record_id in due:
            self._make_company(record_id)

    def makes_every_company(self) -> None:
        """Create and link the companies of all contacts now."""
        with self._sandbox.lock:
            self.makes_companies(float("inf"))

    def _make_company(self, record_id: str) -> None:
        sandbox = self._sandbox
        contact = sandbox.records["contacts"].get(record_id)
        domain = ((contact or {}).get("properties", {}).get("email") or "").partition("@")[2]
        if not contact or not domain or domain in FREE_MAIL:
            return
        if sandbox.linked("contacts", record_id, "companies"):
            return
        found = [row["id"] for row in sandbox.records["companies"].values()
                 if row["properties"].get("domain") == domain]  # fmt: skip
        company = found[0] if found else self._store(domain)
        for number in (279, 1):
            sandbox.connect("contacts", record_id, "companies", company, number)

    def _store(self, domain: str) -> str:
        # The portal's own actions need not follow its rules.
        sandbox, made = self._sandbox, str(self._sandbox.new_id())
        name = domain.partition(".")[0].title()
        record = {"id": made, "properties": {"domain": domain, "name": name},
                  "created": "2026-11-24T08:00:00Z"}  # fmt: skip
        sandbox.records["companies"][made] = record
        sandbox.note("companies", record)
        return made

    def is_full(self, kind: str, record_id: str, target: str) -> bool:
        """Whether a record has the maximum number of links to another object."""
        most = self.most_links.get((kind, target))
        return most is not None and len(self._sandbox.linked(kind, record_id, target)) >= most
