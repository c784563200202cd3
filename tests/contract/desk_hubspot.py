"""A person who works in HubSpot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from app.crm.objects import ObjectName
from app.crm.schema import FieldKind, NewField
from crm_adapters.codes import Sort
from sandbox.hubspot.schema import new_property
from sandbox.view import plain
from tests.contract.desk import (
    LOST,
    WON,
    WORDS,
    CustomField,
    Desk,
    FieldType,
    Values,
    split_name,
)


def slug(text: str) -> str:
    """Return the internal name that HubSpot derives from a label."""
    table = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
    return re.sub(r"\W+", "_", text.lower().translate(table))


def refusal(category: str) -> dict[str, str]:
    """Return the body of a refusal."""
    return {"category": category, "message": WORDS}


MONDAY, FRIDAY = "2027-01-11", "2027-01-15"
TYPES = (
    FieldType("t_text", ("string", "text"), "a", "a", "b", "b", "", "own"),
    FieldType("t_area", ("string", "textarea"), "a\nb", "a\nb", "c", "c", "", "own"),
    FieldType("t_html", ("string", "html"), "a", "a", "b", "b", "", "own"),
    FieldType("t_file", ("string", "file"), "77", "77", "78", "78", "", "79"),
    FieldType("t_phone", ("phone_number", "phonenumber"), "+4930123", "+4930123", "+4930124", "+4930124", "", "1"),
    FieldType("t_number", ("number", "number"), 500, "500", "12.5", "12.5", "", "7.0"),
    FieldType("t_date", ("date", "date"), "11.01.2027", MONDAY, FRIDAY, FRIDAY, "", "2027-02-01"),
    FieldType("t_moment", ("datetime", "date"), "2027-01-11T10:00:00+01:00", "2027-01-11T09:00:00Z",
              "2027-01-15T09:00:00Z", "2027-01-15T09:00:00Z", "", "2027-02-01T09:00:00.000Z"),
    FieldType("t_flag", ("bool", "booleancheckbox", "true", "false"), "ja", "true", "nein", "false", "", "true"),
    FieldType("t_select", ("enumeration", "select", "Hot", "Cold", "Mild"), "hot", "Hot", "cold", "Cold", "", "Mild"),
    FieldType("t_radio", ("enumeration", "radio", "Hot", "Cold", "Mild"), "hot", "Hot", "cold", "Cold", "", "Mild"),
    FieldType("t_boxes", ("enumeration", "checkbox", "A", "B", "C"), ["b", "a"], "A;B", "c", "C", "", "B;C"),
    FieldType("t_owner", ("enumeration", "select", "OWNER"), "mary@acme.example", "@mary",
              "john@acme.example", "@john", "", "@mary"),
    FieldType("t_json", ("json", "text")),
    FieldType("t_place", ("object_coordinates", "text")),
    FieldType("t_formula", ("number", "calculation_equation")),
)  # fmt: skip


class HubSpotDesk(Desk):
    """A person who works in a HubSpot portal."""

    kinds: ClassVar = {
        "contact": "contacts",
        "company": "companies",
        "deal": "deals",
        "meeting": "meetings",
    }
    names: ClassVar = {
        "contact": {"first": "firstname", "last": "lastname", "email": "email", "phone": "phone",
                    "job_title": "jobtitle"},
        "company": {"name": "name", "domain": "domain"},
        "deal": {"title": "dealname", "amount": "amount", "close_date": "closedate"},
        "meeting": {"title": "hs_meeting_title", "where": "hs_meeting_location"},
    }  # fmt: skip
    targets: ClassVar = {"company": "companies", "contacts": "contacts", "deal": "deals"}
    in_files: ClassVar = {"meeting": {"start": "hs_timestamp"}}
    stores: ClassVar = ("records", "links", "schema")
    unused_fields: ClassVar = ("contacts", "mobilephone", "jobtitle")
    demands: ClassVar = (
        ("company", ("name", "domain"), "name or domain"),
        ("deal", ("dealname",), "dealname"),
        ("meeting", ("hs_timestamp", "hs_meeting_start_time"), "hs_timestamp"),
    )
    field_types: ClassVar = TYPES
    new_field: ClassVar = NewField(ObjectName.DEAL, "seats", FieldKind.FLAG, "Seats")
    a_stage: ClassVar = "Demo booked"
    own_rules: ClassVar = {
        "rules": {"contact": {"fields": {
            "phone": {"from": "attendee.phone", "write": "if_empty"},
            "jobtitle": {"from": "answers.Job", "write": "append"},
            "lastname": {"from": "attendee.last_name", "write": "untouched"},
            "lifecyclestage": {"value": "lead", "write": "on_create"},
        }}},
    }  # fmt: skip
    first_write: ClassVar = "/batch/create"
    first_read: ClassVar = "/search"
    update_contact: ClassVar = ("POST", "contacts/batch/update")
    delete_meeting: ClassVar = ("POST", "/meetings/batch/archive")
    create_deal: ClassVar = ("POST", "/deals/batch/create")
    after_deal: ClassVar = ("POST", "/associations")
    make_field: ClassVar = r"POST .*/properties/"
    batch_reads: ClassVar = ("/contacts/batch/read", "/contacts/search")
    most_calls: ClassVar = (3, 1, 2)
    most_for_numbers: ClassVar = 6
    refusals: ClassVar = {
        Sort.ACCOUNT: (
            (403, refusal("MISSING_SCOPES")),
            (403, refusal("BANNED")),
            (402, {"message": WORDS}),
        ),
        Sort.RECORD: ((400, refusal("VALIDATION_ERROR")), (413, {"message": WORDS})),
        Sort.PASSING: ((400, refusal("INTERNAL_ERROR")), (421, {"message": WORDS})),
        Sort.BUDGET: ((400, refusal("RATE_LIMITS")), (429, {"message": WORDS})),
        Sort.TOKEN: ((401, refusal("EXPIRED_AUTHENTICATION")),),
    }
    blocked: ClassVar = (403, {"status": "error", "message": "This portal is suspended",
                               "category": "ACCOUNT_SUSPENDED"})  # fmt: skip
    needed_scope: ClassVar = "crm.objects.deals.write"
    seconds_a_call: ClassVar = 0.7
    backlog: ClassVar = 120

    @classmethod
    def custom_name(cls, label: str) -> str:
        return slug(label)

    def address(self, name: str, record_id: str) -> str:
        kind = {"contact": "0-1", "company": "0-2", "deal": "0-3"}[name]
        portal = self.sandbox.account_id
        return f"https://app-eu1.hubspot.com/contacts/{portal}/record/{kind}/{record_id}"

    def set_pipelines(self, pipelines: Mapping[str, list[str]]) -> None:
        self.sandbox.pipelines = [
            {"id": slug(label), "label": label, "displayOrder": place, "stages": [
                {"id": f"{slug(label)}_{slug(stage)}", "label": stage, "displayOrder": number,
                 **({"closed": "true"} if stage in (WON, LOST) else {})}
                for number, stage in enumerate([*stages, WON, LOST])
            ]}
            for place, (label, stages) in enumerate(pipelines.items())
        ]  # fmt: skip

    def add_field(self, name: str, field: str, spec: CustomField) -> None:
        kinds = {"text": ("string", "text"), "number": ("number", "number"),
                 "flag": ("bool", "booleancheckbox"), "date": ("date", "date"),
                 "moment": ("datetime", "date"), "choice": ("enumeration", "select"),
                 "choices": ("enumeration", "checkbox"), "money": ("number", "number"),
                 "user": ("enumeration", "select")}  # fmt: skip
        kind, shown = kinds[spec.kind]
        self.sandbox.schema[self.kinds[name]][field] = {
            "name": field, "label": field, "type": kind, "fieldType": shown, "groupName": "g",
            "description": "", "hasUniqueValue": False, "hubspotDefined": False,
            "options": [{"value": slug(o), "label": o, "hidden": False, "displayOrder": i}
                        for i, o in enumerate(spec.options)],
            "modificationMetadata": {"readOnlyValue": False, "archivable": True,
                                     "readOnlyDefinition": False},
            **({"referencedObjectType": "OWNER", "externalOptions": True}
               if spec.kind == "user" else {}),
        }  # fmt: skip

    def add_typed(self, spec: FieldType) -> None:
        kind, shown, *options = spec.type
        owner = options == ["OWNER"]
        more: dict[str, Any] = {"hubspotDefined": False, "fieldType": shown}
        more |= {"referencedObjectType": "OWNER", "externalOptions": True} if owner else {}
        more |= {"calculated": True, "read_only": True} if "calculation" in shown else {}
        made = new_property(spec.name, kind, () if owner else tuple(options), **more)
        self.sandbox.schema["deals"][spec.name] = made

    def holder(self, name: str) -> tuple[dict[str, Any], str]:
        (deal,) = self.sandbox.records["deals"].values()
        return deal["properties"], name

    def user_id(self, email: str) -> str:
        return str(self.sandbox._owner_ids()[email])

    def add_stage(self) -> None:
        stage = {"id": "extra", "label": "Extra", "displayOrder": 99}
        self.sandbox.pipelines[0]["stages"].append(stage)

    def drop_stage(self) -> None:
        self.sandbox.pipelines[0]["stages"].pop()

    def own_fields(self, name: str) -> set[str]:
        return set(self.sandbox.schema[self.kinds[name]])

    def make(self, name: str, values: Values) -> str:
        properties, links = self._body(name, values, {})
        record = self.sandbox._insert(self.kinds[name], {"properties": properties})
        self._finish(name, record, values, links)
        return str(record["id"])

    def change(self, name: str, record_id: str, values: Values) -> None:
        record = self.sandbox.records[self.kinds[name]][record_id]
        properties, links = self._body(name, values, record["properties"])
        checked = self.sandbox._checked(self.kinds[name], properties, False, record_id)
        record["properties"].update(checked)
        self._finish(name, record, values, links)

    def _body(self, name: str, values: Values, there: Values) -> tuple[dict[str, str], Any]:
        properties: dict[str, str] = {}
        links: dict[str, list[str]] = {}
        values = split_name(values) if name == "contact" else dict(values)
        pipeline = values.pop("pipeline", None)
        line = next(p for p in self.sandbox.pipelines
                     if pipeline in (None, p["label"])
                     and (pipeline or there.get("pipeline", p["id"]) == p["id"]))  # fmt: skip
        for key, value in values.items():
            if key == "owner":
                properties["hubspot_owner_id"] = self.sandbox._owner_ids()[value] if value else ""
            elif key == "stage":
                stages = {s["label"]: s["id"] for s in line["stages"]}
                properties |= {"pipeline": line["id"], "dealstage": stages[value]}
            elif key == "emails":
                properties["email"] = value[0]
            elif key in self.targets:
                kind = {"contacts": "contact"}.get(key, key)
                wanted = value if isinstance(value, list) else [value]
                links[key] = [self.id_of(kind, item) for item in wanted if item]
            else:
                own = self.names[name].get(key, key)
                properties[own] = self._written(name, own, value)
        return properties, links

    def _written(self, name: str, own: str, value: Any) -> str:
        spec = self.sandbox.schema[self.kinds[name]][own]
        by_label = {option["label"]: option["value"] for option in spec["options"]}
        items = value if isinstance(value, list) else [value]
        texts = [("true" if item else "false") if isinstance(item, bool) else
                 "" if item is None else by_label.get(item, str(item)) for item in items]  # fmt: skip
        return ";".join(texts)

    def _finish(self, name: str, record: Any, values: Values, links: Any) -> None:
        kind = self.kinds[name]
        if values.get("emails"):
            record["additional"] = list(values["emails"][1:])
        for key, ids in links.items():
            target = self.targets[key]
            for old in self.sandbox._linked(kind, record["id"], target):
                self.sandbox.links.pop((kind, record["id"], target, old))
                self.sandbox.links.pop((target, old, kind, record["id"]), None)
            for other in ids:
                self.sandbox._connect(kind, record["id"], target, other, 0)

    def delete(self, name: str, record_id: str) -> None:
        self.sandbox._erase(self.kinds[name], record_id)

    def merge(self, name: str, loser: str, winner: str) -> str:
        return str(self.sandbox.merge(self.kinds[name], winner, loser))

    def shown(self, name: str, record_id: str) -> tuple[str, ...]:
        p = self.sandbox.records[self.kinds[name]][record_id]["properties"]
        whole = " ".join(filter(None, (p.get("firstname"), p.get("lastname"))))
        keys = {"contact": ("email",), "company": ("name", "domain"), "deal": ("dealname",)}
        return tuple(filter(None, (*(p.get(key) for key in keys[name]), whole)))

    def raw(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (name, record["id"]): dict(record["properties"])
            for name, kind in self.kinds.items()
            for record in self.sandbox.records[kind].values()
        }

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [self._row(name, record)
                for record in self.sandbox.records[self.kinds[name]].values()]  # fmt: skip

    def _row(self, name: str, record: Any) -> dict[str, Any]:
        kind, shown = self.kinds[name], self.sandbox._show(record)["properties"]
        schema = self.sandbox.schema[kind]
        own = {key: _value(spec, shown.get(key)) for key, spec in schema.items()}
        stages = {s["id"]: s["label"] for p in self.sandbox.pipelines for s in p["stages"]}
        lines = {p["id"]: p["label"] for p in self.sandbox.pipelines}
        linked = {
            key: [self.link({"contacts": "contact"}.get(key, key), i)
                  for i in self.sandbox._linked(kind, record["id"], target)]
            for key, target in self.targets.items() if target != kind
        }  # fmt: skip
        row = {"id": record["id"], **own,
               **{word: own[key] for word, key in self.names[name].items()},
               "owner": self.sandbox._owner_email(record["properties"]),
               "contacts": linked.get("contacts"),
               "company": next(iter(linked.get("company") or ()), None),
               "deal": next(iter(linked.get("deal") or ()), None)}  # fmt: skip
        if name == "contact":
            row["name"] = " ".join(filter(None, (own["firstname"], own["lastname"])))
            row["emails"] = [e for e in (own["email"], *record.get("additional", ())) if e]
        if name == "deal":
            row |= {"stage": stages.get(own["dealstage"]), "pipeline": lines.get(own["pipeline"])}
        if name == "meeting":
            start, end = (datetime.fromisoformat(own[key])
                          for key in ("hs_meeting_start_time", "hs_meeting_end_time"))  # fmt: skip
            assert own["hs_timestamp"] == own["hs_meeting_start_time"]  # HubSpot shows it here
            row |= {"start": start.isoformat(), "minutes": (end - start) // timedelta(minutes=1),
                    "body": plain(own["hs_meeting_body"] or "")}  # fmt: skip
        return row


def _value(spec: Any, value: Any) -> Any:
    if not value:
        return None
    labels = {option["value"]: option["label"] for option in spec["options"]}
    if spec["fieldType"] == "checkbox":
        return [labels[item] for item in value.split(";")]
    if spec["type"] == "number":
        return float(value)
    if spec["type"] == "bool":
        return value == "true"
    return labels.get(value, value)
