"""The contents of one HubSpot portal, and how its records are linked and found."""

from __future__ import annotations

from sandbox.account import User
from sandbox.answers import Record
from sandbox.core import Sandbox
from sandbox.hubspot.portal import Portal
from sandbox.hubspot.schema import new_schema
from sandbox.index import Index
from sandbox.limits import Window


class HubSpotState(Sandbox):
    """The records, links, lists and limits of a portal, without its API."""

    def __init__(self, users: dict[str, str] | None = None) -> None:
        super().__init__(users)
        self.schema = new_schema()
        self.portal = Portal(self)
        """The switches that only HubSpot has."""
        self.records: dict[str, dict[str, Record]] = {name: {} for name in self.schema}
        self.links: dict[tuple[str, str, str, str], set[int]] = {}
        self.emails = Index(lambda r: [r["properties"].get("email", ""), *r.get("additional", ())])
        self.unique: dict[tuple[str, str], Index] = {}
        """(object, property with unique values) -> the records by value."""
        self.window = Window(110, 10.0)
        self.search_window = Window(5, 1.0)
        self.search_lag: set[str] = set()
        self.merged: dict[tuple[str, str], str] = {}
        """(kind, id of a merged record) -> its present id."""
        self.required_when: dict[str, tuple[str, str, str]] = {}
        """object -> (property, value, property that this makes required): an admin's rule."""
        self.pipelines = [
            {"id": "default", "label": "Sales Pipeline", "displayOrder": 0, "stages": [
                {"id": "appointmentscheduled", "label": "Appointment Scheduled", "displayOrder": 0},
                {"id": "demobooked", "label": "Demo booked", "displayOrder": 1},
                {"id": "closedwon", "label": "Closed won", "displayOrder": 2, "closed": "true"},
                {"id": "closedlost", "label": "Closed lost", "displayOrder": 3, "closed": "true"},
            ]},
            {"id": "renewals", "label": "Renewals", "displayOrder": 1, "stages": [
                {"id": "renewaldue", "label": "Renewal due", "displayOrder": 0},
                {"id": "renewaltalk", "label": "In talks", "displayOrder": 1},
                {"id": "renewed", "label": "Renewed", "displayOrder": 2, "closed": "true"},
            ]},
        ]  # fmt: skip

    def take_user(self, user: User) -> None:
        user.id = str(900 + len(self.account.more_users))

    def owner_ids(self) -> dict[str, str]:
        """Return e-mail address -> id of the usual users."""
        return {email: str(number) for number, email in enumerate(self.users, 51)}

    def owner_rows(self) -> list[User]:
        """Return all present and former owners."""
        usual = [User(email, self.users[email], email not in self.account.left, "", number)
                 for email, number in self.owner_ids().items()]  # fmt: skip
        return [*usual, *self.account.more_users]

    def linked(self, kind: str, record_id: str, target: str) -> list[str]:
        """Return the ids of the linked records of another object."""
        return [key[3] for key in self.links if key[:3] == (kind, record_id, target)]

    def connect(self, kind: str, a: str, target: str, b: str, number: int) -> None:
        """Link two records with a type of link."""
        self.links.setdefault((kind, a, target, b), set()).add(number)
        self.links.setdefault((target, b, kind, a), set())

    def note(self, kind: str, record: Record) -> None:
        """Index a record by its unique values."""
        if kind == "contacts":
            self.emails.note(record["id"], record)
        for (name, _), index in self.unique.items():
            if name == kind:
                index.note(record["id"], record)

    def drop_booking_fields(self) -> None:
        for kind in self.schema:
            self.schema[kind].pop("meetergo_booking_id", None)
