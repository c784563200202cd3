"""Pipedrive as a sandbox: strict v2 bodies, hash-keyed custom fields, a search that lags, tokens."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Response, request

from sandbox.account import Refusal, User
from sandbox.answers import Record, make
from sandbox.core import Sandbox
from sandbox.limits import LONGEST_EMAIL, Window
from sandbox.view import Company, Contact, Deal, Meeting, View, plain

STRING, WHOLE, FLAG, ENTRIES, OBJECT = str, int, bool, list, dict
BODIES: dict[str, dict[str, type]] = {
    "persons": {"name": STRING, "first_name": STRING, "last_name": STRING, "owner_id": WHOLE,
                "org_id": WHOLE, "emails": ENTRIES, "phones": ENTRIES, "visible_to": WHOLE,
                "label_ids": ENTRIES, "custom_fields": OBJECT},
    "organizations": {"name": STRING, "owner_id": WHOLE, "visible_to": WHOLE, "label_ids": ENTRIES,
                      "address": OBJECT, "custom_fields": OBJECT},
    "deals": {"title": STRING, "owner_id": WHOLE, "person_id": WHOLE, "org_id": WHOLE,
              "pipeline_id": WHOLE, "stage_id": WHOLE, "value": float, "currency": STRING,
              "status": STRING, "expected_close_date": STRING, "probability": WHOLE,
              "lost_reason": STRING, "label_ids": ENTRIES, "visible_to": WHOLE,
              "custom_fields": OBJECT},
    "activities": {"subject": STRING, "type": STRING, "owner_id": WHOLE, "deal_id": WHOLE,
                   "lead_id": STRING, "org_id": WHOLE, "due_date": STRING, "due_time": STRING, "duration": STRING,
                   "done": FLAG, "busy": FLAG, "priority": WHOLE, "note": STRING, "public_description": STRING,
                   "location": OBJECT, "participants": ENTRIES, "attendees": ENTRIES},
}  # fmt: skip
"""What v2 takes in a body; everything else is refused."""
LEAD_BODY: dict[str, type] = {
    "title": STRING, "owner_id": WHOLE, "label_ids": ENTRIES, "person_id": WHOLE,
    "organization_id": WHOLE, "value": OBJECT, "expected_close_date": STRING, "visible_to": STRING,
    "was_seen": FLAG, "origin_id": STRING, "channel": WHOLE, "channel_id": STRING,
}  # fmt: skip
"""What v1 takes of a new lead, beside the custom fields of deals, which stand at the top level.
https://developers.pipedrive.com/docs/api/v1/Leads#addLead"""
LEAD_CHANGES = {**{k: v for k, v in LEAD_BODY.items() if k != "origin_id"}, "is_archived": FLAG}
LEAD_NULLS = {"person_id", "organization_id", "value", "expected_close_date", "channel_id"}
LEAD_QUERIES = {"limit", "start", "owner_id", "person_id", "organization_id", "filter_id", "sort",
                "updated_since"}  # fmt: skip
REQUIRED = {"persons": "name", "organizations": "name", "deals": "title", "activities": "subject"}
TYPES = {STRING: "varchar", WHOLE: "int", FLAG: "boolean", ENTRIES: "set", OBJECT: "address",
         float: "double"}  # fmt: skip
FIELD_TYPES = {
    "owner_id": "user", "person_id": "people", "org_id": "org", "deal_id": "deal",
    "lead_id": "lead", "stage_id": "stage", "pipeline_id": "double", "emails": "varchar", "phones": "phone",
    "expected_close_date": "date", "due_date": "date", "due_time": "time", "duration": "time",
    "note": "text", "location": "address", "value": "monetary", "label_ids": "set",
    "priority": "enum", "visible_to": "visible_to", "status": "status", "participants": "json",
    "attendees": "json",
}  # fmt: skip
NATIVE_OPTIONS = {
    "priority": ((261, "Low"), (262, "Medium"), (263, "High")),
    "visible_to": ((1, "Owner"), (3, "Everybody")),
    "status": (("open", "Open"), ("won", "Won"), ("lost", "Lost")),
    "label_ids": ((21, "Hot"), (22, "Cold"), (23, "Customer")),
}
PARTS = {
    # https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide
    "monetary": {"value": r"-?\d+(\.\d+)?", "currency": r"[A-Z]{3}"},
    "address": {"value": r".+"}, "time": {"value": r"\d\d:\d\d:\d\d"},
    "daterange": {"value": r"\d{4}-\d\d-\d\d", "until": r"\d{4}-\d\d-\d\d"},
    "timerange": {"value": r"\d\d:\d\d:\d\d", "until": r"\d\d:\d\d:\d\d"},
}  # fmt: skip
"""Structured custom fields -> their parts; what is no such object is refused."""
REFERENCES = {"org": "organizations", "people": "persons"}
QUERIES = {
    "status",
    "ids",
    "limit",
    "cursor",
    "term",
    "fields",
    "exact_match",
    "person_id",
    "deal_id",
    "lead_id",
    "org_id",
    "organization_id",
    "include_fields",
}
FIELDS = {"personFields": "persons", "organizationFields": "organizations", "dealFields": "deals",
          "activityFields": "activities"}  # fmt: skip
