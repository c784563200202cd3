"""The contents of one Salesforce org: its tables, records and fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import request

from sandbox.account import User
from sandbox.answers import Record
from sandbox.core import Sandbox
from sandbox.index import Index
from sandbox.salesforce import soql
from sandbox.salesforce.org import Org
from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.schema import CALCULATED, CUSTOM_TYPES, FIELDS, PREFIXES, READ_ONLY

ORG_PLACE = {"TimeZoneSidKey": "America/Los_Angeles"}


class SalesforceState(Sandbox):
    """The records, fields and limits of an org, without its API."""

    def __init__(self, users: dict[str, str] | None = None) -> None:
        super().__init__(users)
        self.tables: dict[str, dict[str, Record]] = {name: {} for name in FIELDS}
        self.custom: dict[str, dict[str, Record]] = {name: {} for name in FIELDS}
        self.deleted: dict[str, dict[str, Record]] = {name: {} for name in FIELDS}
        """The records in the recycle bin; a merged one names its master."""
        self.assign_to: str | None = None
        """The user to whom an active assignment rule assigns new leads and cases."""
        self.hidden: set[tuple[str, str]] = set()
        """Custom fields that no permission set shows yet."""
        self.daily_limit = 15_000
        self.rules: list[Callable[[str, Record], None]] = []
        """An admin's validation rules: each gets object and record, and raises SalesforceRefused."""
        self.org = Org(self)
        """The switches that only Salesforce has."""
        self.part: Record | None = None
        """The current subrequest."""
        self.undo: list[Callable[[], object]] = []
        """The functions that undo the current transaction's changes, in the order of the changes."""
        self._unique: dict[tuple[str, str], Index] = {}
        self._seed()

    def _seed(self) -> None:
        for email, name in self.users.items():
            self.take_user(User(email, name))
        self.store("Organization", {"Name": "Acme", **ORG_PLACE})
        labels = ("Prospecting", "Demo booked", "Negotiation", "Closed Won", "Closed Lost")
        for number, label in enumerate(labels):
            stage = {"ApiName": label, "MasterLabel": label, "SortOrder": number, "IsActive": True,
                     "IsClosed": label.startswith("Closed")}  # fmt: skip
            self.store("OpportunityStage", stage)

    def become(self, account_id: str, account_name: str) -> None:
        super().become(account_id, account_name)
        self.tables["Organization"].clear()
        row = self.store("Organization", {"Name": account_name, **ORG_PLACE})
        row["Id"] = account_id

    def header(self, name: str) -> str:
        """Return a header that applies to the current write.

        A part of a composite call has its own headers and inherits none of these; a part of a graph
        has none:
        https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite_subrequest.htm
        https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_graph_composite_subrequest.htm
        """
        if self.part is None:
            return str(request.headers.get(name, ""))
        sent = self.part.get("httpHeaders") or {}
        return next((str(v) for k, v in sent.items() if k.lower() == name.lower()), "")

    def take_user(self, user: User) -> None:
        row = {"Email": user.email, "Name": user.name, "IsActive": user.active}
        user.id = self.store("User", {**row, "UserType": user.kind or "Standard"})["Id"]

    def user_left(self, email: str) -> None:
        self._set_active(email, False)

    def user_back(self, email: str) -> None:
        self._set_active(email, True)

    def _set_active(self, email: str, active: bool) -> None:
        for row in self.tables["User"].values():
            if row["Email"] == email:
                row["IsActive"] = active

    def store(self, sobject: str, values: Record) -> Record:
        """Create a record without checks."""
        number = self.new_id()
        values = self._kept(sobject, values)
        record_id = soql.checked_id(f"{PREFIXES[sobject]}{number:012d}")
        record = {"Id": record_id, "CreatedDate": number, **values}
        table = self.tables[sobject]
        table[record["Id"]] = record
        self.undo.append(lambda: table.pop(record["Id"]))
        self._note(sobject, record)
        return record

    def change(self, sobject: str, record: Record, body: Record) -> None:
        """Change a record without checks."""
        before = dict(record)

        def undo() -> None:
            record.clear()
            record.update(before)

        self.undo.append(undo)
        record.update(self._kept(sobject, body))
        self._note(sobject, record)

    def _note(self, sobject: str, record: Record) -> None:
        """Index a record by its unique values."""
        for (name, _), index in self._unique.items():
            if name == sobject:
                index.note(record["Id"], record)

    def by_unique(self, sobject: str, field: str, value: str) -> list[Record]:
        """Return the records with this value in a field, usually a unique one."""
        index = self._unique.get((sobject, field))
        if index is None:
            index = Index(lambda r: [r.get(field) or ""])
            for record in self.tables[sobject].values():
                index.note(record["Id"], record)
            self._unique[sobject, field] = index
        return index.find(self.tables[sobject], value)

    def names(self, sobject: str, use: str = "") -> set[str]:
        """Return the fields of an object, or those for one use of `account.USES`."""
        custom = {n for n in self.custom[sobject] if (sobject, n) not in self.hidden}
        there = set(FIELDS[sobject]) | set(self.account.extra.get(sobject, {})) | custom
        return {name for name in there if self.account.shows(sobject, name, use)}

    def kind_of(self, sobject: str, name: str) -> Any:
        """Return the maximum length of a field's text, or the field's type."""
        custom = self.custom[sobject].get(name, {})
        own = CUSTOM_TYPES.get(custom.get("type", ""), custom.get("references", 255))
        return FIELDS[sobject].get(name, self.account.extra.get(sobject, {}).get(name, own))

    def table_of(self, sobject: str) -> dict[str, Record]:
        """Return the records of an object; raise if the account hides it."""
        status = self.account.missing.get(sobject)
        if status == 403:
            message = "insufficient access rights on cross-reference id"
            raise SalesforceRefused(403, "INSUFFICIENT_ACCESS", message)
        if sobject not in self.tables or status:
            raise SalesforceRefused(404, "NOT_FOUND", "The requested resource does not exist")
        return self.tables[sobject]

    def read_only(self, sobject: str, name: str) -> bool:
        """Whether a field refuses every value."""
        made = self.custom[sobject].get(name, {}).get("type") in CALCULATED
        return made or (sobject, name) in READ_ONLY

    def _kept(self, sobject: str, values: Record) -> Record:
        """Return values as Salesforce returns them: times with an offset, numbers as doubles."""
        kept = dict(values)
        for name, value in values.items():
            kind = self.kind_of(sobject, name) if name not in ("Id", "CreatedDate") else ""
            if kind == "time" and isinstance(value, str):
                kept[name] = value.replace("Z", ".000+0000")
            elif kind in ("number", "double", "percent") and isinstance(value, int):
                kept[name] = float(value)
        return kept

    def drop_booking_fields(self) -> None:
        for fields in self.custom.values():
            fields.pop("meetergo_booking_id__c", None)

    def delete_meetings(self) -> None:
        self.tables["Event"].clear()
        self.tables["EventRelation"].clear()
