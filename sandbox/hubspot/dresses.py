"""The HubSpot accounts of sandbox.accounts.KINDS except plain, each made from a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _poor(sandbox: Any) -> None:
    """Set up the smallest edition with the fewest rights."""
    # No property can be created, so there are no booking-id fields.
    sandbox.account.loses_scopes(
        "crm.schemas.contacts.write", "crm.schemas.deals.write", "crm.schemas.companies.write"
    )
    sandbox.portal.meeting_group = "meeting"


def _strict(sandbox: Any) -> None:
    """Add admin rules that our files never break."""
    account = sandbox.account
    account.adds("deals", budget="number")
    account.refuses("deals", "REQUIRED_PROPERTY", "A closed deal needs a budget",
                    where={"dealstage": "closedwon"}, lacks="budget", fields=("budget",))  # fmt: skip
    account.requires("contacts", "email", "REQUIRED_PROPERTY")
    account.requires("meetings", "hs_meeting_outcome", "REQUIRED_PROPERTY")
    account.longest("meetings", "hs_meeting_title", 200)
    account.user("gone@acme.example", "Gil Gone", active=False)
    sandbox.portal.meeting_group = "meeting"


def _full(sandbox: Any) -> None:
    """Add many of everything."""
    for number in range(20):
        sandbox.account.user(f"user{number}@acme.example", f"User {number}")
        stages = [{"id": f"p{number}s{place}", "label": f"Step {place}", "displayOrder": place}
                  for place in range(5)]  # fmt: skip
        line = {"id": f"p{number}", "label": f"Line {number}", "displayOrder": 10 + number}
        sandbox.pipelines.append({**line, "stages": stages})
        for kind in ("contacts", "companies", "deals", "meetings"):
            sandbox.account.adds(kind, **{f"extra_{number}": "string"})
    sandbox.account.adds("deals", deal_currency_code=("EUR", "USD", "CHF"))
    sandbox.portal.companies_after = 0.0


DRESSES: Mapping[str, Callable[[Any], None]] = {
    "poor": _poor,
    "strict": _strict,
    "full-grown": _full,
}
