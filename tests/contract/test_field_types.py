"""Every type of field that each CRM documents: written, read, changed by others, emptied.

A webhook goes in, and what stands in the CRM is looked at in its own shape. `check` refuses what no
mapping file can write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import time_machine

from app.crm.objects import ObjectName
from app.crm.schema import APPENDABLE, FieldKind
from app.mapping.check import check_against
from app.mapping.load import mapping_of
from app.services.rate_limits import SharedRateLimiter
from sandbox.hubspot.schema import new_property
from tests.contract.case_files import Webhook, case_for
from tests.contract.play import START, Play

NOBODY = "nobody writes it"


class Type(NamedTuple):
    """A type of field: two values as a booking has them, and how each stands in the CRM."""

    name: str
    type: Any
    first: Any = NOBODY
    first_there: Any = None
    second: Any = None
    second_there: Any = None
    emptied: Any = None
    """What stands there once the booking has no value; "stays" for what cannot be emptied."""
    own: Any = None
    """What a colleague chooses instead, in the CRM's own shape."""
    transforms: Any = ()


MONDAY, FRIDAY = "2027-01-11", "2027-01-15"
HUBSPOT = [
    Type("t_text", ("string", "text"), "a", "a", "b", "b", "", "own"),
    Type("t_area", ("string", "textarea"), "a\nb", "a\nb", "c", "c", "", "own"),
    Type("t_html", ("string", "html"), "a", "a", "b", "b", "", "own"),
    Type("t_file", ("string", "file"), "77", "77", "78", "78", "", "79"),
    Type("t_phone", ("phone_number", "phonenumber"), "+4930123", "+4930123", "+4930124", "+4930124", "", "1"),
    Type("t_number", ("number", "number"), 500, "500", "12.5", "12.5", "", "7.0"),
    Type("t_date", ("date", "date"), "11.01.2027", MONDAY, FRIDAY, FRIDAY, "", "2027-02-01"),
    Type("t_moment", ("datetime", "date"), "2027-01-11T10:00:00+01:00", "2027-01-11T09:00:00Z",
         "2027-01-15T09:00:00Z", "2027-01-15T09:00:00Z", "", "2027-02-01T09:00:00.000Z"),
    Type("t_flag", ("bool", "booleancheckbox", "true", "false"), "ja", "true", "nein", "false", "", "true"),
    Type("t_select", ("enumeration", "select", "Hot", "Cold", "Mild"), "hot", "Hot", "cold", "Cold", "", "Mild"),
    Type("t_radio", ("enumeration", "radio", "Hot", "Cold", "Mild"), "hot", "Hot", "cold", "Cold", "", "Mild"),
    Type("t_boxes", ("enumeration", "checkbox", "A", "B", "C"), ["b", "a"], "A;B", "c", "C", "", "B;C"),
    Type("t_owner", ("enumeration", "select", "OWNER"), "mary@acme.example", "@mary",
         "john@acme.example", "@john", "", "@mary"),
    Type("t_json", ("json", "text")),
    Type("t_place", ("object_coordinates", "text")),
    Type("t_formula", ("number", "calculation_equation")),
]  # fmt: skip
PIPEDRIVE = [
    Type("Text", "varchar", "a", "a", "b", "b", None, "own"),
    Type("Long", "text", "a\nb", "a\nb", "c", "c", None, "own"),
    Type("Auto", "varchar_auto", "a", "a", "b", "b", None, "own"),
    Type("Phone", "phone", "+4930123", "+4930123", "+4930124", "+4930124", None, "1"),
    Type("Number", "double", "500", 500, 12.5, 12.5, None, 7.0),
    Type("Money", "monetary", "500", {"value": 500, "currency": "EUR"}, "$12.50",
         {"value": 12.5, "currency": "USD"}, None, {"value": 7.0, "currency": "EUR"}),
    Type("Date", "date", "11.01.2027", MONDAY, FRIDAY, FRIDAY, None, "2027-02-01"),
    Type("Days", "daterange", f"{MONDAY}/{FRIDAY}", {"value": MONDAY, "until": FRIDAY},
         [FRIDAY, FRIDAY], {"value": FRIDAY, "until": FRIDAY}, None,
         {"value": "2027-02-01", "until": "2027-02-02"}),
    Type("Time", "time", "09:30", {"value": "09:30:00"}, "2027-01-11T18:05:00Z",
         {"value": "18:05:00"}, None, {"value": "07:00:00"}, "time"),
    Type("Hours", "timerange", "09:00/17:30", {"value": "09:00:00", "until": "17:30:00"},
         ["10:00", "11:00"], {"value": "10:00:00", "until": "11:00:00"}, None,
         {"value": "07:00:00", "until": "08:00:00"}),
    Type("Place", "address", "Main St 1, Bonn", {"value": "Main St 1, Bonn"}, "Bonn",
         {"value": "Bonn"}, None, {"value": "Berlin"}),
    Type("One", ("enum", "Hot", "Cold", "Mild"), "hot", 1, "COLD", 2, None, 3),
    Type("Some", ("set", "A", "B", "C"), ["b", "a"], [1, 2], "c", [3], None, [2, 3]),
    Type("Yes", ("enum", "Yes", "No"), True, 1, False, 2, None, 1),
    Type("User", "user", "mary@acme.example", "@mary", "john@acme.example", "@john", None, "@mary"),
    Type("Org", "org", "@company", "@company", "@other", "@other", None, "@company"),
    Type("People", "people", "@contact", "@contact", "@somebody", "@somebody", None, "@contact"),
    Type("label_ids", None, ["hot", "customer"], [21, 23], "cold", [22], [], [21]),
    Type("value", None, "500", 500, 12.5, 12.5, "stays", 7.0),
    Type("currency", None, "EUR", "EUR", "USD", "USD", "stays", "CHF"),
    Type("probability", None, "50", 50, 60, 60, None, 70),
    Type("lost_reason", None, "a", "a", "b", "b", None, "own"),
    Type("expected_close_date", None, MONDAY, MONDAY, FRIDAY, FRIDAY, "stays", "2027-02-01"),
    Type("visible_to", None, "everybody", 3, "owner", 1, "stays", 3),
]  # fmt: skip
SALESFORCE = [
    Type("Text__c", {"type": "Text"}, "a", "a", "b", "b", None, "own"),
    Type("Area__c", {"type": "TextArea"}, "a\nb", "a\nb", "c", "c", None, "own"),
    Type("Long__c", {"type": "LongTextArea"}, "a", "a", "b", "b", None, "own"),
    Type("Html__c", {"type": "Html"}, "a", "a", "b", "b", None, "own"),
    Type("Secret__c", {"type": "EncryptedText"}, "a", "a", "b", "b", None, "own"),
    Type("Phone__c", {"type": "Phone"}, "+4930123", "+4930123", "+4930124", "+4930124", None, "1"),
    Type("Email__c", {"type": "Email"}, "a@b.example", "a@b.example", "c@b.example", "c@b.example", None, "d@b.example"),
    Type("Url__c", {"type": "Url"}, "https://a.example", "https://a.example", "https://b.example", "https://b.example", None, "https://c.example"),
    Type("Number__c", {"type": "Number", "precision": 6, "scale": 2}, "500", 500.0, 12.5, 12.5, None, 7.0),
    Type("Money__c", {"type": "Currency"}, "500", 500.0, 12.5, 12.5, None, 7.0),
    Type("Percent__c", {"type": "Percent"}, "50", 50.0, 12.5, 12.5, None, 7.0),
    Type("Flag__c", {"type": "Checkbox"}, "ja", True, "yes", True, False, False),
    Type("Date__c", {"type": "Date"}, "11.01.2027", MONDAY, FRIDAY, FRIDAY, None, "2027-02-01"),
    Type("Moment__c", {"type": "DateTime"}, "2027-01-11T10:00:00+01:00", "2027-01-11T09:00:00.000+0000",
         "2027-01-15T09:00:00Z", "2027-01-15T09:00:00.000+0000", None, "2027-02-01T09:00:00.000+0000"),
    Type("Time__c", {"type": "Time"}, "09:30", "09:30:00.000Z", "2027-01-11T18:05:00Z",
         "18:05:00.000Z", None, "07:00:00.000Z", "time"),
    Type("Pick__c", {"type": "Picklist", "values": ["Hot", "Cold", "Mild"]}, "hot", "Hot", "COLD", "Cold", None, "Mild"),
    Type("Free__c", {"type": "Picklist", "values": ["Hot"], "restricted": False}, "New", "New", "b", "b", None, "Hot"),
    Type("Multi__c", {"type": "MultiselectPicklist", "values": ["A", "B", "C"]}, ["b", "a"], "A;B", "c", "C", None, "B;C"),
    Type("User__c", {"type": "Lookup", "references": "User"}, "mary@acme.example", "@mary", "john@acme.example", "@john", None, "@mary"),
    Type("Ref__c", {"type": "Lookup", "references": "Account"}, "@company", "@company", "@other", "@other", None, "@company"),
    Type("Auto__c", {"type": "AutoNumber"}),
    Type("Formula__c", {"type": "Formula"}),
    Type("Place__c", {"type": "Location"}),
    Type("Place__Latitude__s", {"type": "Number"}, "50.5", 50.5, 51, 51.0, None, 7.0),
]  # fmt: skip
TYPES = {"hubspot": HUBSPOT, "pipedrive": PIPEDRIVE, "salesforce": SALESFORCE}


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping allowances has tests of its own."""
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda self, allowance: self.ensure_lease())


def add(crm: str, sandbox: Any, spec: Type) -> None:
    """Let the account have a field of that type on deals."""
    if crm == "pipedrive" and spec.type:
        kind, *options = (spec.type,) if isinstance(spec.type, str) else spec.type
        code = f"{len(sandbox.custom['deals']):040x}"
        sandbox.add_custom("deals", code, spec.name, kind)
        if options:
            numbered = [{"id": n, "label": label} for n, label in enumerate(options, 1)]
            sandbox.custom["deals"][code]["options"] = numbered
    elif crm == "salesforce":
        sandbox.custom["Opportunity"][spec.name] = dict(spec.type)
    elif crm == "hubspot":
        kind, shown, *options = spec.type
        owner = options == ["OWNER"]
        more: dict[str, Any] = {"hubspotDefined": False, "fieldType": shown}
        more |= {"referencedObjectType": "OWNER", "externalOptions": True} if owner else {}
        more |= {"calculated": True, "read_only": True} if "calculation" in shown else {}
        made = new_property(spec.name, kind, () if owner else tuple(options), **more)
        sandbox.schema["deals"][spec.name] = made


class Account:
    """One account with fields of every type, and what stands in its one deal."""

    def __init__(self, crm: str, sandbox: Any) -> None:
        self.crm, self.sandbox = crm, sandbox
        self.ids: dict[str, Any] = {}
        with sandbox.lock:
            self._seed()

    def _seed(self) -> None:
        box = self.sandbox
        if self.crm == "pipedrive":
            for name, kind in (("company", "organizations"), ("other", "organizations"),
                               ("contact", "persons"), ("somebody", "persons")):  # fmt: skip
                number = box.new_id()
                box.records[kind][number] = {
                    "id": number,
                    "name": name,
                    "is_deleted": False,
                    "owner_id": 1,
                }
                self.ids[name] = number
            users = box._user_ids()
        elif self.crm == "salesforce":
            for name in ("company", "other"):
                self.ids[name] = box._store("Account", {"Name": name})["Id"]
            users = {row["Email"]: row["Id"] for row in box.tables["User"].values()}
        else:
            users = {user.email: user.id for user in box._owner_rows()}
        self.ids |= {"mary": users["mary@acme.example"], "john": users["john@acme.example"]}

    def real(self, value: Any) -> Any:
        """A value with the ids of this account in place of @names."""
        if isinstance(value, str) and value[:1] == "@":
            return self.ids[value[1:]]
        return value

    def there(self, name: str) -> Any:
        """What stands in a field of the deal."""
        with self.sandbox.lock:
            return self._holder(name)[0].get(self._holder(name)[1])

    def choose(self, name: str, value: Any) -> None:
        """Do what a colleague does who writes something else there."""
        with self.sandbox.lock:
            holder, key = self._holder(name)
            holder[key] = self.real(value)

    def _holder(self, name: str) -> tuple[dict[str, Any], str]:
        if self.crm == "hubspot":
            (deal,) = self.sandbox.records["deals"].values()
            return deal["properties"], name
        if self.crm == "salesforce":
            (deal,) = self.sandbox.tables["Opportunity"].values()
            return deal, name
        (deal,) = self.sandbox.records["deals"].values()
        keys = [k for k, f in self.sandbox.custom["deals"].items() if f["field_name"] == name]
        return (deal.setdefault("custom_fields", {}), keys[0]) if keys else (deal, name)


def play(crm: str, tmp_path: Path, clock: Any, fields: dict[str, Any], specs: list[Type]) -> Play:
    """A service whose mapping writes the fields, connected to an account that has them."""
    raw = {
        "title": "Types of fields", "wanted": "Every type of field is written as it has to be.",
        "mapping": {crm: {"deal": {"fields": fields}}},
        "steps": [{"webhook": "booking_created"}], "then": {"deals": 1},
    }  # fmt: skip
    made = Play({crm: case_for(raw, crm)}, tmp_path, clock)
    for spec in specs:
        add(crm, made.bridge.sandbox(crm), spec)
    return made


@pytest.mark.parametrize("write", ["always", "untouched"])
@pytest.mark.parametrize("crm", sorted(TYPES))
def test_every_type_is_written_changed_emptied_and_left_to_colleagues(
    crm: str, write: str, tmp_path: Path
) -> None:
    """Each value stands there in the CRM's own shape; with `untouched` a colleague's choice stays,
    and what this service wrote is known again in whatever form the CRM gives it back."""
    specs = [spec for spec in TYPES[crm] if spec.first != NOBODY]
    fields = {
        spec.name: {"from": f"payload.wishes.{_key(spec)}", "as": spec.transforms, "write": write}
        if spec.transforms else {"from": f"payload.wishes.{_key(spec)}", "write": write}
        for spec in specs
    }  # fmt: skip
    with time_machine.travel(START, tick=True) as clock:
        made = play(crm, tmp_path, clock, fields, TYPES[crm])
        try:
            account = Account(crm, made.bridge.sandbox(crm))
            made.bridge.connect_all()
            made.check_mappings()

            def send(values: dict[str, Any], event: str = "booking_created") -> None:
                clock.shift(60)
                wishes = {_key(s): _told(account.real(values.get(s.name)), s) for s in specs}
                made._send(Webhook(webhook=event, add={"wishes": wishes}))
                made.settle()
                states = {row.state for row in made.bridge.deliveries()}
                assert states == {"synced"}, [
                    (row.error_message, row.notes) for row in made.bridge.deliveries()
                ]

            send({spec.name: spec.first for spec in specs})
            _compare(account, {spec.name: spec.first_there for spec in specs})
            send({spec.name: spec.second for spec in specs}, "booking_rescheduled")
            _compare(account, {spec.name: spec.second_there for spec in specs})
            if write == "always":
                send({}, "booking_rescheduled")
                stay = {s.name: s.second_there for s in specs if s.emptied == "stays"}
                _compare(account, {spec.name: spec.emptied for spec in specs} | stay)
            else:
                for spec in specs:
                    account.choose(spec.name, spec.own)
                send({spec.name: spec.first for spec in specs}, "booking_rescheduled")
                _compare(account, {spec.name: account.real(spec.own) for spec in specs
                                   if spec.own != spec.second_there})  # fmt: skip
        finally:
            made.close()


def _key(spec: Type) -> str:
    return spec.name.lower()


def _told(value: Any, spec: Type) -> Any:
    return str(value) if value and spec.name in ("Org", "People") else value


def _compare(account: Account, wanted: dict[str, Any]) -> None:
    there = {name: account.there(name) for name in wanted}
    assert there == {name: account.real(value) for name, value in wanted.items()}


@pytest.mark.parametrize("crm", sorted(TYPES))
def test_check_says_what_no_file_can_write_and_where_nothing_can_be_added(
    crm: str, tmp_path: Path
) -> None:
    """`append` fits texts and lists alone; what the CRM works out itself takes no value at all."""
    with time_machine.travel(START, tick=True) as clock:
        made = play(crm, tmp_path, clock, {}, TYPES[crm])
        try:
            made.bridge.connect_all()
            account = made.bridge.drainer.warm(made.bridge.connection(crm).id)
        finally:
            made.close()
    lines = [f"    {s.name}: {{from: answers.X, write: append}}" for s in TYPES[crm]]
    text = "\n".join(["version: 1", f"crm: {crm}", "deal:", "  fields:", *lines, ""])
    complaints = check_against(mapping_of(text, crm), account.adapter.shape, account.directory)
    for spec in TYPES[crm]:
        said = [item.message for item in complaints if spec.name in item.location]
        field = account.directory.field(ObjectName.DEAL, spec.name)
        assert field is not None, spec.name
        if spec.first == NOBODY:
            assert not field.writable and any("read-only" in words for words in said), said
        else:
            assert field.kind is not FieldKind.OTHER
            refused = any("nothing can be added" in words for words in said)
            assert refused is (field.kind not in APPENDABLE), (spec.name, field.kind, said)
