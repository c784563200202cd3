"""Somebody who works in Salesforce."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sandbox.salesforce.paths import DATA
from tests.contract.desk import LOST, WON, CustomField, Desk, Values, split_name


class SalesforceDesk(Desk):
    """Works in an org."""

    kinds: ClassVar = {"contact": "Contact", "company": "Account", "lead": "Lead", "deal": "Opportunity",
             "case": "Case", "meeting": "Event"}  # fmt: skip
    names: ClassVar = {
        "contact": {"first": "FirstName", "last": "LastName", "email": "Email", "phone": "Phone",
                    "job_title": "Title"},
        "company": {"name": "Name", "domain": "Website"},
        "lead": {"first": "FirstName", "last": "LastName", "email": "Email", "phone": "Phone",
                 "company_name": "Company", "status": "Status", "converted": "IsConverted"},
        "deal": {"title": "Name", "stage": "StageName", "amount": "Amount",
                 "close_date": "CloseDate"},
        "case": {"subject": "Subject", "status": "Status", "origin": "Origin"},
        "meeting": {"title": "Subject", "where": "Location", "body": "Description"},
    }  # fmt: skip

    def add_users(self, emails: Iterable[str]) -> None:
        for email in set(emails) - set(self.sandbox.users):
            self.sandbox.users[email] = email
            user = {"Email": email, "Name": email, "IsActive": True, "UserType": "Standard"}
            self.sandbox._store("User", user)

    def assign_to(self, email: str) -> None:
        users = self.sandbox.tables["User"].values()
        self.sandbox.assign_to = next(row["Id"] for row in users if row["Email"] == email)

    def address(self, name: str, record_id: str) -> str:
        return f"https://acme.lightning.force.com/lightning/r/{self.kinds[name]}/{record_id}/view"

    def set_pipelines(self, pipelines: Mapping[str, list[str]]) -> None:
        # One list of stages for all: Salesforce has no pipelines.
        stages = [*dict.fromkeys(s for stages in pipelines.values() for s in stages), WON, LOST]
        self.sandbox.tables["OpportunityStage"].clear()
        for number, label in enumerate(stages):
            stage = {"ApiName": label, "MasterLabel": label, "SortOrder": number,
                     "IsActive": True, "IsClosed": label in (WON, LOST)}  # fmt: skip
            self.sandbox._store("OpportunityStage", stage)

    def add_field(self, name: str, field: str, spec: CustomField) -> None:
        types = {"text": "Text", "number": "Number", "flag": "Checkbox", "date": "Date",
                 "moment": "DateTime", "choice": "Picklist", "choices": "MultiselectPicklist"}  # fmt: skip
        metadata = {"type": types[spec.kind], "label": field, "values": tuple(spec.options)}
        self.sandbox.custom[self.kinds[name]][f"{field}__c"] = metadata

    def own_fields(self, name: str) -> set[str]:
        fields = self.sandbox._names(self.kinds[name])
        return fields | {field.removesuffix("__c") for field in fields}

    def make(self, name: str, values: Values) -> str:
        record_id = self._do("POST", self.kinds[name], self._body(name, values))["id"]
        self._beside(name, record_id, values)
        return str(record_id)

    def change(self, name: str, record_id: str, values: Values) -> None:
        body = self._body(name, values)
        if body:
            self._do("PATCH", f"{self.kinds[name]}/{record_id}", body)
        self._beside(name, record_id, values)

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        with self.sandbox.app.test_request_context(headers={"Sforce-Auto-Assign": "FALSE"}):
            return self.sandbox._do(method, f"{DATA}/sobjects/{path}", body)[1]

    def _body(self, name: str, values: Values) -> dict[str, Any]:
        body: dict[str, Any] = {}
        values = split_name(values) if name in ("contact", "lead") else dict(values)
        users = {row["Email"]: row["Id"] for row in self.sandbox.tables["User"].values()}
        values.pop("pipeline", None)
        for key, value in values.items():
            if key == "owner":
                body["OwnerId"] = users[value]
            elif key == "company" and name != "lead":
                body["AccountId"] = self.id_of("company", value) if value else None
            elif key == "contact":
                body["ContactId"] = self.id_of("contact", value)
            elif key == "emails":
                body["Email"] = value[0]  # Salesforce has one address a person
            elif key in ("contacts", "deal"):
                continue
            else:
                own = self.names[name].get(key, key)
                own = own if own in self.sandbox._names(self.kinds[name]) else f"{own}__c"
                body[own] = ";".join(value) if isinstance(value, list) else value
        if name == "deal" and "CloseDate" not in body and "stage" in values and "title" in values:
            body["CloseDate"] = "2027-03-31"  # Salesforce demands one
        return body

    def _beside(self, name: str, record_id: str, values: Values) -> None:
        if name == "deal":
            for number, item in enumerate(values.get("contacts") or ()):
                person = self.id_of("contact", item)
                role = {"OpportunityId": record_id, "ContactId": person, "IsPrimary": number == 0}
                self._do("POST", "OpportunityContactRole", role)

    def delete(self, name: str, record_id: str) -> None:
        self._do("DELETE", f"{self.kinds[name]}/{record_id}")

    def merge(self, name: str, loser: str, winner: str) -> str:
        self.sandbox.merge(self.kinds[name], winner, loser)
        return winner

    def convert(self, lead_id: str) -> str:
        return str(self.sandbox.convert(lead_id))

    def shown(self, name: str, record_id: str) -> tuple[str, ...]:
        row = self.sandbox.tables[self.kinds[name]].get(record_id, {})
        whole = " ".join(filter(None, (row.get("FirstName"), row.get("LastName"))))
        keys = ("Email", "Name", "Subject")
        return tuple(filter(None, (*(row.get(key) for key in keys), whole))) or (record_id,)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [self._row(name, record)
                for record in self.sandbox.tables[self.kinds[name]].values()]  # fmt: skip

    def _row(self, name: str, record: Any) -> dict[str, Any]:
        kind = self.kinds[name]
        own = {key: self._value(kind, key, record.get(key)) for key in self.sandbox._names(kind)}
        own |= {key.removesuffix("__c"): value for key, value in own.items()}
        users = {row["Id"]: row["Email"] for row in self.sandbox.tables["User"].values()}
        row = {"id": record["Id"], **own,
               **{word: own[key] for word, key in self.names[name].items()},
               "owner": users.get(record.get("OwnerId"))}  # fmt: skip
        if name in ("contact", "lead"):
            row["name"] = " ".join(filter(None, (own["FirstName"], own["LastName"])))
            row["emails"] = [own["Email"]] if own["Email"] else []
        if name in ("contact", "deal", "case"):
            row["company"] = self.link("company", record.get("AccountId"))
        if name == "case":
            row["contact"] = self.link("contact", record.get("ContactId"))
        if name == "deal":
            roles = self.sandbox.tables["OpportunityContactRole"].values()
            mine = [r for r in roles if r["OpportunityId"] == record["Id"]]
            mine.sort(key=lambda role: not role.get("IsPrimary"))
            row["contacts"] = [self.link("contact", r["ContactId"]) for r in mine]
            main = [self.link("contact", r["ContactId"]) for r in mine if r.get("IsPrimary")]
            row["main_contact"] = main[0] if len(main) == 1 else None
        if name == "meeting":
            row |= self._meeting(record)
        return row

    def _meeting(self, record: Any) -> dict[str, Any]:
        start, end = (
            datetime.fromisoformat(record[key]) for key in ("StartDateTime", "EndDateTime")
        )
        rows = self.sandbox.tables["EventRelation"].values()
        people = [record.get("WhoId"),
                  *(r["RelationId"] for r in rows if r["EventId"] == record["Id"])]  # fmt: skip
        what = record.get("WhatId") or ""
        kinds = {"006": "deal", "500": "case", "001": "company"}
        about = {kinds[what[:3]]: self.link(kinds[what[:3]], what)} if what else {}
        who = [self.link("lead" if p.startswith("00Q") else "contact", p) for p in people if p]
        return {"start": start.isoformat(), "minutes": (end - start) // timedelta(minutes=1),
                "contacts": who, "deal": None, "case": None, "company": None, **about}  # fmt: skip

    def _value(self, kind: str, key: str, value: Any) -> Any:
        several = self.sandbox.custom[kind].get(key, {}).get("type") == "MultiselectPicklist"
        return value.split(";") if several and value else value
