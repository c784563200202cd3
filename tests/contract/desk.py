"""What people do in a CRM and what they see there, in words that all CRMs share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

from sandbox.limits import Window
from tests.bridge import PROVIDERS

Values = Mapping[str, Any]
WON, LOST = "Won", "Lost"
"""How a deal ends: stages in HubSpot and Salesforce, a status in Pipedrive."""
COMMON: dict[str, tuple[str, ...]] = {
    "contact": ("name", "email", "emails", "phone", "job_title", "company", "owner"),
    "company": ("name", "domain", "owner"),
    "lead": ("name", "email", "phone", "company_name", "status", "converted", "owner"),
    "deal": ("title", "stage", "pipeline", "amount", "close_date", "contacts",
             "main_contact", "company", "owner"),
    "case": ("subject", "status", "origin", "contact", "company", "owner"),
    "meeting": ("title", "start", "minutes", "where", "body", "contacts", "deal", "case", "company",
                "owner"),
}  # fmt: skip
"""The words for what every CRM has; its own fields go by their own names beside them."""


@dataclass(frozen=True)
class Link:
    """Another record, as people name it."""

    id: str
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return self.names[0] if self.names else self.id


@dataclass
class CustomField:
    """A field that the company has added to its CRM."""

    kind: str
    options: list[str] = field(default_factory=list)


class Desk:
    """Somebody who works in a CRM, without its API: nothing here is counted as a call."""

    kinds: ClassVar[dict[str, str]]
    """Our word for an object -> the CRM's."""
    names: ClassVar[dict[str, dict[str, str]]]
    """Object -> our word for a field -> the CRM's, where a field is just renamed."""

    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox
        self.aliases: dict[str, str] = {}
        """What a case calls a record -> its id now."""

    def address(self, name: str, record_id: str) -> str:
        """What stands in a browser's address bar while somebody looks at a record."""
        raise NotImplementedError

    def lift_limits(self) -> None:
        """Let the CRM take as many calls as there are."""
        for name, value in vars(self.sandbox).items():
            if isinstance(value, Window):
                setattr(self.sandbox, name, Window(1_000_000, value.seconds))

    def add_users(self, emails: Iterable[str]) -> None:
        """Let more people work with the CRM."""
        for email in emails:
            self.sandbox.users.setdefault(email, email.partition("@")[0].title())

    def set_pipelines(self, pipelines: Mapping[str, list[str]]) -> None:
        """Set up the deal pipelines; each ends in won and lost."""
        raise NotImplementedError

    def assign_to(self, email: str) -> None:
        """Set up a rule of the CRM's own that gives new leads and cases to a user."""
        raise NotImplementedError(f"{type(self).__name__} has no assignment rules")

    def add_field(self, name: str, field: str, spec: CustomField) -> None:
        """Add a custom field to an object."""
        raise NotImplementedError

    def make(self, name: str, values: Values) -> str:
        """Make a record; give its id."""
        raise NotImplementedError

    def change(self, name: str, record_id: str, values: Values) -> None:
        """Change a record."""
        raise NotImplementedError

    def delete(self, name: str, record_id: str) -> None:
        """Delete a record."""
        raise NotImplementedError

    def merge(self, name: str, loser: str, winner: str) -> str:
        """Merge one record into another; give the id of what is left."""
        raise NotImplementedError

    def convert(self, lead_id: str) -> str:
        """Convert a lead; give the id of the contact, or in Pipedrive of the deal."""
        raise NotImplementedError(f"{type(self).__name__} has no leads")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Every record of an object, in our words and under the CRM's own field names."""
        raise NotImplementedError

    def own_fields(self, name: str) -> set[str]:
        """The CRM's own names of an object's fields."""
        raise NotImplementedError

    def records(self, name: str) -> list[dict[str, Any]]:
        """Every record of an object that the CRM has; none where it has no such object."""
        if name not in self.kinds:
            return []
        with self.sandbox.lock:
            return self.rows(name)

    def words(self, name: str) -> set[str]:
        """Everything that may be said of an object's records."""
        return {"id", *COMMON[name], *(self.own_fields(name) if name in self.kinds else ())}

    def id_of(self, name: str, text: str) -> str:
        """The one record that is called so: by the case's own name for it, or by what it shows."""
        if text in self.aliases:
            return self.aliases[text]
        shown = {"contact": "email", "lead": "email", "company": "name", "case": "subject"}
        key = shown.get(name, "title")
        # A lead of Pipedrive's inbox stands for a deal, and is called as one.
        ids = [row["id"] for row in self.records(name) if row.get(key, row.get("title")) == text]
        assert len(ids) == 1, f"{len(ids)} records are meant by {name} {text!r}"
        return str(ids[0])

    def link(self, name: str, record_id: Any) -> Link | None:
        """Another record as people name it."""
        return Link(str(record_id), self.shown(name, str(record_id))) if record_id else None

    def shown(self, name: str, record_id: str) -> tuple[str, ...]:
        """What people call a record."""
        raise NotImplementedError


def split_name(values: Values) -> dict[str, Any]:
    """`name` as first and last name, at the last blank."""
    parts = dict(values)
    if "name" in parts:
        first, _, last = parts.pop("name").rpartition(" ")
        parts |= {"first": first or None, "last": last}
    return parts


def load_desks() -> dict[str, type[Desk]]:
    """The desk of every CRM that has one, in tests/contract/desk_<provider>.py."""
    found = {}
    for crm in PROVIDERS:
        name = f"tests.contract.desk_{crm}"
        if find_spec(name):
            kinds = vars(import_module(name)).values()
            found[crm] = next(k for k in kinds if isinstance(k, type) and Desk in k.__bases__)
    return found
