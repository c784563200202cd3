"""A person who works in Salesforce."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from crm_adapters.codes import Sort
from sandbox.salesforce.paths import DATA
from tests.contract.desk import (
    LOST,
    WON,
    WORDS,
    CustomField,
    Desk,
    FieldType,
    Refusal,
    Values,
    split_name,
)

MONDAY, FRIDAY = "2027-01-11", "2027-01-15"
TYPES = (
    FieldType("Text__c", {"type": "Text"}, "a", "a", "b", "b", None, "own"),
    FieldType("Area__c", {"type": "TextArea"}, "a\nb", "a\nb", "c", "c", None, "own"),
    FieldType("Long__c", {"type": "LongTextArea"}, "a", "a", "b", "b", None, "own"),
    FieldType("Html__c", {"type": "Html"}, "a", "a", "b", "b", None, "own"),
    FieldType("Secret__c", {"type": "EncryptedText"}, "a", "a", "b", "b", None, "own"),
    FieldType("Phone__c", {"type": "Phone"}, "+4930123", "+4930123", "+4930124", "+4930124", None, "1"),
    FieldType("Email__c", {"type": "Email"}, "a@b.example", "a@b.example", "c@b.example", "c@b.example", None, "d@b.example"),
    FieldType("Url__c", {"type": "Url"}, "https://a.example", "https://a.example", "https://b.example", "https://b.example", None, "https://c.example"),
    FieldType("Number__c", {"type": "Number", "precision": 6, "scale": 2}, "500", 500.0, 12.5, 12.5, None, 7.0),
    FieldType("Money__c", {"type": "Currency"}, "500", 500.0, 12.5, 12.5, None, 7.0),
    FieldType("Percent__c", {"type": "Percent"}, "50", 50.0, 12.5, 12.5, None, 7.0),
    FieldType("Flag__c", {"type": "Checkbox"}, "ja", True, "yes", True, False, False),
    FieldType("Date__c", {"type": "Date"}, "11.01.2027", MONDAY, FRIDAY, FRIDAY, None, "2027-02-01"),
    FieldType("Moment__c", {"type": "DateTime"}, "2027-01-11T10:00:00+01:00", "2027-01-11T09:00:00.000+0000",
              "2027-01-15T09:00:00Z", "2027-01-15T09:00:00.000+0000", None, "2027-02-01T09:00:00.000+0000"),
    FieldType("Time__c", {"type": "Time"}, "09:30", "09:30:00.000Z", "2027-01-11T18:05:00Z",
              "18:05:00.000Z", None, "07:00:00.000Z", "time"),
    FieldType("Pick__c", {"type": "Picklist", "values": ["Hot", "Cold", "Mild"]}, "hot", "Hot", "COLD", "Cold", None, "Mild"),
    FieldType("Free__c", {"type": "Picklist", "values": ["Hot"], "restricted": False}, "New", "New", "b", "b", None, "Hot"),
    FieldType("Multi__c", {"type": "MultiselectPicklist", "values": ["A", "B", "C"]}, ["b", "a"], "A;B", "c", "C", None, "B;C"),
    FieldType("User__c", {"type": "Lookup", "references": "User"}, "mary@acme.example", "@mary", "john@acme.example", "@john", None, "@mary"),
    FieldType("Ref__c", {"type": "Lookup", "references": "Account"}, "@company", "@company", "@other", "@other", None, "@company"),
    FieldType("Auto__c", {"type": "AutoNumber"}),
    FieldType("Formula__c", {"type": "Formula"}),
    FieldType("Place__c", {"type": "Location"}),
    FieldType("Place__Latitude__s", {"type": "Number"}, "50.5", 50.5, 51, 51.0, None, 7.0),
)  # fmt: skip


SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIXES = {"company": "001", "contact": "003", "lead": "00Q", "deal": "006", "case": "500", "meeting": "00U"}  # fmt: skip


def summed(short: str) -> str:
    """Return an id with 18 characters, computed bit by bit by the published rule."""
    end = ""
    for start in (0, 5, 10):
        bits = "".join(
            "1" if sign.isupper() else "0" for sign in reversed(short[start : start + 5])
        )
        end += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[int(bits, 2)]
    return short + end


def answers(*codes: tuple[int, str]) -> tuple[Refusal, ...]:
    """Return one answer per status and code."""
    return tuple((status, [{"errorCode": code, "message": WORDS}]) for status, code in codes)


class SalesforceDesk(Desk):
    """A person who works in a Salesforce org."""

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
    in_files: ClassVar = {"meeting": {"start": "StartDateTime"}}
    stores: ClassVar = ("tables", "custom", "deleted", "hidden")
    link_fields: ClassVar = frozenset({"AccountId", "WhoId", "WhatId"})
    unused_fields: ClassVar = ("Contact", "Title")
    no_field: ClassVar = ("contact", "No_suffix")
    demands: ClassVar = (
        ("meeting", ("StartDateTime",), "StartDateTime"),
        ("meeting", ("EndDateTime",), "EndDateTime or DurationInMinutes"),
    )
    field_types: ClassVar = TYPES
    a_stage: ClassVar = "Negotiation"
    own_rules: ClassVar = {
        "rules": {"contact": {"fields": {
            "Phone": {"from": "attendee.phone", "write": "if_empty"},
            "Title": {"from": "answers.Job", "write": "append"},
            "LastName": {"from": "attendee.last_name", "write": "untouched"},
        }}},
    }  # fmt: skip
    called_at: ClassVar = "https://acme.my.salesforce.com"
    first_write: ClassVar = "/composite/graph"
    first_read: ClassVar = "/composite"
    update_contact: ClassVar = ("POST", "/composite/graph")
    delete_meeting: ClassVar = ("POST", "/graph")
    create_deal: ClassVar = ("POST", "/graph")
    after_deal: ClassVar = ("POST", "/graph")
    make_field: ClassVar = r"POST .*/CustomField$"
    batch_reads: ClassVar = ("/composite/query",)
    most_calls: ClassVar = (2, 1, 1)
    most_for_numbers: ClassVar = 1
    most_at_a_meeting: ClassVar = 50
    refusals: ClassVar = {
        Sort.ACCOUNT: answers((403, "API_DISABLED_FOR_ORG"), (400, "INVALID_TYPE")),
        Sort.RECORD: answers((400, "FIELD_CUSTOM_VALIDATION_EXCEPTION"), (400, "STRING_TOO_LONG")),
        Sort.PASSING: answers((400, "UNABLE_TO_LOCK_ROW"), (503, "SERVER_UNAVAILABLE")),
        Sort.BUDGET: answers((403, "REQUEST_LIMIT_EXCEEDED"), (400, "EXCEEDED_QUOTA")),
        Sort.TOKEN: answers((401, "INVALID_SESSION_ID"), (400, "SESSION_EXPIRED")),
    }
    blocked: ClassVar = (403, [{"errorCode": "API_DISABLED_FOR_ORG",
                                "message": "API is not enabled for this Organization or Partner"}])  # fmt: skip
    needed_scope: ClassVar = "api"
    backlog: ClassVar = 200
    clocks: ClassVar = ("crm_adapters.salesforce.sending.monotonic",)
    counts_days: ClassVar = True

    @classmethod
    def custom_name(cls, label: str) -> str:
        return f"{label[:1].upper()}{label[1:].replace(' ', '_')}__c"

    @classmethod
    def made_up_id(cls, name: str, number: int) -> str:
        # The digits spread over all places, so that each place has small and capital letters.
        number, short = number * 7_046_029_254_386_353 % 62**12, ""
        for _ in range(12):
            number, place = divmod(number, 62)
            short += SIGNS[place]
        return summed(PREFIXES[name] + short)

    @classmethod
    def is_id(cls, name: str, text: str) -> bool:
        return text == summed(text[:15]) and text.startswith(PREFIXES[name])

    @classmethod
    def known_company(cls, domain: str) -> Values:
        return {"name": "Globex", "domain": f"www.{domain}"}

    def add_users(self, emails: Iterable[str]) -> None:
        for email in set(emails) - set(self.sandbox.users):
            self.sandbox.users[email] = email
            user = {"Email": email, "Name": email, "IsActive": True, "UserType": "Standard"}
            self.sandbox._store("User", user)

    def assign_to(self, email: str) -> None:
        self.sandbox.assign_to = self.user_id(email)

    def address(self, name: str, record_id: str) -> str:
        return f"https://acme.lightning.force.com/lightning/r/{self.kinds[name]}/{record_id}/view"

    def set_pipelines(self, pipelines: Mapping[str, list[str]]) -> None:
        # Salesforce has no pipelines: all deals share one list of stages.
        stages = [*dict.fromkeys(s for stages in pipelines.values() for s in stages), WON, LOST]
        self.sandbox.tables["OpportunityStage"].clear()
        for number, label in enumerate(stages):
            stage = {"ApiName": label, "MasterLabel": label, "SortOrder": number,
                     "IsActive": True, "IsClosed": label in (WON, LOST)}  # fmt: skip
            self.sandbox._store("OpportunityStage", stage)

    def add_field(self, name: str, field: str, spec: CustomField) -> None:
        types = {"text": "Text", "number": "Number", "flag": "Checkbox", "date": "Date",
                 "moment": "DateTime", "choice": "Picklist", "choices": "MultiselectPicklist",
                 "money": "Currency", "user": "Lookup"}  # fmt: skip
        metadata = {"type": types[spec.kind], "label": field, "values": tuple(spec.options)}
        metadata |= {"references": "User"} if spec.kind == "user" else {}
        self.sandbox.custom[self.kinds[name]][f"{field.removesuffix('__c')}__c"] = metadata

    def add_typed(self, spec: FieldType) -> None:
        self.sandbox.custom["Opportunity"][spec.name] = dict(spec.type)

    def make_others(self) -> dict[str, Any]:
        return {name: self.make("company", {"name": name}) for name in ("company", "other")}

    def holder(self, name: str) -> tuple[dict[str, Any], str]:
        (deal,) = self.sandbox.tables["Opportunity"].values()
        return deal, name

    def user_id(self, email: str) -> str:
        users = self.sandbox.tables["User"].values()
        return next(str(row["Id"]) for row in users if row["Email"] == email)

    def add_stage(self) -> None:
        stages = self.sandbox.tables["OpportunityStage"]
        like = next(iter(stages.values()))
        stages["extra"] = {**like, "Id": "extra", "ApiName": "Extra", "MasterLabel": "Extra"}

    def drop_stage(self) -> None:
        del self.sandbox.tables["OpportunityStage"]["extra"]

    def block(self) -> None:
        self.sandbox.org.disables_api()

    def use_up_day(self) -> Callable[[], None]:
        before = self.sandbox.daily_limit
        self.sandbox.daily_limit = int(self.sandbox.total_calls * 1.04) + 5
        return lambda: setattr(self.sandbox, "daily_limit", before)

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
                body["Email"] = value[0]  # Salesforce has one address per person
            elif key in ("contacts", "deal"):
                continue
            else:
                own = self.names[name].get(key, key)
                own = own if own in self.sandbox._names(self.kinds[name]) else f"{own}__c"
                body[own] = ";".join(value) if isinstance(value, list) else value
        if name == "deal" and "CloseDate" not in body and "stage" in values and "title" in values:
            body["CloseDate"] = "2027-03-31"  # Salesforce requires one
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

    def raw(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (name, row["Id"]): dict(row)
            for name, kind in self.kinds.items()
            for row in self.sandbox.tables[kind].values()
        }

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
