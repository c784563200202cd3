"""HubSpot as a sandbox: date-based paths, batches with 207, unique properties, typed links."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import phonenumbers
from flask import Response, request

from sandbox.account import Refusal, User
from sandbox.answers import Record, make
from sandbox.core import Sandbox
from sandbox.hubspot_account import GROUPS, Portal
from sandbox.index import Index
from sandbox.limits import LONGEST_EMAIL, Window, java_length
from sandbox.oauth import Grant
from sandbox.view import Company, Contact, Deal, Meeting, View, plain

VERSION = "2026-09"
SINGULAR = {"contacts": "contact", "companies": "company", "deals": "deal", "meetings": "meeting"}
SCOPE_OF = {
    "contacts": "contacts",
    "companies": "companies",
    "deals": "deals",
    "meetings": "contacts",
}
LINKS = {
    ("contacts", "companies"): {279, 1}, ("companies", "contacts"): {280, 2},
    ("deals", "contacts"): {3}, ("contacts", "deals"): {4},
    ("deals", "companies"): {341, 5}, ("companies", "deals"): {342, 6},
    ("meetings", "contacts"): {200}, ("contacts", "meetings"): {199},
    ("meetings", "companies"): {188}, ("companies", "meetings"): {187},
    ("meetings", "deals"): {212}, ("deals", "meetings"): {211},
}  # fmt: skip
TEXT, NUMBER, DATE = "string", "number", "datetime"
SEARCHABLE = {"hs_searchable_calculated_phone_number": "phone",
              "hs_searchable_calculated_mobile_number": "mobilephone"}  # fmt: skip
"""What is worked out for the search -> of which property."""
MOST_IN = 100
"""Values of a list that IN takes."""


def _property(name: str, kind: str = TEXT, options: tuple[str, ...] = (), **more: Any) -> Record:
    return {
        "name": name, "label": name, "type": kind, "fieldType": "text", "groupName": "g",
        "description": "", "options": [
            {"value": o, "label": o, "hidden": False, "displayOrder": i}
            for i, o in enumerate(options)
        ],
        "hasUniqueValue": False,
        "hubspotDefined": True,
        "modificationMetadata": {"readOnlyValue": more.pop("read_only", False), "archivable": True,
                                 "readOnlyDefinition": False},
        **more,
    }  # fmt: skip


def _owned(name: str) -> Record:
    """What tells that a property holds a user of the portal."""
    if name != "hubspot_owner_id":
        return {}
    return {"referencedObjectType": "OWNER", "externalOptions": True}


def _schema() -> dict[str, dict[str, Record]]:
    outcome = ("SCHEDULED", "COMPLETED", "RESCHEDULED", "NO_SHOW", "CANCELED")
    entries = {
        "contacts": [
            _property("email"), _property("firstname"), _property("lastname"), _property("phone"),
            _property("mobilephone"), _property("hs_whatsapp_phone_number"),
            *(_property(name, read_only=True) for name in SEARCHABLE),
            _property("country"), _property("hs_country_region_code"),
            _property("hubspot_owner_id", "enumeration"),
            _property("jobtitle"), _property("date_of_birth"),
            _property("lifecyclestage", "enumeration", ("lead", "customer")),
            _property("hs_buying_role", "enumeration", ("CHAMPION", "END_USER", "BUDGET_HOLDER"),
                      fieldType="checkbox"),
            _property("hs_additional_emails", read_only=True),
            _property("num_associated_deals", NUMBER, read_only=True),
        ],
        "companies": [_property("name"), _property("domain"), _property("phone"),
                      _property("hs_additional_domains"),
                      _property("hubspot_owner_id", "enumeration")],
        "deals": [
            _property("dealname"), _property("amount", NUMBER), _property("closedate", DATE),
            _property("pipeline", "enumeration"), _property("dealstage", "enumeration"),
            _property("description"), _property("hubspot_owner_id", "enumeration"),
            _property("hs_is_closed", "bool", read_only=True),
        ],
        "meetings": [
            _property("hs_timestamp", DATE), _property("hs_meeting_title"),
            _property("hs_meeting_body"), _property("hs_meeting_start_time", DATE),
            _property("hs_meeting_end_time", DATE), _property("hs_meeting_location"),
            _property("hs_meeting_external_url"), _property("hs_activity_type"),
            _property("hs_meeting_outcome", "enumeration", outcome),
            _property("hubspot_owner_id", "enumeration"),
        ],
    }  # fmt: skip
    return {
        name: {
            item["name"]: {**item, **_owned(item["name"]), "groupName": GROUPS.get(name, "")}
            for item in items
        }
        for name, items in entries.items()
    }


DEMANDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "contacts": (("email", "firstname", "lastname"),),
    "companies": (("name", "domain"),),
    "deals": (("dealname",), ("dealstage",)),
    "meetings": (("hs_timestamp",),),
}
"""One of each is demanded of a new record, by the guides of the objects, as
https://developers.hubspot.com/docs/api-reference/2026-03/crm/objects/deals/guide. A meeting without
hs_timestamp takes the start of the meeting for it."""


def searchable(phone: str, country: str | None) -> str:
    """The digits that the search knows of a number: 'only the area code and local number'.

    A number without a country code keeps the zero before it, unless the portal's numbers are read as
    those of a country. https://developers.hubspot.com/docs/api-reference/search/guide
    """
    try:
        number = phonenumbers.parse(phone, country)
    except phonenumbers.NumberParseException:
        return re.sub(r"\D", "", re.split(r"(?:ext|x|#)", phone, flags=re.I)[0])
    return phonenumbers.national_significant_number(number)


class Refused(Exception):
    """An answer in the middle of a call."""

    def __init__(self, status: int, category: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.category, self.message, self.more = status, category, message, more

    def response(self) -> Response:
        body = {
            "status": "error", "message": self.message, "correlationId": "c0ffee",
            "category": self.category, **self.more,
        }  # fmt: skip
        return make(self.status, body)


class HubSpotSandbox(Sandbox):
    """One portal."""

    name, title, pkce = "hubspot", "HubSpot", True
    token_path = f"/oauth/{VERSION}/token"
    revoke_path = f"/oauth/{VERSION}/token/revoke"
    introspect_path = f"/oauth/{VERSION}/token/introspect"
    api_paths = ("/crm/", "/account-info/")
    account_id, account_name = "4711", "acme.example"

    def routes(self) -> None:
        self.schema = _schema()
        self.portal = Portal(self)
        """The switches that only HubSpot has."""
        self.records: dict[str, dict[str, Record]] = {name: {} for name in self.schema}
        self.links: dict[tuple[str, str, str, str], set[int]] = {}
        self.emails = Index(lambda r: [r["properties"].get("email", ""), *r.get("additional", ())])
        self.unique: dict[tuple[str, str], Index] = {}
        """(object, property with unique values) -> where each value is."""
        self.window = Window(110, 10.0)
        self.search_window = Window(5, 1.0)
        self.search_lag: set[str] = set()
        self.merged: dict[tuple[str, str], str] = {}
        """(kind, id that was merged away) -> the id that it has now."""
        self.required_when: dict[str, tuple[str, str, str]] = {}
        """object -> (property, value, property that is then required): an admin's rule."""
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
        self.app.register_error_handler(Refused, lambda error: error.response())
        objects = f"/crm/objects/{VERSION}/<kind>"
        add = self.app.add_url_rule
        add(f"{objects}/batch/<action>", "batch", self._batch, methods=["POST"])
        add(f"{objects}/search", "search", self._search, methods=["POST"])
        add(objects, "list", self._list)
        add(f"{objects}/<record_id>", "one", self._one, methods=["GET", "DELETE"])
        links = f"/crm/associations/{VERSION}/<source>/<target>/batch/<action>"
        add(links, "links", self._links, methods=["POST"])
        properties = f"/crm/properties/{VERSION}/<kind>"
        add(properties, "properties", self._properties, methods=["GET", "POST"])
        add(f"/crm/pipelines/{VERSION}/deals", "pipelines", self._pipelines)
        add(f"/crm/owners/{VERSION}", "owners", self._owners)
        add(f"/account-info/{VERSION}/details", "details", self._details)

    def token_answer(self, answer: Record) -> Record:
        return {**answer, "hub_id": int(self.account_id), "scopes": answer["scope"].split()}

    def introspection(self, grant: Grant, left: float) -> Record:
        return {
            "active": True, "hub_id": int(self.account_id), "hub_domain": self.account_name,
            "scopes": grant.scopes, "expires_in": int(left),
        }  # fmt: skip

    def dead_grant(self) -> Response:
        return make(
            400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token"}
        )

    def refuse_token(self) -> Response:
        return Refused(401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired").response()  # fmt: skip

    def _after(self, response: Response) -> Response:
        # Search has a limit of its own and no headers.
        if request.path.startswith("/crm") and not request.path.endswith("/search"):
            response.headers["X-HubSpot-RateLimit-Max"] = str(self.window.limit)
            response.headers["X-HubSpot-RateLimit-Remaining"] = str(self.window.left)
            response.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] = "10000"
        return super()._after(response)

    def take_user(self, user: User) -> None:
        user.id = str(900 + len(self.account.more_users))

    def guard(self, scopes: list[str]) -> Response | None:
        self.portal.makes_companies()
        searching = request.path.endswith("/search")
        window = self.search_window if searching else self.window
        if not window.take():
            body = {
                "status": "error", "message": "You have reached your limit.", "errorType":
                "RATE_LIMIT", "correlationId": "c0ffee",
                "policyName": "SECONDLY" if searching else "TEN_SECONDLY_ROLLING",
            }  # fmt: skip
            return make(429, body)
        needed = self._needed_scope()
        if needed and needed not in scopes:
            more = {
                "errors": [{"message": "missing", "context": {"requiredGranularScopes": [needed]}}]
            }
            message = "This app hasn't been granted all required scopes to make this call."
            return Refused(403, "MISSING_SCOPES", message, **more).response()
        return None

    def _needed_scope(self) -> str | None:
        parts = request.path.strip("/").split("/")
        if parts[1:2] == ["owners"]:
            return "crm.objects.owners.read"
        if parts[1:2] == ["properties"]:
            kind = SCOPE_OF.get(parts[3], parts[3])
            return f"crm.schemas.{kind}.{'read' if request.method == 'GET' else 'write'}"
        if parts[1:2] == ["objects"] and parts[3] in SCOPE_OF:
            read = request.method == "GET" or parts[-1] in ("read", "search")
            return f"crm.objects.{SCOPE_OF[parts[3]]}.{'read' if read else 'write'}"
        return None

    # Objects

    def _kind(self, kind: str) -> dict[str, Record]:
        if self.account.missing.get(kind) == 403:
            message = "This app hasn't been granted all required scopes to make this call."
            raise Refused(403, "MISSING_SCOPES", message)
        if kind in self.account.missing:
            raise Refused(404, "OBJECT_NOT_FOUND", f"Unable to infer object type from: {kind}")
        if kind not in self.records:
            raise Refused(400, "VALIDATION_ERROR", f"Unable to infer object type from: {kind}")
        return self.records[kind]

    def _batch(self, kind: str, action: str) -> Response:
        with self.lock:
            table = self._kind(kind)
            body = request.get_json(silent=True)
            inputs = body.get("inputs") if isinstance(body, dict) else None
            if not isinstance(inputs, list) or not inputs:
                raise Refused(
                    400, "VALIDATION_ERROR", "Invalid input JSON: inputs may not be empty"
                )
            if len(inputs) > 100:
                raise Refused(400, "VALIDATION_ERROR", "Batch inputs may not exceed 100")
            actions = {"create": self._create, "read": self._read, "update": self._update,
                       "upsert": self._upsert, "archive": self._archive}  # fmt: skip
            if action not in actions:
                raise Refused(404, "OBJECT_NOT_FOUND", "resource not found")
            return actions[action](kind, table, inputs, body)

    def _archive(self, kind: str, table: Any, inputs: list[Record], body: Record) -> Response:
        for item in inputs:
            self._erase(kind, str(item["id"]))
        return Response(status=204)

    def merge(self, kind: str, winner: str, loser: str) -> str:
        """Do what a person does who merges two records: the one that is left has a new id."""
        with self.lock:
            new = str(self.new_id())
            record = self.records[kind].pop(winner)
            self.records[kind].pop(loser)
            record["id"] = new
            self.records[kind][new] = record
            self._note(kind, record)
            for key in list(self.links):
                parts = list(key)
                for place in (0, 2):
                    if parts[place] == kind and parts[place + 1] in (winner, loser):
                        parts[place + 1] = new
                kinds = self.links.pop(key)
                self.links.setdefault(tuple(parts), set()).update(kinds)
            for old in (winner, loser):
                self.merged[kind, old] = new
            return new

    def _answer(self, results: list[Record], errors: list[Record], good: int) -> Response:
        times = {k: "2026-11-24T08:00:00Z" for k in ("requestedAt", "startedAt", "completedAt")}
        body = {"status": "COMPLETE", "results": results[::-1], **times}
        if errors:
            body |= {"errors": errors, "numErrors": len(errors)}
        return make(207 if errors else good, body)

    def _create(self, kind: str, table: Any, inputs: list[Record], body: Record) -> Response:
        traced = all(item.get("objectWriteTraceId") for item in inputs)
        if len({item.get("objectWriteTraceId") for item in inputs}) < len(inputs):
            traced = False
        results, errors, undo = [], [], []
        for item in inputs:
            try:
                record = self._insert(kind, item)
                undo.append(record["id"])
                results.append(self._show(record))
            except Refused as error:
                if not traced:
                    for record_id in undo:
                        self._erase(kind, record_id)
                    raise
                errors.append(self._error(error, item["objectWriteTraceId"]))
        return self._answer(results, errors, 201)

    def _error(self, error: Refused, trace: str) -> Record:
        context = {"objectWriteTraceId": [trace]}
        existing = re.search(r"Existing ID: (\d+)|\. ?(\d+) already has", error.message)
        if existing:
            context["existingId"] = [existing[1] or existing[2]]
        context.update({k: v for k, v in error.more.get("context", {}).items()})
        return {"status": "error", "category": error.category, "message": error.message,
                "context": context, "errors": error.more.get("errors", []), "links": {}}  # fmt: skip

    def _insert(self, kind: str, item: Record) -> Record:
        properties = self._checked(kind, item.get("properties") or {}, new=True)
        pairs = []
        for link in item.get("associations") or ():
            for kind_ in link["types"]:
                pairs.append(self._link_kind(kind, link["to"]["id"], kind_))
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        record = {"id": str(self.new_id()), "properties": properties, "created": now}
        self.records[kind][record["id"]] = record
        self._note(kind, record)
        for target, target_id, number in pairs:
            self._connect(kind, record["id"], target, target_id, number)
        if kind == "contacts":
            self.portal.contact_made(record["id"])
        return record

    def _link_kind(self, kind: str, target_id: str, spec: Record) -> tuple[str, str, int]:
        number = spec.get("associationTypeId")
        for (source, target), numbers in LINKS.items():
            if source == kind and number in numbers:
                if str(target_id) not in self.records[target]:
                    raise Refused(400, "VALIDATION_ERROR", f"{target} {target_id} does not exist")
                if self.portal.is_full(target, str(target_id), source):
                    # That there are such limits is documented, the words are a guess.
                    # https://developers.hubspot.com/docs/api-reference/crm-associations-v4/guide
                    raise Refused(400, "VALIDATION_ERROR",
                                  f"{target} {target_id} has reached its association limit")  # fmt: skip
                return target, str(target_id), number
        raise Refused(
            400, "VALIDATION_ERROR", f"associationTypeId {number} is not valid for {kind}"
        )

    def _connect(self, kind: str, a: str, target: str, b: str, number: int) -> None:
        self.links.setdefault((kind, a, target, b), set()).add(number)
        self.links.setdefault((target, b, kind, a), set())

    def _erase(self, kind: str, record_id: str) -> None:
        self.records[kind].pop(record_id, None)
        for key in [k for k in self.links if (kind, record_id) in (k[:2], k[2:])]:
            del self.links[key]

    def _checked(self, kind: str, given: Record, new: bool, own: str = "") -> Record:
        """Refuse unknown properties, wrong types, taken unique values, an admin's rule."""
        clean: Record = {}
        fields = self._fields_of(kind, "write")
        for name, value in given.items():
            spec = fields.get(name)
            if spec is None and name in self._fields_of(kind, "describe"):
                self._invalid(name, f'"{name}" is a read only property', "READ_ONLY_VALUE")
            if spec is None:
                self._invalid(name, f'Property "{name}" does not exist', "PROPERTY_DOESNT_EXIST")
            if spec["modificationMetadata"]["readOnlyValue"]:
                self._invalid(name, f'"{name}" is a read only property', "READ_ONLY_VALUE")
            if not isinstance(value, str):
                self._invalid(name, f"{value!r} was not a valid string.", "INVALID_STRING")
            self._check_type(spec, name, value)
            most = self.account.too_long(kind, name, value, 65_536)
            if most is not None:
                self._invalid(name, f"Property values must not be longer than {most}", "TOO_LONG")
            clean[name] = value
        if new:
            self._check_new(kind, clean)
        if kind == "contacts":
            self._check_contact(clean, new, own)
        for name, spec in self.schema[kind].items():
            if spec["hasUniqueValue"] and clean.get(name):
                for other in self._by_unique(kind, name, clean[name]):
                    if other["id"] != own:
                        raise Refused(
                            400, "VALIDATION_ERROR",
                            f"Cannot set PropertyValueCoordinates{{portalId=4711, propertyName={name}}}"
                            f" on {self.next_id + 1}. {other['id']} already has that value.",
                        )  # fmt: skip
        self._check_account(kind, clean, new, own)
        rule = self.required_when.get(kind)
        if rule and clean.get(rule[0]) == rule[1] and not clean.get(rule[2]):
            self._invalid(rule[2], f"{rule[2]} is required", "REQUIRED_PROPERTY")
        return clean

    def _check_new(self, kind: str, clean: Record) -> None:
        """Refuse what lacks a property that the object's guide demands of every new record."""
        if kind == "meetings" and clean.get("hs_meeting_start_time"):
            clean.setdefault("hs_timestamp", clean["hs_meeting_start_time"])
        for names in DEMANDED.get(kind, ()):
            if not any(clean.get(name) for name in names):
                words = f"{' or '.join(names)} is required for {kind}"
                self._invalid(names[0], words, "REQUIRED_PROPERTY")

    def _fields_of(self, kind: str, use: str) -> dict[str, Record]:
        """The properties of an object for one use of `account.USES`."""
        added = {
            name: _property(name, "enumeration", type_) if isinstance(type_, tuple)
            else _property(name, type_)
            for name, type_ in self.account.extra.get(kind, {}).items()
        }  # fmt: skip
        there = {**self.schema[kind], **added}
        return {n: spec for n, spec in there.items() if self.account.shows(kind, n, use)}

    def _check_account(self, kind: str, clean: Record, new: bool, own: str) -> None:
        """Refuse what this account does not let pass."""
        before = self.records[kind].get(own, {}).get("properties", {})
        locked = self.account.locked_field(own, clean)
        if locked:
            self._invalid(locked[0], locked[2], locked[1] or "READ_ONLY_VALUE")
        given = clean.get("hubspot_owner_id")
        owners = {user.id: user for user in self._owner_rows()}
        owner = owners.get(given or "") if given != before.get("hubspot_owner_id") else None
        struck = self.account.struck(kind, new, clean, {**before, **clean}, owner)
        if struck:
            self._refuse(struck)
        if owner and not owner.active:
            why = f"{given} was not a valid owner id"
            self._invalid("hubspot_owner_id", why, "INVALID_OWNER_ID")

    def _refuse(self, struck: Refusal) -> None:
        if struck.fields:
            code = struck.code or "PROPERTY_VALIDATION"
            self._invalid(struck.fields[0], struck.message, code, struck.more)
        category = struck.code or "VALIDATION_ERROR"
        status = 409 if category == "CONFLICT" else 400
        raise Refused(status, category, struck.message, **struck.more)

    def _check_type(self, spec: Record, name: str, value: str) -> None:
        if not value:
            return
        values = [option["value"] for option in spec["options"]]
        several = spec["fieldType"] == "checkbox"
        if spec["type"] in ("json", "object_coordinates"):
            self._invalid(name, f"{name} is HubSpot's own", "READ_ONLY_VALUE")
        given = value.split(";") if several else [value]
        if spec["type"] == "enumeration" and values and not set(given) <= set(values):
            self._invalid(
                name, f"{value} was not one of the allowed options: {values}", "INVALID_OPTION"
            )
        if spec["type"] == NUMBER and not re.fullmatch(r"-?\d+(\.\d+)?", value):
            self._invalid(name, f"{value} was not a valid number.", "INVALID_NUMBER")
        if spec["type"] == "bool" and value not in ("true", "false"):
            self._invalid(name, f"{value} was not a valid boolean.", "INVALID_BOOLEAN")
        if spec["type"] == "date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            self._invalid(name, f"{value} was not a valid date.", "INVALID_DATE")
        if spec["type"] == DATE and not value.isdigit():
            try:
                datetime.fromisoformat(value)
            except ValueError:
                self._invalid(name, f"{value} was not a valid long.", "INVALID_LONG")
        stages = [s["id"] for p in self.pipelines for s in p["stages"]]
        if name == "dealstage" and value not in stages:
            self._invalid(
                name, f"{value} was not one of the allowed options: {stages}", "INVALID_OPTION"
            )
        owned = spec.get("referencedObjectType") == "OWNER"
        if owned and value not in {u.id for u in self._owner_rows()}:
            self._invalid(name, f"{value} was not a valid owner id", "INVALID_OWNER_ID")

    def _check_contact(self, clean: Record, new: bool, own: str) -> None:
        if clean.get("lastname") in self.forbidden_names:
            self._invalid("lastname", "A rule of this account forbids it", "PROPERTY_VALIDATION")
        if clean.get("email"):
            clean["email"] = clean["email"].lower()
            if java_length(clean["email"]) > LONGEST_EMAIL:
                self._invalid("email", "Email address is too long", "INVALID_EMAIL")
            if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", clean["email"]):
                self._invalid(
                    "email", f"Email address {clean['email']} is invalid", "INVALID_EMAIL"
                )
            other = self._by_email(clean["email"])
            if other and other["id"] != own:
                raise Refused(
                    409, "CONFLICT", f"Contact already exists. Existing ID: {other['id']}"
                )

    def _invalid(self, name: str, why: str, code: str, more: Record | None = None) -> None:
        detail = json.dumps([{"isValid": False, "message": why, "error": code, "name": name}])
        raise Refused(
            400, "VALIDATION_ERROR", f"Property values were not valid: {detail}",
            errors=[{"message": why, "code": code, "context": {"propertyName": [name]}}],
            **(more or {}),
        )  # fmt: skip

    def _by_email(self, email: str) -> Record | None:
        return next(iter(self.emails.find(self.records["contacts"], email)), None)

    def _note(self, kind: str, record: Record) -> None:
        """Let a record be found by its unique values."""
        if kind == "contacts":
            self.emails.note(record["id"], record)
        for (name, _), index in self.unique.items():
            if name == kind:
                index.note(record["id"], record)

    def _by_unique(self, kind: str, name: str, value: str) -> list[Record]:
        index = self.unique.get((kind, name))
        if index is None:
            index = Index(lambda r: [r["properties"].get(name, "")])
            for record in self.records[kind].values():
                index.note(record["id"], record)
            self.unique[kind, name] = index
        return index.find(self.records[kind], value)

    def _read(self, kind: str, table: Any, inputs: list[Record], body: Record) -> Response:
        key = body.get("idProperty")
        if key and key != "email" and not self.schema[kind].get(key, {}).get("hasUniqueValue"):
            raise Refused(400, "VALIDATION_ERROR", f"{key} is not a unique property")
        results, missing = [], []
        for item in inputs:
            wanted = str(item["id"])
            found = self._find(kind, key, wanted)
            if found:
                results.append(self._show(found, body.get("properties")))
            else:
                missing.append(wanted)
        return self._answer(results, self._missing(kind, missing), 200)

    def _find(self, kind: str, key: str | None, wanted: str) -> Record | None:
        if not key:
            return self.records[kind].get(wanted)
        if key == "email":
            return self._by_email(wanted)
        return next(iter(self._by_unique(kind, key, wanted)), None)

    def _missing(self, kind: str, ids: list[str]) -> list[Record]:
        if not ids:
            return []
        return [{"status": "error", "category": "OBJECT_NOT_FOUND", "links": {}, "errors": [],
                 "message": f"Could not get some {kind} objects, they may be deleted or not exist.",
                 "context": {"ids": ids}}]  # fmt: skip

    def _update(self, kind: str, table: Any, inputs: list[Record], body: Record) -> Response:
        ids = [str(item["id"]) for item in inputs]
        if len(set(ids)) < len(ids):
            raise Refused(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input")
        known = [item for item in inputs if str(item["id"]) in table]
        checked = [
            (
                table[str(i["id"])],
                self._checked(kind, i.get("properties") or {}, False, str(i["id"])),
            )
            for i in known
        ]
        for record, properties in checked:
            record["properties"].update(properties)
            self._note(kind, record)
        missing = [item for item in ids if item not in table]
        return self._answer([self._show(r) for r, _ in checked], self._missing(kind, missing), 200)

    def _upsert(self, kind: str, table: Any, inputs: list[Record], body: Record) -> Response:
        keys = {item.get("idProperty") for item in inputs}
        if kind == "contacts" and keys != {"email"}:
            raise Refused(400, "VALIDATION_ERROR", f"idProperty {keys} is not usable here")
        ids = [item["id"].lower() for item in inputs]
        if len(set(ids)) < len(ids):
            raise Refused(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input")
        results = []
        for item in inputs:
            given = {**(item.get("properties") or {}), "email": item["id"]}
            record = self._by_email(item["id"].lower())
            if record:
                record["properties"].update(self._checked(kind, given, False, record["id"]))
                self._note(kind, record)
            new = record is None
            record = record or self._insert(kind, {"properties": given})
            results.append({**self._show(record), "new": new})
        return self._answer(results, [], 200)

    def _show(self, record: Record, names: list[str] | None = None) -> Record:
        properties = dict(record["properties"])
        closed = {s["id"] for p in self.pipelines for s in p["stages"] if s.get("closed")}
        if "dealstage" in properties:
            properties["hs_is_closed"] = str(properties["dealstage"] in closed).lower()
        if record.get("additional"):
            properties["hs_additional_emails"] = ";".join(record["additional"])
        for name, source in SEARCHABLE.items():
            if properties.get(source):
                properties[name] = searchable(properties[source], self.portal.phone_country)
        if names:
            properties = {name: properties.get(name) for name in names}
        times = {"createdAt": record["created"], "updatedAt": "2026-11-24T08:00:00Z"}
        return {"id": record["id"], "properties": dict(properties), "archived": False, **times}

    def _list(self, kind: str) -> Response:
        with self.lock:
            limit = request.args.get("limit", 10, type=int)
            rows = [self._show(record) for record in list(self._kind(kind).values())[:limit]]
            return make(200, {"results": rows})

    def _one(self, kind: str, record_id: str) -> Response:
        with self.lock:
            table = self._kind(kind)
            record_id = self.merged.get((kind, record_id), record_id)
            if record_id not in table:
                raise Refused(404, "OBJECT_NOT_FOUND", f"Object not found. objectId={record_id}")
            if request.method == "DELETE":
                self._erase(kind, record_id)
                return Response(status=204)
            names = request.args.getlist("properties")
            wanted = [name for part in names for name in part.split(",")]
            return make(200, self._show(table[record_id], wanted or None))

    def _search(self, kind: str) -> Response:
        with self.lock:
            table = self._kind(kind)
            body = request.get_json(silent=True) or {}
            groups = body.get("filterGroups") or []
            if len(groups) > 5 or any(len(g.get("filters", ())) > 6 for g in groups):
                raise Refused(400, "VALIDATION_ERROR", "too many filter groups")
            found = [
                self._show(record, body.get("properties"))
                for record in table.values()
                if record["id"] not in self.search_lag
                and any(all(self._fits(kind, record, f) for f in g["filters"]) for g in groups)
            ]
            start, limit = int(body.get("after") or 0), body.get("limit", 10)
            if limit > 200:
                raise Refused(400, "VALIDATION_ERROR", "limit must not be larger than 200")
            answer: Record = {"total": len(found), "results": found[start : start + limit]}
            if start + limit < len(found):
                answer["paging"] = {"next": {"after": str(start + limit)}}
            return make(200, answer)

    def _fits(self, kind: str, record: Record, rule: Record) -> bool:
        name, operator = rule["propertyName"], rule["operator"]
        if name not in self._fields_of(kind, "query"):
            raise Refused(400, "VALIDATION_ERROR", f"There was a problem with {name}")
        value = self._show(record)["properties"].get(name) or ""
        if operator == "EQ":
            return value.lower() == str(rule["value"]).lower()
        if operator == "IN":
            if len(rule["values"]) > MOST_IN:
                told = f"count: {len(rule['values'])}, max allowed: {MOST_IN}"
                raise Refused(400, "VALIDATION_ERROR", f"too many IN list values ({told})")
            return value.lower() in rule["values"]
        if operator == "CONTAINS_TOKEN":
            return rule["value"].lower() in re.split(r"[;\s]", value.lower())
        raise Refused(400, "VALIDATION_ERROR", f"operator {operator} is not known here")

    # Links, schema, people

    def _links(self, source: str, target: str, action: str) -> Response:
        with self.lock:
            if (source, target) not in LINKS:
                raise Refused(400, "VALIDATION_ERROR", f"no link from {source} to {target}")
            inputs = (request.get_json(silent=True) or {}).get("inputs") or []
            if action == "read":
                return self._read_links(source, target, inputs)
            results = []
            for item in inputs:
                a = str(item["from"]["id"])
                if a not in self.records[source]:
                    raise Refused(404, "OBJECT_NOT_FOUND", f"{source} {a} does not exist")
                if action == "archive":
                    for other in item["to"]:
                        self.links.pop((source, a, target, str(other["id"])), None)
                        self.links.pop((target, str(other["id"]), source, a), None)
                    continue
                b = str(item["to"]["id"])
                for spec in item["types"]:
                    checked = self._link_kind(source, b, spec)
                    self._connect(source, a, target, b, checked[2])
                results.append({"fromObjectTypeId": source, "fromObjectId": int(a), "toObjectTypeId":
                                target, "toObjectId": int(b), "labels": []})  # fmt: skip
            if action == "archive":
                return Response(status=204)
            return self._answer(results, [], 201)

    def _read_links(self, source: str, target: str, inputs: list[Record]) -> Response:
        results, errors = [], []
        for item in inputs:
            a = str(item["id"])
            to = [
                {"toObjectId": int(key[3]), "associationTypes": []}
                for key in self.links
                if key[:3] == (source, a, target)
            ]
            if to:
                results.append({"from": {"id": a}, "to": to})
            else:
                errors.append({"status": "error", "category": "OBJECT_NOT_FOUND", "subCategory":
                               "crm.associations.NO_ASSOCIATIONS_FOUND", "links": {}, "errors": [],
                               "message": f"No {target} is associated with {source} {a}.",
                               "context": {"fromObjectId": [a]}})  # fmt: skip
        return self._answer(results, errors, 200)

    def _properties(self, kind: str) -> Response:
        with self.lock:
            self._kind(kind)
            if request.method == "GET":
                writable = self._fields_of(kind, "write")
                specs = self._fields_of(kind, "describe").items()
                return make(200, {"results": [self._described(kind, spec, name in writable)
                                              for name, spec in specs]})  # fmt: skip
            body = request.get_json(silent=True) or {}
            if body["groupName"] not in self.portal.groups(kind):
                why = f"Property group {body['groupName']} does not exist"
                raise Refused(400, "VALIDATION_ERROR", why)
            if body["name"] in self.schema[kind]:
                raise Refused(409, "CONFLICT", f"{body['name']} already exists")
            if body.get("hasUniqueValue") and kind == "meetings":
                # Documented for contacts, companies, deals, tickets and custom objects only.
                raise Refused(
                    400, "VALIDATION_ERROR", "hasUniqueValue is not supported for MEETING"
                )
            unique = bool(body.get("hasUniqueValue"))
            options = tuple(option["value"] for option in body.get("options") or ())
            if body["type"] == "enumeration" and not options:
                raise Refused(400, "VALIDATION_ERROR", "An enumeration needs options")
            spec = _property(
                body["name"], body["type"], options, hasUniqueValue=unique, hubspotDefined=False,
                label=body["label"], fieldType=body["fieldType"], groupName=body["groupName"],
            )  # fmt: skip
            self.schema[kind][body["name"]] = spec
            return make(201, spec)

    def _described(self, kind: str, spec: Record, writable: bool) -> Record:
        group = spec["groupName"] or next(iter(self.portal.groups(kind)))
        told = spec["modificationMetadata"]
        told = {**told, "readOnlyValue": told["readOnlyValue"] or not writable}
        return {**spec, "groupName": group, "modificationMetadata": told}

    def _pipelines(self) -> Response:
        self._kind("deals")
        times = {"archived": False, "createdAt": "2026-01-01T00:00:00Z",
                 "updatedAt": "2026-01-01T00:00:00Z"}  # fmt: skip
        results = [
            {
                **p,
                **times,
                "stages": [
                    {**s, **times, "metadata": {"isClosed": s.get("closed", "false")}}
                    for s in p["stages"]
                ],
            }
            for p in self.pipelines
        ]
        return make(200, {"results": results})

    def _owner_ids(self) -> dict[str, str]:
        return {email: str(number) for number, email in enumerate(self.users, 51)}

    def _owner_rows(self) -> list[User]:
        """Everybody who is or was an owner."""
        usual = [User(email, self.users[email], email not in self.account.left, "", number)
                 for email, number in self._owner_ids().items()]  # fmt: skip
        return [*usual, *self.account.more_users]

    def _owners(self) -> Response:
        times = {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
        archived = request.args.get("archived") == "true"
        results = [
            {"id": user.id, "email": user.email, "type": "PERSON", "archived": archived, **times}
            for user in self._owner_rows()
            if user.active is not archived
        ]
        return make(200, {"results": results})

    def _details(self) -> Response:
        return make(
            200,
            {
                "portalId": int(self.account_id),
                "accountType": "SANDBOX",
                "uiDomain": "app.hubspot.com",
                "timeZone": self.portal.time_zone,
            },
        )

    # For tests and the page

    def drop_booking_fields(self) -> None:
        for kind in self.schema:
            self.schema[kind].pop("meetergo_booking_id", None)

    def delete_meetings(self) -> None:
        for record_id in list(self.records["meetings"]):
            self._erase("meetings", record_id)

    def _linked(self, kind: str, record_id: str, target: str) -> list[str]:
        return [key[3] for key in self.links if key[:3] == (kind, record_id, target)]

    def _owner_email(self, properties: Record) -> str | None:
        by_id = {user.id: user.email for user in self._owner_rows()}
        return by_id.get(properties.get("hubspot_owner_id", ""))

    def view(self) -> View:
        labels = {s["id"]: s["label"] for p in self.pipelines for s in p["stages"]}
        contacts = [
            Contact(
                r["id"], p.get("email"), p.get("phone"), p.get("firstname") or None,
                p.get("lastname") or None,
                next(iter(self._linked("contacts", r["id"], "companies")), None),
                self._owner_email(p),
            )
            for r in self.records["contacts"].values() for p in (r["properties"],)
        ]  # fmt: skip
        companies = [
            Company(r["id"], r["properties"].get("name"), r["properties"].get("domain"))
            for r in self.records["companies"].values()
        ]
        deals = [
            Deal(
                r["id"], p.get("dealname"), labels.get(p.get("dealstage", "")),
                self._linked("deals", r["id"], "contacts"),
                next(iter(self._linked("deals", r["id"], "companies")), None),
                p.get("meetergo_booking_id"), self._owner_email(p),
            )
            for r in self.records["deals"].values() for p in (r["properties"],)
        ]  # fmt: skip
        return View(contacts, companies, deals, [self._meeting(r) for r in
                                                 self.records["meetings"].values()])  # fmt: skip

    def _meeting(self, record: Record) -> Meeting:
        p = record["properties"]
        start = datetime.fromisoformat(p["hs_meeting_start_time"])
        end = datetime.fromisoformat(p["hs_meeting_end_time"])
        assert p["hs_timestamp"] == p["hs_meeting_start_time"]  # noqa: S101 - where it is shown
        return Meeting(
            record["id"], p.get("hs_meeting_title"), start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            int((end - start).total_seconds() // 60), p.get("hs_meeting_outcome") == "CANCELED",
            p.get("hs_meeting_external_url") or None, plain(p.get("hs_meeting_body", "")),
            self._linked("meetings", record["id"], "contacts"),
            next(iter(self._linked("meetings", record["id"], "deals")), None),
            self._owner_email(p),
        )  # fmt: skip