COSTS = {"GET": 1, "POST": 5, "PATCH": 5, "DELETE": 3}
FIELD_SCOPES = {
    "personFields": {"contacts:read", "contacts:full", "admin"},
    "organizationFields": {"contacts:read", "contacts:full", "admin"},
    "dealFields": {"deals:read", "deals:full", "admin"},
}
"""Any of these reads the fields of an object, by the published specification of v2."""
NULLABLE = {"person_id", "org_id", "deal_id", "location", "note", "probability", "lost_reason"}
PATTERNS = {"due_date": r"\d{4}-\d\d-\d\d", "due_time": r"\d\d:\d\d(:\d\d)?", "duration": r"\d\d:\d\d(:\d\d)?"}  # fmt: skip
MADE = {"varchar", "text", "double", "phone", "date", "daterange", "time", "timerange", "set", "enum",
        "varchar_auto", "address", "monetary", "org", "people", "user"}  # fmt: skip
"""Types that a custom field may be made of: there is none for yes and no."""
DAILY_BUDGET = 30_000 * 2 * 5


class Refused(Exception):
    """An answer in the middle of a call."""

    def __init__(self, status: int, error: str, code: str = "", more: Record | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.code, self.more = status, error, code, more or {}

    def response(self) -> Response:
        body: Record = {
            "success": False,
            "error": self.error,
            "error_info": "See the documentation.",
            **self.more,
        }
        return make(self.status, {**body, "code": self.code} if self.code else body)


class PipedriveSandbox(Sandbox):
    """One company account."""

    name, title = "pipedrive", "Pipedrive"
    client_auth = "basic"
    api_paths = ("/api/v2/", "/v1/")
    key_header, key_prefix = "x-api-token", ""
    account_id = "77"
    scope_separator = ","
    lifetime = 3600.0
    fixed_scopes = ("base", "deals:full", "contacts:full", "activities:full", "users:read",
                    "search:read", "deal-fields:full", "leads:full")  # fmt: skip

    def routes(self) -> None:
        self.records: dict[str, dict[int, Record]] = {name: {} for name in BODIES}
        self.leads: dict[str, Record] = {}
        """The Leads inbox; what was deleted or converted stands there marked, as nobody sees it."""
        self.participants: dict[int, dict[int, int]] = {}
        """deal id -> participant row id -> person id."""
        self.custom: dict[str, dict[str, Record]] = {name: {} for name in BODIES}
        self.activity_types = {"call", "meeting", "task", "email", "lunch"}
        self.activity_fields_need_admin = False
        """Whether activityFields wants the scope `admin`, as v2's specification has it.

        https://developers.pipedrive.com/docs/api/v1/ActivityFields (v1 names activities:read)
        """
        self.company_country = "EE"
        """Where the company is, as its owner has said; the documentation's example."""
        self.nullable = set(NULLABLE)
        """Keys that take null; by the published model of v2 location and note of activities do not."""
        self.names_sources = True
        """Whether deals tell which lead they were converted from, where that is asked for."""
        self.gone_v1: dict[str, int] = {}
        """End of a path of v1 -> 404 or 410: what has been taken away."""
        self.search_lag: set[int | str] = set()
        """Ids that the index does not show yet."""
        self.burst = Window(80, 2.0)
        self.search_burst = Window(10, 2.0)
        self.spent = 0
        self.daily_budget = DAILY_BUDGET
        self.pipelines = [
            {"id": 1, "name": "Pipeline", "order_nr": 0},
            {"id": 2, "name": "Renewals", "order_nr": 1},
        ]
        self.stages = [
            {"id": 1, "name": "Qualified", "pipeline_id": 1, "order_nr": 1},
            {"id": 2, "name": "Contact made", "pipeline_id": 1, "order_nr": 2},
            {"id": 3, "name": "Lost for now", "pipeline_id": 1, "order_nr": 3},
            {"id": 4, "name": "Renewal due", "pipeline_id": 2, "order_nr": 1},
            {"id": 5, "name": "In talks", "pipeline_id": 2, "order_nr": 2},
        ]
        self.app.register_error_handler(Refused, lambda error: error.response())
        add = self.app.add_url_rule
        kinds = "any(persons,organizations,deals,activities)"
        add(f"/api/v2/<{kinds}:kind>", "many", self._many, methods=["GET", "POST"])
        add(f"/api/v2/<{kinds}:kind>/search", "search", self._search)
        add(
            f"/api/v2/<{kinds}:kind>/<int:number>",
            "one",
            self._one,
            methods=["GET", "PATCH", "DELETE"],
        )
        add(
            f"/api/v2/<any({','.join(FIELDS)}):kind>",
            "fields",
            self._fields,
            methods=["GET", "POST"],
        )
        add("/api/v2/pipelines", "pipelines", self._pipelines)
        add("/api/v2/stages", "stages", lambda: self._list(self.stages))
        add("/api/v2/leads/search", "search_leads", self._search_leads)
        add("/v1/leads", "leads", self._leads, methods=["GET", "POST"])
        add("/v1/leads/<lead_id>", "lead", self._lead, methods=["GET", "PATCH", "DELETE"])
        add("/v1/users", "users", self._users)
        add("/v1/users/me", "me", self._me)
        row = "/v1/deals/<int:deal_id>/participants"
        add(row, "participants", self._participants, methods=["GET", "POST"])
        add(f"{row}/<int:row_id>", "participant", self._drop_participant, methods=["DELETE"])

    def token_answer(self, answer: Record) -> Record:
        return {**answer, "api_domain": "https://acme.pipedrive.com"}

    def take_user(self, user: User) -> None:
        user.id = 900 + len(self.account.more_users)

    def add_custom(self, kind: str, code: str, name: str, type_: str) -> None:
        """Give an object a custom field, also one of a name that another one has."""
        self.custom[kind][code] = {"field_code": code, "field_name": name, "field_type": type_}

    def syncs_contacts(self) -> None:
        """Switch Contact Sync on: persons have an address, which the search does not show."""
        self.account.adds("persons", postal_address=OBJECT)

    def strict_nulls(self) -> None:
        """Take null only where the published model of v2 has it, or says nothing of it."""
        self.nullable = {"person_id", "org_id", "deal_id", "probability", "lost_reason"}

    def searches_slower(self, limit: int) -> None:
        """Let the account take so many searches in two seconds, as a smaller plan does."""
        self.search_burst = Window(limit, 2.0)

    def refuse_token(self) -> Response:
        return Refused(401, "Invalid token: access token is invalid").response()

    def _after(self, response: Response) -> Response:
        if request.path.startswith(("/api/", "/v1/")):
            left = max(0, self.daily_budget - self.spent)
            response.headers["x-ratelimit-limit"] = str(self.burst.limit)
            response.headers["x-ratelimit-remaining"] = str(self.burst.left)
            response.headers["x-ratelimit-reset"] = "2"
            response.headers["x-daily-ratelimit-token-remaining"] = str(left)
        return super()._after(response)

    def guard(self, scopes: list[str]) -> Response | None:
        searching = request.path.endswith("/search")
        cost = 20 if searching else COSTS[request.method]
        self.spent += cost * (2 if request.path.startswith("/v1") else 1)
        window = self.search_burst if searching else self.burst
        if not window.take() or self.spent > self.daily_budget:
            return make(429, {"success": False, "error": "request over limit", "code": 429})
        for end, status in self.gone_v1.items():
            if request.path.startswith("/v1/") and request.path.endswith(end):
                return Refused(status, "This endpoint has been removed").response()
        if request.path.startswith("/v1/leads") and request.method != "DELETE":
            wrong = set(request.args) - (LEAD_QUERIES if request.method == "GET" else set())
            if wrong or (request.method != "GET" and not request.is_json):
                return Refused(400, f"{wrong or 'the body'} is not allowed").response()
        if not self._scope() & set(scopes):
            return Refused(403, "Scope and URL mismatch").response()
        unknown = set(request.args) - QUERIES
        if request.path.startswith("/api/v2") and unknown:
            return self._unfit(f"{unknown.pop()}: unknown query parameter").response()
        return None

    def _scope(self) -> set[str]:
        path, kind = request.path, request.path.rpartition("/")[2]
        if path.endswith("/leads/search"):
            return {"leads:read", "leads:full", "search:read"}
        if path.startswith("/v1/leads"):
            return {"leads:full"} | ({"leads:read"} if request.method == "GET" else set())
        if path.endswith("/search"):
            return {"search:read"}
        if "Fields" in path and request.method == "POST":
            return {"deal-fields:full"}
        if kind == "activityFields":
            return {"admin"} if self.activity_fields_need_admin else {"base"}
        if kind in FIELD_SCOPES:
            return FIELD_SCOPES[kind]
        for part, scope in (("/users", "users:read"), ("/persons", "contacts:full"),
                            ("/organizations", "contacts:full"), ("/activities", "activities:full"),
                            ("/deals", "deals:full")):  # fmt: skip
            if part in path and path != "/v1/users/me":
                return {scope}
        return {"base"}

    def _unfit(self, what: str) -> Refused:
        return Refused(400, f"Validation failed: {what}", "ERR_SCHEMA_VALIDATION_FAILED")

    # Records

    def _must_show(self, kind: str) -> None:
        status = self.account.missing.get(kind)
        if status:
            raise Refused(status, "Scope and URL mismatch" if status == 403 else "Not found")

    def _many(self, kind: str) -> Response:
        with self.lock:
            self._must_show(kind)
            if request.method == "POST":
                body = self._checked(kind, new=True)
                made = {"is_deleted": False, "add_time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
                record = {"id": self.new_id(), **made, **self._defaults(kind), **self._placed(body)}
                self.records[kind][record["id"]] = record
                return make(200, {"success": True, "data": self._show(kind, record)})
            rows = [r for r in self.records[kind].values() if not r["is_deleted"]]
            if "status" in request.args:
                rows = [r for r in rows if r.get("status") == request.args["status"]]
            for key in ("person_id", "deal_id", "org_id"):
                if key in request.args:
                    rows = [r for r in rows if self._refers(kind, r, key, int(request.args[key]))]
            if "lead_id" in request.args:
                rows = [r for r in rows if r.get("lead_id") == request.args["lead_id"]]
            return self._list([self._show(kind, row) for row in rows])

    def _refers(self, kind: str, record: Record, key: str, number: int) -> bool:
        if kind == "activities" and key == "person_id":
            return any(p["person_id"] == number for p in record.get("participants") or ())
        return record.get(key) == number

    def _defaults(self, kind: str) -> Record:
        me = 1
        if kind == "deals":
            first = self.stages[0]
            place = {"pipeline_id": first["pipeline_id"], "stage_id": first["id"]}
            return {"owner_id": me, **place, "status": "open"}
        return {"owner_id": me, "done": False} if kind == "activities" else {"owner_id": me}

    def _placed(self, body: Record) -> Record:
        """The stage says which pipeline it is; a pipeline alone means its first stage."""
        # https://developers.pipedrive.com/changelog/post/bug-fix-in-the-behavior-of-codepipeline_idcode-and-codestage_idcode-for-put-dealsid
        if "stage_id" in body:
            line = next(s["pipeline_id"] for s in self.stages if s["id"] == body["stage_id"])
            return {**body, "pipeline_id": line}
        if "pipeline_id" in body:
            line = body["pipeline_id"]
            return {**body, "stage_id": next(s["id"] for s in self.stages
                                             if s["pipeline_id"] == line)}  # fmt: skip
        return body

    def _one(self, kind: str, number: int) -> Response:
        with self.lock:
            self._must_show(kind)
            record = self.records[kind].get(number)
            if record is None or (record["is_deleted"] and request.method != "GET"):
                raise Refused(404, f"{kind[:-1]} not found")
            if request.method == "DELETE":
                record["is_deleted"] = True
            if request.method == "PATCH":
                body = self._checked(kind, new=False, record=record)
                custom = {**record.get("custom_fields", {}), **body.pop("custom_fields", {})}
                record.update(self._placed(body))
                if custom:
                    record["custom_fields"] = custom
            return make(200, {"success": True, "data": self._show(kind, record)})

    def _show(self, kind: str, record: Record) -> Record:
        shown = dict(record)
        if kind in ("persons", "organizations", "deals"):
            keys = self.custom[kind]
            shown["custom_fields"] = {k: record.get("custom_fields", {}).get(k) for k in keys}
        source = shown.pop("source_lead_id", None)
        asked = "source_lead_id" in request.args.get("include_fields", "").split(",")
        if kind == "deals" and asked and self.names_sources:
            shown["source_lead_id"] = source
        if kind == "activities" and record.get("participants"):
            shown["person_id"] = record["participants"][0]["person_id"]
        return shown

    def _list(self, rows: list[Record]) -> Response:
        start = int(request.args.get("cursor", 0))
        limit = min(int(request.args.get("limit", 100)), 500)
        cursor = str(start + limit) if len(rows) > start + limit else None
        body = {"success": True, "data": rows[start : start + limit]}
        return make(200, {**body, "additional_data": {"next_cursor": cursor}})

    def _checked(self, kind: str, new: bool, record: Record | None = None) -> Record:
        body = request.get_json(silent=True)
        if not isinstance(body, dict):
            raise self._unfit("body: must be an object")
        for key, value in body.items():
            self._check_value(kind, key, value)
        if new and not body.get(REQUIRED[kind]):
            raise self._unfit(f"{REQUIRED[kind]}: is required")
        if kind == "persons" and "name" in body and {"first_name", "last_name"} & set(body):
            raise self._unfit("name: not together with first_name or last_name")
        self._check_account(kind, new, body, record or {})
        if kind == "activities":
            self._check_ends({**(record or {}), **body})
        return body

    def _check_ends(self, activity: Record) -> None:
        """An activity hangs on a deal or on a lead that is there, not on both."""
        lead = self.leads.get(activity.get("lead_id") or "")
        if lead and not lead["is_deleted"] and activity.get("deal_id"):
            raise self._unfit("lead_id: not together with deal_id")

    def _check_account(self, kind: str, new: bool, body: Record, before: Record) -> None:
        """Refuse what this account does not let pass."""
        locked = self.account.locked_field(before.get("id"), body)
        if locked:
            raise self._unfit(f"{locked[0]}: {locked[2]}")
        given = body.get("owner_id")
        owners = {user.id: user for user in self._user_rows()}
        owner = owners.get(given) if given != before.get("owner_id") else None
        whole = {
            **before,
            **before.get("custom_fields", {}),
            **body,
            **body.get("custom_fields", {}),
        }
        struck = self.account.struck(kind, new, body, whole, owner)
        if struck:
            raise self._refusal(struck)
        if owner and not owner.active:
            raise self._unfit(f"owner_id: user {given} does not exist or is inactive")

    def _refusal(self, struck: Refusal) -> Refused:
        if struck.fields:
            return self._unfit(f"{struck.fields[0]}: {struck.message}")
        return Refused(400, struck.message, struck.code, struck.more)

    def _types(self, kind: str, use: str) -> dict[str, type]:
        """What a body of an object may hold, for one use of `account.USES`."""
        there = {**BODIES[kind], **self.account.extra.get(kind, {})}
        return {key: type_ for key, type_ in there.items() if self.account.shows(kind, key, use)}

    def _check_value(self, kind: str, key: str, value: Any) -> None:
        expected = self._types(kind, "write").get(key)
        if expected is None:
            raise self._unfit(f"{key}: is not allowed")
        if value is None:
            if key not in self.nullable:
                raise self._unfit(f"{key}: may not be null")
            return
        types = (int, float) if expected is float else expected
        if isinstance(value, bool) is not (expected is bool) or not isinstance(value, types):
            raise self._unfit(f"{key}: must be of type {expected.__name__}")
        if (
            key in ("name", "last_name")
            and value.split()[-1:]
            and value.split()[-1] in self.forbidden_names
        ):
            raise self._unfit(f"{key}: a rule of this account forbids it")
        if key in PATTERNS and not re.fullmatch(PATTERNS[key], value):
            raise self._unfit(f"{key}: has the wrong format")
        if isinstance(value, str) and key in ("name", "title", "subject") and len(value) > 255:
            raise self._unfit(f"{key}: is longer than 255")
        most = self.account.too_long(kind, key, value)
        if most is not None:
            raise self._unfit(f"{key}: is longer than {most}")
        targets = {"person_id": "persons", "org_id": "organizations", "deal_id": "deals"}
        if key in targets:
            self._must_live(targets[key], value)
        if key == "lead_id":
            self._living_lead(value, 400)
        if key == "owner_id" and value not in {u.id for u in self._user_rows()}:
            raise self._unfit(f"owner_id: user {value} does not exist or is inactive")
        if key == "stage_id" and value not in [stage["id"] for stage in self.stages]:
            raise self._unfit("stage_id: does not exist")
        if key == "type" and value not in self.activity_types:
            raise self._unfit("type: is not an activity type")
        if key in ("location", "address") and set(value) - {"value"}:
            raise self._unfit(f"{key}: only value")
        if key in NATIVE_OPTIONS:
            options = {option for option, _ in NATIVE_OPTIONS[key]}
            if not set(value if isinstance(value, list) else [value]) <= options:
                raise self._unfit(f"{key}: must be one of {sorted(map(str, options))}")
        if key in ("emails", "phones"):
            for item in value:
                if not isinstance(item, dict) or set(item) - {"value", "primary", "label"}:
                    raise self._unfit(f"{key}: wrong entry")
                if key == "emails" and len(item["value"]) > LONGEST_EMAIL:
                    raise self._unfit("emails: is too long")
        if key == "participants":
            for item in value:
                if set(item) - {"person_id", "primary"} or not isinstance(item["person_id"], int):
                    raise self._unfit("participants: wrong entry")
                self._must_live("persons", item["person_id"])
        if key == "custom_fields":
            unknown = set(value) - set(self.custom[kind])
            if unknown:
                raise self._unfit(f"custom_fields: {unknown.pop()} is not allowed")
            for name, given in value.items():
                self._check_custom(self.custom[kind][name], given)

    def _check_custom(self, field: Record, value: Any) -> None:
        """A custom field's value has its type; options are named by their numbers."""
        if value is None:
            return
        kind, options = field["field_type"], {o["id"] for o in field.get("options") or ()}
        parts = PARTS.get(kind)
        if parts is not None:
            self._check_parts(field, parts, value)
            return
        users = {user.id for user in self._user_rows()}
        if kind in REFERENCES and isinstance(value, int):
            self._must_live(REFERENCES[kind], value)
        good = {
            **dict.fromkeys(REFERENCES, lambda: isinstance(value, int)),
            "user": lambda: value in users,
            "varchar": lambda: isinstance(value, str) and len(value) <= 255,
            "double": lambda: isinstance(value, (int, float)) and not isinstance(value, bool),
            "date": lambda: bool(re.fullmatch(r"\d{4}-\d\d-\d\d", str(value))),
            "enum": lambda: value in options,
            "set": lambda: isinstance(value, list) and set(value) <= options,
        }.get(kind, lambda: isinstance(value, str))
        if not good():
            raise self._unfit(f"custom_fields: {field['field_name']} must be of type {kind}")

    def _check_parts(self, field: Record, parts: dict[str, str], value: Any) -> None:
        name, kind = field["field_name"], field["field_type"]
        if not isinstance(value, dict):
            raise self._unfit(f"custom_fields: Expected object as value for {kind} field {name}")
        for part, form in parts.items():
            given = value.get(part)
            number = part == "value" and kind == "monetary"
            types = (int, float) if number else str
            if isinstance(given, bool) or not isinstance(given, types):
                raise self._unfit(f"custom_fields: {name}.{part} has the wrong type")
            if not re.fullmatch(form, str(given)):
                raise self._unfit(f"custom_fields: {name}.{part} has the wrong format")

    def _must_live(self, kind: str, number: int) -> None:
        record = self.records[kind].get(number)
        if record is None or record["is_deleted"]:
            raise Refused(400, f"{kind} {number} does not exist or is deleted")

    def _search(self, kind: str) -> Response:
        with self.lock:
            self._must_show(kind)
            term = request.args.get("term", "").lower()
            fields = request.args.get("fields", "").split(",")
            exact = request.args.get("exact_match") == "true"
            if len(term) < (1 if exact else 2):
                raise self._unfit("term: is too short")
            items = []
            for record in self.records[kind].values():
                # A deleted record lingers in the index without a mark.
                if record["id"] in self.search_lag:
                    continue
                texts = [text.lower() for name in fields for text in self._texts(record, name)]
                if any(term == text if exact else term in text for text in texts):
                    items.append({"result_score": 1.0, "item": self._item(kind, record)})
            return self._page(items)

    def _page(self, items: list[Record]) -> Response:
        """A page of a search: 100 where no limit is said, 500 at most.

        https://developers.pipedrive.com/docs/api/v1/Persons#searchPersons
        """
        start, limit = int(request.args.get("cursor", 0)), int(request.args.get("limit", 100))
        if not 0 < limit <= 500:
            raise self._unfit("limit: must be between 1 and 500")
        cursor = str(start + limit) if len(items) > start + limit else None
        return make(200, {"success": True, "data": {"items": items[start : start + limit]},
                          "additional_data": {"next_cursor": cursor}})  # fmt: skip

    def _texts(self, record: Record, name: str) -> list[str]:
        if name in ("email", "phone"):
            return [entry["value"] for entry in record.get(f"{name}s") or ()]
        if name == "custom_fields":
            return [str(v) for v in record.get("custom_fields", {}).values() if v is not None]
        value = record.get(name)
        return [value] if isinstance(value, str) else []

    def _item(self, kind: str, record: Record) -> Record:
        item = {"id": record["id"], "type": kind[:-1], "name": record.get("name")}
        if kind == "persons":
            item["emails"] = [entry["value"] for entry in record.get("emails") or ()]
            item["phones"] = [entry["value"] for entry in record.get("phones") or ()]
            org = record.get("org_id")
            item["organization"] = {"id": org} if org else None
        return item

    # Leads, which v1 alone has: https://developers.pipedrive.com/docs/api/v1/Leads

    def _leads(self) -> Response:
        with self.lock:
            self._must_show("leads")
            if request.method == "POST":
                body = self._checked_lead(LEAD_BODY, {})
                now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
                lead: Record = {
                    "id": str(uuid.uuid4()), "owner_id": 1, "creator_id": 1, "label_ids": [],
                    "person_id": None, "organization_id": None, "source_name": "API",
                    "origin": "API", "origin_id": None, "is_archived": False, "was_seen": False,
                    "value": None, "expected_close_date": None, "source_deal_id": None,
                    "visible_to": "3", "add_time": now, "update_time": now, "is_deleted": False,
                    **body,
                }  # fmt: skip
                self.leads[lead["id"]] = lead
                return make(201, {"success": True, "data": self._show_lead(lead)})
            rows = [r for r in self.leads.values() if not (r["is_deleted"] or r["is_archived"])]
            for key in ("person_id", "organization_id", "owner_id"):
                if key in request.args:
                    rows = [r for r in rows if r[key] == int(request.args[key])]
            start, limit = int(request.args.get("start", 0)), int(request.args.get("limit", 100))
            more = len(rows) > start + limit
            page = {"start": start, "limit": limit, "more_items_in_collection": more}
            page |= {"next_start": start + limit} if more else {}
            data = [self._show_lead(lead) for lead in rows[start : start + limit]]
            return make(200, {"success": True, "data": data or None,
                              "additional_data": {"pagination": page}})  # fmt: skip

    def _lead(self, lead_id: str) -> Response:
        with self.lock:
            self._must_show("leads")
            lead = self._living_lead(lead_id, 404)
            if request.method == "DELETE":
                lead["is_deleted"] = True
                return make(200, {"success": True, "data": {"id": lead_id}})
            if request.method == "PATCH":
                lead.update(self._checked_lead(LEAD_CHANGES, lead))
            return make(200, {"success": True, "data": self._show_lead(lead)})

    def _living_lead(self, lead_id: str, status: int) -> Record:
        lead = self.leads.get(lead_id)
        if lead is None or lead["is_deleted"]:
            raise Refused(status, "The lead was not found")
        return lead

    def _show_lead(self, lead: Record) -> Record:
        """A custom field that has no value does not appear; the options of a list are one text."""
        shown = {key: value for key, value in lead.items() if key != "is_deleted"}
        for key, field in self.custom["deals"].items():
            if shown.get(key) is None:
                shown.pop(key, None)
            elif field["field_type"] == "set":
                shown[key] = ",".join(map(str, shown[key]))
        return shown

    def _checked_lead(self, allowed: dict[str, type], before: Record) -> Record:
        """What v1 takes; `before` is the lead as it stands, empty for a new one."""
        body = request.get_json(silent=True)
        if not isinstance(body, dict):
            raise Refused(400, "the body must be an object")
        for key, value in body.items():
            base, _, part = key.partition("_") if key[40:41] == "_" else (key, "", "")
            field = self.custom["deals"].get(base)
            if field is not None:
                self._check_v1(field, part, value, body)
            elif key not in allowed:
                raise Refused(400, f"{key}: is not allowed")
            else:
                self._check_of_lead(key, allowed[key], value)
        whole = {**before, **body}
        if not whole.get("title"):
            raise Refused(400, "title: is required")
        if not (whole.get("person_id") or whole.get("organization_id")):
            raise Refused(400, "A lead has to be linked to a person or an organization")
        return body

    def _check_of_lead(self, key: str, expected: type, value: Any) -> None:
        if value is None:
            if key not in LEAD_NULLS:
                raise Refused(400, f"{key}: may not be null")
            return
        if isinstance(value, bool) is not (expected is bool) or not isinstance(value, expected):
            raise Refused(400, f"{key}: must be of type {expected.__name__}")
        targets = {"person_id": "persons", "organization_id": "organizations"}
        if key in targets:
            self._must_live(targets[key], value)
        if key == "value" and (
            set(value) != {"amount", "currency"}
            or isinstance(value["amount"], bool)
            or not isinstance(value["amount"], (int, float))
            or not re.fullmatch("[A-Z]{3}", str(value["currency"]))
        ):
            raise Refused(400, "value: amount and currency are required")
        if key == "expected_close_date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            raise Refused(400, "expected_close_date: has the wrong format")
        if key == "visible_to" and value not in ("1", "3", "5", "7"):
            raise Refused(400, "visible_to: must be one of 1, 3, 5, 7")
        if key == "title" and len(value) > 255:
            raise Refused(400, "title: is longer than 255")
        if key == "owner_id" and value not in {u.id for u in self._user_rows() if u.active}:
            raise Refused(400, f"owner_id: user {value} does not exist or is inactive")

    def _check_v1(self, field: Record, part: str, value: Any, body: Record) -> None:
        """A custom field's value as v1 has it: its further parts under keys of their own."""
        key, kind = field["field_code"], field["field_type"]
        parts = PARTS.get(kind, {})
        if part and part not in parts:
            raise Refused(400, f"{key}_{part}: is not allowed")
        if part or value is None:
            return
        if parts and not isinstance(value, dict):
            whole = {one: value if one == "value" else body.get(f"{key}_{one}") for one in parts}
            self._check_parts(field, parts, whole)
        elif parts:
            raise Refused(400, f"{key}: v1 takes no object")
        else:
            self._check_custom(field, value)

    def _search_leads(self) -> Response:
        with self.lock:
            self._must_show("leads")
            term = request.args.get("term", "").lower()
            exact = request.args.get("exact_match") == "true"
            fields = request.args.get("fields", "title,custom_fields").split(",")
            if set(fields) - {"title", "notes", "custom_fields"}:
                raise self._unfit("fields: is not allowed")
            if len(term) < (1 if exact else 2):
                raise self._unfit("term: is too short")
            items = []
            for lead in self.leads.values():
                texts = [lead["title"]] if "title" in fields else []
                if "custom_fields" in fields:
                    texts += [str(lead[key]) for key in self.custom["deals"] if lead.get(key)]
                found = any(term == t.lower() if exact else term in t.lower() for t in texts)
                if found and lead["id"] not in self.search_lag:
                    items.append({"result_score": 1.0, "item": {"id": lead["id"], "type": "lead",
                                                                "title": lead["title"]}})  # fmt: skip
            return self._page(items)

    def convert(self, lead_id: str) -> int:
        """Do what a person does who converts a lead: a deal takes over all that it held.

        'Related entities (notes, files, emails, activities, ...) are transferred … the lead is marked
        as deleted.'
        https://developers.pipedrive.com/docs/api/v1/Leads#convertLeadToDeal
        """
        with self.lock:
            lead = self._living_lead(lead_id, 404)
            worth = lead["value"] or {}
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            deal: Record = {
                "id": self.new_id(), "is_deleted": False, "add_time": now,
                **self._defaults("deals"), "title": lead["title"],
                "owner_id": lead["owner_id"], "person_id": lead["person_id"],
                "org_id": lead["organization_id"], "value": worth.get("amount"),
                "currency": worth.get("currency"),
                "expected_close_date": lead["expected_close_date"],
                "custom_fields": self._custom_of_lead(lead),
                "source_lead_id": lead_id,
            }  # fmt: skip
            self.records["deals"][deal["id"]] = deal
            for activity in self.records["activities"].values():
                if activity.get("lead_id") == lead_id:
                    activity |= {"lead_id": None, "deal_id": deal["id"]}
            lead["is_deleted"] = True
            return int(deal["id"])

    def _custom_of_lead(self, lead: Record) -> Record:
        """The custom fields of a lead as v2 has them."""
        fields: Record = {}
        for key, field in self.custom["deals"].items():
            parts, value = PARTS.get(field["field_type"], {}), lead.get(key)
            if value is not None:
                whole = {
                    one: value if one == "value" else lead.get(f"{key}_{one}") for one in parts
                }
                fields[key] = whole or value
        return fields

    def _fields(self, kind: str) -> Response:
        with self.lock:
            target = FIELDS[kind]
            self._must_show(target)
            if request.method == "GET":
                native = [
                    {"field_code": key, "field_name": key,
                     "field_type": FIELD_TYPES.get(key, TYPES[kind_]),
                     "options": [{"id": i, "label": label}
                                 for i, label in NATIVE_OPTIONS.get(key, ())]}
                    for key, kind_ in self._types(target, "describe").items()
                    if key != "custom_fields"
                ]  # fmt: skip
                return self._list(native + list(self.custom[target].values()))
            body = request.get_json(silent=True) or {}
            if set(body) - {"field_name", "field_type", "options"} or "field_name" not in body:
                raise self._unfit("body: unknown or missing key")
            listed = body.get("field_type") in ("enum", "set")
            if body.get("field_type") not in MADE or listed is not bool(body.get("options")):
                raise self._unfit("field_type: is not allowed, or its options")
            seed = f"{target}{body['field_name']}{len(self.custom[target])}"
            key = hashlib.sha1(seed.encode()).hexdigest()  # noqa: S324 - a name, as Pipedrive makes them
            options = [
                {"id": number, "label": option["label"]}
                for number, option in enumerate(body.get("options") or (), 1)
            ]
            field = {"field_code": key, **body, **({"options": options} if options else {})}
            self.custom[target][key] = field
            return make(200, {"success": True, "data": field})

    def _pipelines(self) -> Response:
        return self._list(self.pipelines)

    def _user_ids(self) -> dict[str, int]:
        return {email: number for number, email in enumerate(self.users, 1)}

    def _user_rows(self) -> list[User]:
        """Everybody who works or worked with this account."""
        usual = [User(email, self.users[email], email not in self.account.left, "", number)
                 for email, number in self._user_ids().items()]  # fmt: skip
        return [*usual, *self.account.more_users]

    def _users(self) -> Response:
        rows = [{"id": user.id, "name": user.name, "email": user.email, "active_flag": user.active}
                for user in self._user_rows()]  # fmt: skip
        return make(200, {"success": True, "data": rows})

    def _me(self) -> Response:
        me = {
            "id": 1, "company_id": int(self.account_id), "company_name": self.account_name,
            "company_domain": self.account_name.lower(), "default_currency": "EUR",
            "company_country": self.company_country, "timezone_name": "Europe/Tallinn",
        }  # fmt: skip
        return make(200, {"success": True, "data": me})

    def _participants(self, deal_id: int) -> Response:
        with self.lock:
            self._must_live("deals", deal_id)
            rows = self.participants.setdefault(deal_id, {})
            if request.method == "POST":
                person = (request.get_json(silent=True) or {}).get("person_id")
                self._must_live("persons", person)
                rows[self.new_id()] = person
                return make(201, {"success": True, "data": {}})
            data = [{"id": row, "person_id": {"value": person}} for row, person in rows.items()]
            return make(200, {"success": True, "data": data})

    def _drop_participant(self, deal_id: int, row_id: int) -> Response:
        with self.lock:
            if self.participants.get(deal_id, {}).pop(row_id, None) is None:
                raise Refused(404, "participant not found")
            return make(200, {"success": True, "data": {"id": row_id}})

    # For tests and the page

    def merge(self, kind: str, winner: int, loser: int) -> None:
        """Do what a person does who merges two records: the winner's fields come first."""
        # https://pipedrive.readme.io/docs/merging-two-persons
        with self.lock:
            kept, gone = self.records[kind][winner], self.records[kind][loser]
            gone["is_deleted"] = True
            for key, value in gone.items():
                if key in ("emails", "phones"):
                    there = {entry["value"] for entry in kept.get(key) or ()}
                    more = [e for e in value if e["value"] not in there]
                    kept[key] = [*(kept.get(key) or ()), *({**e, "primary": False} for e in more)]
                elif key == "custom_fields":
                    own = {k: v for k, v in (kept.get(key) or {}).items() if v is not None}
                    kept[key] = {**value, **own}
                elif kept.get(key) is None:
                    kept[key] = value
            self._repoint(kind, winner, loser)

    def _repoint(self, kind: str, winner: int, loser: int) -> None:
        own = {"persons": "person_id", "organizations": "org_id", "deals": "deal_id"}[kind]
        for table in self.records.values():
            for row in table.values():
                if row.get(own) == loser:
                    row[own] = winner
                for entry in row.get("participants") or () if kind == "persons" else ():
                    if entry["person_id"] == loser:
                        entry["person_id"] = winner
        on_lead = {"persons": "person_id", "organizations": "organization_id"}.get(kind, "")
        for lead in self.leads.values():
            if lead.get(on_lead) == loser:
                lead[on_lead] = winner
        for rows in self.participants.values() if kind == "persons" else ():
            rows.update({row: winner for row, person in rows.items() if person == loser})

    def drop_booking_fields(self) -> None:
        for fields in self.custom.values():
            for key in [k for k, f in fields.items() if f["field_name"] == "meetergo_booking_id"]:
                del fields[key]

    def delete_meetings(self) -> None:
        for record in self.records["activities"].values():
            record["is_deleted"] = True

    def view(self) -> View:
        users = {user.id: user.email for user in self._user_rows()}
        stages = {stage["id"]: stage["name"] for stage in self.stages}
        live = {
            kind: [r for r in rows.values() if not r["is_deleted"]]
            for kind, rows in self.records.items()
        }
        contacts = [
            Contact(
                str(r["id"]), _first(r.get("emails")), _first(r.get("phones")), None, r["name"],
                _id(r.get("org_id")), users.get(r["owner_id"]),
            )
            for r in live["persons"]
        ]  # fmt: skip
        companies = [Company(str(r["id"]), r["name"], r["name"]) for r in live["organizations"]]
        deals = [
            Deal(
                str(r["id"]), r["title"], stages[r["stage_id"]],
                [str(p) for p in (r.get("person_id"),
                                  *self.participants.get(r["id"], {}).values()) if p],
                _id(r.get("org_id")), self._custom("deals", r, "meetergo_booking_id"),
                users.get(r["owner_id"]),
            )
            for r in live["deals"]
        ]  # fmt: skip
        return View(contacts, companies, deals, [self._meeting(r, users) for r in
                                                 live["activities"]])  # fmt: skip

    def _custom(self, kind: str, record: Record, name: str) -> Any:
        keys = [k for k, f in self.custom[kind].items() if f["field_name"] == name]
        return record.get("custom_fields", {}).get(keys[0]) if keys else None

    def _meeting(self, r: Record, users: dict[int, str]) -> Meeting:
        start = datetime.fromisoformat(f"{r['due_date']}T{r['due_time']}").replace(tzinfo=UTC)
        hours, minutes = (int(part) for part in r["duration"].split(":")[:2])
        place = (r.get("location") or {}).get("value")
        return Meeting(
            str(r["id"]), r["subject"], start.strftime("%Y-%m-%dT%H:%M:%SZ"), hours * 60 + minutes,
            bool(r["done"]) and r["subject"].startswith("Cancelled"), place,
            plain(r.get("note") or ""), [str(p["person_id"]) for p in r.get("participants") or ()],
            _id(r.get("deal_id")), users.get(r["owner_id"]),
        )  # fmt: skip


def _first(entries: list[Record] | None) -> str | None:
    return entries[0]["value"] if entries else None


def _id(number: int | None) -> str | None:
    return str(number) if number else None
