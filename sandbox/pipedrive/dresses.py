"""The Pipedrive accounts of sandbox.accounts.KINDS except plain, each made from a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _poor(sandbox: Any) -> None:
    """Set up the smallest edition with the fewest rights."""
    # By the published specification of v2, our scopes do not allow activityFields.
    sandbox.activity_fields_need_admin = True
    sandbox.account.loses_scopes("deal-fields:full")
    sandbox.gone_v1 = {"/users": 410, "/participants": 404}
    sandbox.searches_slower(6)


def _strict(sandbox: Any) -> None:
    """Add admin rules that our files never break."""
    account = sandbox.account
    sandbox.strict_nulls()
    account.refuses("deals", message="A won deal needs a value", where={"status": "won"},
                    lacks="value", fields=("value",))  # fmt: skip
    account.longest("deals", "title", 120)
    account.user("gone@acme.example", "Gil Gone", active=False)
    sandbox.searches_slower(8)


def _full(sandbox: Any) -> None:
    """Add many of everything."""
    for number in range(20):
        sandbox.account.user(f"user{number}@acme.example", f"User {number}")
        line, last = {"id": 50 + number, "name": f"Line {number}", "order_nr": 10 + number}, 5
        sandbox.pipelines.append(line)
        sandbox.stages += [
            {"id": 100 + number * last + place, "name": f"Step {place}", "pipeline_id": line["id"],
             "order_nr": place} for place in range(last)
        ]  # fmt: skip
        for kind in ("persons", "organizations", "deals"):
            key = f"{number:02d}{kind[0]}".ljust(40, "0")
            # Two fields of each name: the old one and its successor.
            field = {
                "field_code": key,
                "field_name": f"Extra {number // 2}",
                "field_type": "varchar",
            }
            sandbox.custom[kind][key] = field


DRESSES: Mapping[str, Callable[[Any], None]] = {
    "poor": _poor,
    "strict": _strict,
    "full-grown": _full,
}
