"""A person who works in Pipedrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from crm_adapters.codes import Sort
from sandbox.pipedrive.lead_bodies import LEAD_CHANGES
from sandbox.pipedrive.schema import BODIES
from sandbox.view import plain
from tests.contract.desk import LOST, WON, WORDS, CustomField, Desk, FieldType, Refusal, Values

MONDAY, FRIDAY = "2027-01-11", "2027-01-15"
TYPES = (
    FieldType("Text", "varchar", "a", "a", "b", "b", None, "own"),
    FieldType("Long", "text", "a\nb", "a\nb", "c", "c", None, "own"),
    FieldType("Auto", "varchar_auto", "a", "a", "b", "b", None, "own"),
    FieldType("Phone", "phone", "+4930123", "+4930123", "+4930124", "+4930124", None, "1"),
    FieldType("Number", "double", "500", 500, 12.5, 12.5, None, 7.0),
    FieldType("Money", "monetary", "500", {"value": 500, "currency": "EUR"}, "$12.50",
              {"value": 12.5, "currency": "USD"}, None, {"value": 7.0, "currency": "EUR"}),
    FieldType("Date", "date", "11.01.2027", MONDAY, FRIDAY, FRIDAY, None, "2027-02-01"),
    FieldType("Days", "daterange", f"{MONDAY}/{FRIDAY}", {"value": MONDAY, "until": FRIDAY},
              [FRIDAY, FRIDAY], {"value": FRIDAY, "until": FRIDAY}, None,
              {"value": "2027-02-01", "until": "2027-02-02"}),
    FieldType("Time", "time", "09:30", {"value": "09:30:00"}, "2027-01-11T18:05:00Z",
              {"value": "18:05:00"}, None, {"value": "07:00:00"}, "time"),
    FieldType("Hours", "timerange", "09:00/17:30", {"value": "09:00:00", "until": "17:30:00"},
              ["10:00", "11:00"], {"value": "10:00:00", "until": "11:00:00"}, None,
              {"value": "07:00:00", "until": "08:00:00"}),
    FieldType("Place", "address", "Main St 1, Bonn", {"value": "Main St 1, Bonn"}, "Bonn",
              {"value": "Bonn"}, None, {"value": "Berlin"}),
    FieldType("One", ("enum", "Hot", "Cold", "Mild"), "hot", 1, "COLD", 2, None, 3),
    FieldType("Some", ("set", "A", "B", "C"), ["b", "a"], [1, 2], "c", [3], None, [2, 3]),
    FieldType("Yes", ("enum", "Yes", "No"), True, 1, False, 2, None, 1),
    FieldType("User", "user", "mary@acme.example", "@mary", "john@acme.example", "@john", None, "@mary"),
    FieldType("Org", "org", "@company", "@company", "@other", "@other", None, "@company"),
    FieldType("People", "people", "@contact", "@contact", "@somebody", "@somebody", None, "@contact"),
    FieldType("label_ids", None, ["hot", "customer"], [21, 23], "cold", [22], [], [21]),
    FieldType("value", None, "500", 500, 12.5, 12.5, "stays", 7.0),
    FieldType("currency", None, "EUR", "EUR", "USD", "USD", "stays", "CHF"),
    FieldType("probability", None, "50", 50, 60, 60, None, 70),
    FieldType("lost_reason", None, "a", "a", "b", "b", None, "own"),
    FieldType("expected_close_date", None, MONDAY, MONDAY, FRIDAY, FRIDAY, "stays", "2027-02-01"),
    FieldType("visible_to", None, "everybody", 3, "owner", 1, "stays", 3),
)  # fmt: skip


def answers(*statuses: int) -> tuple[Refusal, ...]:
    """Return one answer per status: Pipedrive has no codes."""
    return tuple((status, {"success": False, "error": WORDS}) for status in statuses)


class PipedriveDesk(Desk):
    """A person who works in a Pipedrive company account."""

    kinds: ClassVar = {"contact": "persons", "company": "organizations", "lead": "leads",
             "deal": "deals", "meeting": "activities"}  # fmt: skip
    names: ClassVar = {
        "contact": {"name": "name"},
        "company": {"name": "name"},
        "deal": {"title": "title", "amount": "value", "close_date": "expected_close_date"},
        "meeting": {"title": "subject"},
    }
    refs: ClassVar = {"company": "org_id", "deal": "deal_id"}
    in_files: ClassVar = {
        "contact": {"email": "emails", "last": "name", "phone": "phones", "job_title": "job_title"},
        "meeting": {"where": "location", "start": "due_date"},
    }
    stores: ClassVar = ("records", "leads", "participants", "custom")
    link_fields: ClassVar = frozenset({"org_id", "person_id", "deal_id", "participants",
                                       "organization_id", "lead_id"})  # fmt: skip
    unused_fields: ClassVar = ("persons", "job_title")
    no_field: ClassVar = ("meeting", "anything")
    demands: ClassVar = (("meeting", ("subject",), "subject"),)
    field_types: ClassVar = TYPES
    a_stage: ClassVar = "contact made"
    own_rules: ClassVar = {
        "rules": {"contact": {"fields": {
            "phones": {"from": "attendee.phone", "write": "on_create"},
            "name": {"from": "attendee.display_name", "write": "untouched"},
        }}},
        "leads of the inbox": {"deal": {"as": "lead", "fields": {
            "value": {"value": 500},
            "expected_close_date": {"from": "booking.start", "as": "date"},
        }}},
    }  # fmt: skip
    called_at: ClassVar = "https://acme.pipedrive.com"
    first_write: ClassVar = "/api/v2/persons"
    first_read: ClassVar = "/search"
    update_contact: ClassVar = ("PATCH", "/persons/")
    delete_meeting: ClassVar = ("DELETE", "")
    create_deal: ClassVar = ("POST", "/deals")
    after_deal: ClassVar = ("PATCH", "/deals")
    make_field: ClassVar = r"POST .*Fields$"
    most_calls: ClassVar = (4, 1, 2)
    refusals: ClassVar = {
        Sort.ACCOUNT: answers(402, 403, 415),
        Sort.RECORD: answers(400, 422),
        Sort.PASSING: answers(500, 503),
        Sort.BUDGET: answers(429),
        Sort.TOKEN: answers(401),
    }
    blocked: ClassVar = (402, {"success": False, "error": "Payment required"})
    needed_scope: ClassVar = "deals:full"
    counts_days: ClassVar = True

    @classmethod
    def known_company(cls, domain: str) -> Values:
        # Pipedrive cannot search by domain: the name identifies a company.
        return {"name": domain}

    def address(self, name: str, record_id: str) -> str:
        pages = {"contact": "person", "company": "organization", "lead": "leads/inbox"}
        page = pages.get(name, name)
        return f"https://{self.sandbox.account_name.lower()}.pipedrive.com/{page}/{record_id}"

    def set_pipelines(self, pipelines: Mapping[str, list[str]]) -> None:
        self.sandbox.pipelines = [
            {"id": number, "name": label, "order_nr": number}
            for number, label in enumerate(pipelines, 1)
        ]
        every = [(line, stage) for line, stages in enumerate(pipelines.values(), 1)
                 for stage in stages]  # fmt: skip
        self.sandbox.stages = [
            {"id": number, "name": stage, "pipeline_id": line, "order_nr": number}
            for number, (line, stage) in enumerate(every, 11)
        ]

    def add_field(self, name: str, field: str, spec: CustomField) -> None:
        kinds = {"text": "varchar", "number": "double", "flag": "enum", "date": "date",
                 "moment": "varchar", "choice": "enum", "choices": "set", "money": "monetary",
                 "user": "user"}  # fmt: skip
        labels = ["Yes", "No"] if spec.kind == "flag" else spec.options
        body = {"field_name": field, "field_type": kinds[spec.kind]}
        options = {"options": [{"label": label} for label in labels]} if labels else {}
        plural = {"contact": "person", "company": "organization"}.get(name, name)
        with self.sandbox.app.test_request_context(method="POST", json={**body, **options}):
            self.sandbox._fields(f"{plural}Fields")

    def add_typed(self, spec: FieldType) -> None:
        if not spec.type:
            return
        kind, *options = (spec.type,) if isinstance(spec.type, str) else spec.type
        code = f"{len(self.sandbox.custom['deals']):040x}"
        self.sandbox.add_custom("deals", code, spec.name, kind)
        if options:
            numbered = [{"id": n, "label": label} for n, label in enumerate(options, 1)]
            self.sandbox.custom["deals"][code]["options"] = numbered

    def make_others(self) -> dict[str, Any]:
        kinds = {
            "company": "company",
            "other": "company",
            "contact": "contact",
            "somebody": "contact",
        }
        return {name: int(self.make(kind, {"name": name})) for name, kind in kinds.items()}

    def holder(self, name: str) -> tuple[dict[str, Any], str]:
        (deal,) = self.sandbox.records["deals"].values()
        keys = [k for k, f in self.sandbox.custom["deals"].items() if f["field_name"] == name]
        return (deal.setdefault("custom_fields", {}), keys[0]) if keys else (deal, name)

    def user_id(self, email: str) -> int:
        return int(self.sandbox._user_ids()[email])

    def add_stage(self) -> None:
        last = self.sandbox.stages[-1]
        self.sandbox.stages.append({**last, "id": 99, "name": "Extra"})

    def drop_stage(self) -> None:
        self.sandbox.stages.pop()

    def use_up_day(self) -> Callable[[], None]:
        before = self.sandbox.daily_budget
        self.sandbox.daily_budget = self.sandbox.spent + 3000
        self.sandbox.spent = int(self.sandbox.daily_budget * 0.95)

        def next_day() -> None:
            self.sandbox.spent, self.sandbox.daily_budget = 0, before

        return next_day

    def own_fields(self, name: str) -> set[str]:
        kind = self.kinds[name]
        if name == "lead":
            custom = {spec["field_name"] for spec in self.sandbox.custom["deals"].values()}
            return {*LEAD_CHANGES, "contact", "company", "amount", "currency"} | custom
        if name == "meeting":
            return {*self.sandbox._types(kind, "write"), "lead"}
        custom = {spec["field_name"] for spec in self.sandbox.custom[kind].values()}
        return set(self.sandbox._types(kind, "write")) | custom

    def make(self, name: str, values: Values) -> str:
        if name == "lead":
            with self.sandbox.app.test_request_context(method="POST", json=self._of_lead(values)):
                return str(self.sandbox._leads().get_json()["data"]["id"])
        with self.sandbox.app.test_request_context(method="POST", json=self._body(name, values)):
            answer = self.sandbox._many(self.kinds[name]).get_json()
        record_id = answer["data"]["id"]
        self._beside(name, record_id, values)
        return str(record_id)

    def change(self, name: str, record_id: str, values: Values) -> None:
        if name == "lead":
            with self.sandbox.app.test_request_context(method="PATCH", json=self._of_lead(values)):
                self.sandbox._lead(record_id)
            return
        body = self._body(name, values)
        with self.sandbox.app.test_request_context(method="PATCH", json=body):
            self.sandbox._one(self.kinds[name], int(record_id))
        self._beside(name, int(record_id), values)

    def _of_lead(self, values: Values) -> dict[str, Any]:
        """Return the body of a lead, with the field names of API v1."""
        keys = {spec["field_name"]: key for key, spec in self.sandbox.custom["deals"].items()}
        body: dict[str, Any] = {}
        for key, value in values.items():
            if key == "contact":
                body["person_id"] = int(self.id_of("contact", value)) if value else None
            elif key == "company":
                body["organization_id"] = int(self.id_of("company", value)) if value else None
            elif key == "owner":
                body["owner_id"] = self.sandbox._user_ids()[value]
            elif key in keys:
                body[keys[key]] = _written(self.sandbox.custom["deals"][keys[key]], value)
            else:
                body[key] = value
        return body

    def convert(self, lead_id: str) -> str:
        return str(self.sandbox.convert(lead_id))

    def _body(self, name: str, values: Values) -> dict[str, Any]:
        values = dict(values)
        if name == "contact" and "first" in values:
            values["name"] = f"{values.pop('first')} {values.pop('last')}"
        custom = self.sandbox.custom[self.kinds[name]]
        keys = {spec["field_name"]: key for key, spec in custom.items()}
        body: dict[str, Any] = {}
        for key, value in values.items():
            if key in keys:
                written = _written(custom[keys[key]], value)
                body.setdefault("custom_fields", {})[keys[key]] = written
            elif key == "stage":
                body |= self._stage(value, values.get("pipeline"))
            elif key in ("email", "emails", "phone"):
                items = value if isinstance(value, list) else [value] if value else []
                body["phones" if key == "phone" else "emails"] = [
                    {"value": item, "primary": number == 0, "label": "work"}
                    for number, item in enumerate(items)
                ]
            elif key != "pipeline":
                body |= self._plain(name, key, value)
        return body

    def _stage(self, stage: str, pipeline: str | None) -> dict[str, Any]:
        if stage in (WON, LOST):
            return {"status": stage.lower()}
        lines = {p["id"] for p in self.sandbox.pipelines if pipeline in (None, p["name"])}
        (found,) = (
            s["id"] for s in self.sandbox.stages if s["name"] == stage and s["pipeline_id"] in lines
        )
        return {"stage_id": found}

    def _plain(self, name: str, key: str, value: Any) -> dict[str, Any]:
        if key == "owner":
            return {"owner_id": self.sandbox._user_ids()[value]}
        if key == "contacts":
            return {"person_id": int(self.id_of("contact", value[0]))}
        if key in self.refs:
            return {self.refs[key]: int(self.id_of(key, value)) if value else None}
        return {self.names[name].get(key, key): value}

    def _beside(self, name: str, record_id: int, values: Values) -> None:
        if name == "deal" and "contacts" in values:
            others = [int(self.id_of("contact", item)) for item in values["contacts"][1:]]
            self.sandbox.participants[record_id] = {self.sandbox.new_id(): p for p in others}

    def delete(self, name: str, record_id: str) -> None:
        if name == "lead":
            self.sandbox.leads[record_id]["is_deleted"] = True
            return
        self.sandbox.records[self.kinds[name]][int(record_id)]["is_deleted"] = True

    def merge(self, name: str, loser: str, winner: str) -> str:
        self.sandbox.merge(self.kinds[name], int(winner), int(loser))
        return winner

    def shown(self, name: str, record_id: str) -> tuple[str, ...]:
        if name == "lead":
            lead = self.sandbox.leads[record_id]
            return (f"{record_id}, deleted",) if lead["is_deleted"] else (lead["title"],)
        record = self.sandbox.records[self.kinds[name]][int(record_id)]
        if record["is_deleted"]:
            return (f"{record_id}, deleted",)
        emails = [entry["value"] for entry in record.get("emails") or ()]
        return (*emails[:1], record.get("name") or record.get("title") or record.get("subject"))

    def raw(self) -> dict[tuple[str, str], dict[str, Any]]:
        found = {("deal", lead["id"]): self._raw_lead(lead) for lead in self.sandbox.leads.values()}
        for name, kind in self.kinds.items():
            for row in self.sandbox.records.get(kind, {}).values():
                if not row["is_deleted"]:
                    found[name, str(row["id"])] = self._raw_record(kind, row)
        return found

    def _raw_lead(self, lead: Any) -> dict[str, Any]:
        labels = {key: spec["field_name"] for key, spec in self.sandbox.custom["deals"].items()}
        plain = {labels.get(k, k): v for k, v in lead.items() if k != "update_time"}
        worth = (lead["value"] or {}).get("amount")
        return {**plain, "value": worth, "org_id": lead["organization_id"]}

    def _raw_record(self, kind: str, row: Any) -> dict[str, Any]:
        labels = {key: spec["field_name"] for key, spec in self.sandbox.custom[kind].items()}
        plain = {k: v for k, v in row.items() if k not in ("custom_fields", "id")}
        for key in ("emails", "phones"):
            plain |= {key: [e["value"] for e in row[key]]} if row.get(key) else {}
        if isinstance(plain.get("location"), dict):
            plain["location"] = plain["location"]["value"]
        return plain | {labels.get(k, k): v for k, v in row.get("custom_fields", {}).items()}

    def rows(self, name: str) -> list[dict[str, Any]]:
        if name == "lead":
            leads = self.sandbox.leads.values()
            return [self._lead_row(lead) for lead in leads if not lead["is_deleted"]]
        return [self._row(name, record)
                for record in self.sandbox.records[self.kinds[name]].values()
                if not record["is_deleted"]]  # fmt: skip

    def _lead_row(self, lead: Any) -> dict[str, Any]:
        own = {key: lead.get(key) for key in LEAD_CHANGES}
        for key, spec in self.sandbox.custom["deals"].items():
            own[spec["field_name"]] = _value(spec, lead.get(key))
        users = {user.id: user.email for user in self.sandbox._user_rows()}
        worth = lead["value"] or {}
        return {**own, "id": lead["id"], "owner": users.get(lead["owner_id"]),
                "contact": self.link("contact", lead["person_id"]),
                "company": self.link("company", lead["organization_id"]),
                "amount": worth.get("amount"), "currency": worth.get("currency")}  # fmt: skip

    def _row(self, name: str, record: Any) -> dict[str, Any]:
        kind = self.kinds[name]
        own = {key: record.get(key) for key in BODIES[kind]}
        custom = record.get("custom_fields") or {}
        for key, spec in self.sandbox.custom[kind].items():
            own[spec["field_name"]] = _value(spec, custom.get(key))
        users = {user.id: user.email for user in self.sandbox._user_rows()}
        row = {"id": str(record["id"]), **own,
               **{word: own[key] for word, key in self.names[name].items()},
               "owner": users.get(record["owner_id"]),
               "company": self.link("company", record.get("org_id"))}  # fmt: skip
        if name == "contact":
            emails = [entry["value"] for entry in record.get("emails") or ()]
            phones = [entry["value"] for entry in record.get("phones") or ()]
            row |= {"emails": emails, "email": next(iter(emails), None),
                    "phone": next(iter(phones), None)}  # fmt: skip
        if name == "deal":
            stages = {stage["id"]: stage["name"] for stage in self.sandbox.stages}
            lines = {p["id"]: p["name"] for p in self.sandbox.pipelines}
            ended = {"won": WON, "lost": LOST}.get(record["status"])
            people = [record.get("person_id"),
                      *self.sandbox.participants.get(record["id"], {}).values()]  # fmt: skip
            row |= {"stage": ended or stages[record["stage_id"]],
                    "pipeline": lines[record["pipeline_id"]],
                    "contacts": [self.link("contact", p) for p in people if p],
                "main_contact": self.link("contact", people[0])}  # fmt: skip
        if name == "meeting":
            start = datetime.fromisoformat(f"{record['due_date']}T{record['due_time']}+00:00")
            hours, minutes = (int(part) for part in record["duration"].split(":")[:2])
            row |= {"start": start.isoformat(), "minutes": hours * 60 + minutes,
                    "where": (record.get("location") or {}).get("value"),
                    "body": plain(record.get("note") or ""),
                    "contacts": [self.link("contact", p["person_id"])
                                 for p in record.get("participants") or ()],
                    "deal": self.link("deal", record.get("deal_id")),
                    "lead": self.link("lead", record.get("lead_id"))}  # fmt: skip
        return row


def _written(spec: Any, value: Any) -> Any:
    ids = {option["label"]: option["id"] for option in spec.get("options") or ()}
    if not ids or value is None:
        return value
    if isinstance(value, bool):
        return ids["Yes" if value else "No"]
    return [ids[item] for item in value] if isinstance(value, list) else ids[value]


def _value(spec: Any, value: Any) -> Any:
    labels = {option["id"]: option["label"] for option in spec.get("options") or ()}
    if not labels or value is None:
        return value
    if isinstance(value, list):
        return [labels[item] for item in value]
    return {"Yes": True, "No": False}.get(labels[value], labels[value])
