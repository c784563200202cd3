"""Salesforce as a sandbox: SOQL, composite, composite graph, upsert, required fields, error lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from flask import Response, request

from sandbox import soql
from sandbox.account import User
from sandbox.answers import Record, make
from sandbox.core import Sandbox
from sandbox.index import Index
from sandbox.salesforce_account import MIRRORED, Org, Refused, filled
from sandbox.view import Company, Contact, Deal, Meeting, View

VERSION = "68.0"
DATA = f"/services/data/v{VERSION}"
PREFIXES = {"Account": "001", "Contact": "003", "User": "005", "Opportunity": "006", "Event": "00U",
            "OpportunityContactRole": "00K", "EventRelation": "0RE", "Organization": "00D",
            "PermissionSet": "0PS", "PermissionSetAssignment": "0Pa", "FieldPermissions": "01k",
            "OpportunityStage": "01J", "Lead": "00Q", "Case": "500"}  # fmt: skip
FIELDS: dict[str, dict[str, Any]] = {
    # name -> longest text, or a type
    "Account": {"Name": 255, "Website": 255, "OwnerId": "User", "Phone": 40},
    "Contact": {"FirstName": 40, "LastName": 80, "Email": 80, "Phone": 40, "MobilePhone": 40,
                "HomePhone": 40, "OtherPhone": 40, "MailingCountry": 80,
                "AccountId": "Account", "OwnerId": "User", "Title": 128, "Birthdate": "date",
                "HasOptedOutOfEmail": "flag"},
    "Lead": {"FirstName": 40, "LastName": 80, "Email": 80, "Phone": 40, "MobilePhone": 40,
             "Country": 80, "Company": 255, "Title": 128, "Website": 255, "Description": 32_000,
             "Status": ("pick", "Open - Not Contacted", "Working - Contacted", "Closed - Converted"),
             "LeadSource": ("pick", "Web", "Other"), "OwnerId": "User", "IsConverted": "flag",
             "ConvertedContactId": "Contact"},
    "Case": {"Subject": 255, "Description": 32_000, "Status": ("pick", "New", "Working", "Closed"),
             "Origin": ("pick", "Phone", "Email", "Web"), "AccountId": "Account",
             "ContactId": "Contact", "OwnerId": "User"},
    "Opportunity": {"Name": 120, "StageName": "stage", "CloseDate": "date", "Amount": "number",
                    "AccountId": "Account", "OwnerId": "User", "Description": 32_000,
                    "IsClosed": "flag"},
    "Event": {"Subject": 255, "StartDateTime": "time", "EndDateTime": "time", "Location": 255,
              "Description": 32_000, "WhoId": ("Contact", "Lead"), "WhatId": ("Opportunity", "Account", "Case"),
              "OwnerId": "User", "ShowAs": ("pick", "Busy", "Free", "OutOfOffice")},
    "OpportunityContactRole": {"OpportunityId": "Opportunity", "ContactId": "Contact",
                               "IsPrimary": "flag", "Role": 40},
    "EventRelation": {"EventId": "Event", "RelationId": "Contact", "IsParent": "flag",
                      "IsWhat": "flag", "IsInvitee": "flag", "Status": 40},
    "User": {"Email": 80, "Name": 121, "IsActive": "flag",
             "UserType": ("pick", "Standard", "PowerPartner", "PowerCustomerSuccess",
                          "CustomerSuccess", "CspLitePortal", "Guest", "CsnOnly")},
    "Organization": {"Name": 80, "Country": 80, "TimeZoneSidKey": 40},
    "OpportunityStage": {"ApiName": 40, "MasterLabel": 40, "SortOrder": "number",
                         "IsActive": "flag", "IsClosed": "flag"},
    "PermissionSet": {"Name": 80, "Label": 80},
    "PermissionSetAssignment": {"PermissionSetId": "PermissionSet", "AssigneeId": "User"},
    "FieldPermissions": {"ParentId": "PermissionSet", "SobjectType": 80, "Field": 80,
                         "PermissionsRead": "flag", "PermissionsEdit": "flag"},
}  # fmt: skip
ORG_PLACE = {"TimeZoneSidKey": "America/Los_Angeles"}
READ_ONLY = {("Opportunity", "IsClosed"), ("Lead", "IsConverted"), ("Lead", "ConvertedContactId")}
TYPES = {"flag": "boolean", "number": "currency", "double": "double", "percent": "percent",
         "date": "date", "time": "datetime", "clock": "time", "stage": "picklist",
         "address": "address", "location": "location", "base64": "base64"}  # fmt: skip
CUSTOM_TYPES: dict[str, Any] = {
    # https://developer.salesforce.com/docs/atlas.en-us.api_meta.meta/api_meta/meta_field_types.htm
    "Text": 255, "TextArea": 255, "LongTextArea": 32_768, "Html": 32_768, "EncryptedText": 175,
    "Phone": 40, "Email": 80, "Url": 255, "Number": "double", "Currency": "number",
    "Percent": "percent", "Checkbox": "flag", "Date": "date", "DateTime": "time", "Time": "clock",
    "Location": "location", "AutoNumber": 30, "Formula": 255,
}  # fmt: skip
TEXT_TYPES = {"TextArea": "textarea", "LongTextArea": "textarea", "Html": "textarea",
              "EncryptedText": "encryptedstring", "Phone": "phone", "Email": "email",
              "Url": "url"}  # fmt: skip
CALCULATED = {"AutoNumber", "Formula", "Location"}
"""Types of custom fields that take no value: a location is written by its two parts."""
DEFAULTED = {"OwnerId", "Status"}
"""Fields that get a value when a record is made without one, and cannot be emptied."""
REQUIRED = {"Lead": ["LastName", "Company"], "Account": ["Name"], "Contact": ["LastName"],
            "Opportunity": ["Name", "StageName", "CloseDate"],
            "OpportunityContactRole": ["OpportunityId", "ContactId"],
            "EventRelation": ["EventId", "RelationId"], "PermissionSet": ["Name", "Label"],
            "PermissionSetAssignment": ["PermissionSetId", "AssigneeId"],
            "FieldPermissions": ["ParentId", "SobjectType", "Field"]}  # fmt: skip
DEMANDED = {"Event": ["StartDateTime", "EndDateTime"]}
"""What describe calls nillable and a write has to bring all the same, as the Object Reference says:
https://developer.salesforce.com/docs/platform/object-reference/references/standard-objects/object-event.html"""


CLOCK = r"\d\d:\d\d:\d\d\.\d{3}Z"


class SalesforceSandbox(Sandbox):
    """One org."""

    name, title, pkce, rotates = "salesforce", "Salesforce", True, True
    lifetime = 7200.0
    authorize_path = "/services/oauth2/authorize"
    token_path = "/services/oauth2/token"
    revoke_path = "/services/oauth2/revoke"
    introspect_path = "/services/oauth2/introspect"
    revoke_needs_client = False
    api_paths = ("/services/data",)

    def routes(self) -> None:
        self.tables: dict[str, dict[str, Record]] = {name: {} for name in FIELDS}
        self.custom: dict[str, dict[str, Record]] = {name: {} for name in FIELDS}
        self.deleted: dict[str, dict[str, Record]] = {name: {} for name in FIELDS}
        """What stands in the recycle bin, with the master where it was merged."""
        self.assign_to: str | None = None
        """The user whom an active assignment rule gives new leads and cases to."""
        self.hidden: set[tuple[str, str]] = set()
        """Custom fields that no permission set shows yet."""
        self.daily_limit = 15_000
        self.rules: list[Callable[[str, Record], None]] = []
        """An admin's validation rules: called with object and record, raise Refused."""
        self.org = Org(self)
        """The switches that only Salesforce has."""
        self._part: Record | None = None
        """The subrequest that is being done."""
        self._undo: list[Callable[[], object]] = []
        """What takes the changes of the running transaction back, in the order of the changes."""
        self._unique: dict[tuple[str, str], Index] = {}
        self._seed()
        self.app.register_error_handler(Refused, lambda error: make(error.status, error.body))
        add = self.app.add_url_rule
        add("/services/oauth2/userinfo", "userinfo", self._userinfo)
        add(f"{DATA}/query", "query", lambda: make(200, self._query(request.args.get("q", ""))))
        add(
            f"{DATA}/query/",
            "query_slash",
            lambda: make(200, self._query(request.args.get("q", ""))),
        )
        add(f"{DATA}/queryAll", "query_all", lambda: make(200, self._query_all(request.args["q"])))
        add(f"{DATA}/composite", "composite", self._composite, methods=["POST"])
        add(f"{DATA}/composite/graph", "graph", self._graphs, methods=["POST"])
        add(f"{DATA}/composite/sobjects", "collection", self._collection, methods=["PATCH"])
        add(f"{DATA}/sobjects/<sobject>/describe", "describe", self._describe)
        add(f"{DATA}/tooling/sobjects/CustomField", "field", self._make_field, methods=["POST"])
        add(f"{DATA}/sobjects/<path:rest>", "sobject", self._sobject,
            methods=["GET", "POST", "PATCH", "DELETE"])  # fmt: skip

    def _seed(self) -> None:
        for email, name in self.users.items():
            self.take_user(User(email, name))
        self._store("Organization", {"Name": "Acme", **ORG_PLACE})
        labels = ("Prospecting", "Demo booked", "Negotiation", "Closed Won", "Closed Lost")
        for number, label in enumerate(labels):
            stage = {"ApiName": label, "MasterLabel": label, "SortOrder": number, "IsActive": True,
                     "IsClosed": label.startswith("Closed")}  # fmt: skip
            self._store("OpportunityStage", stage)

    def become(self, account_id: str, account_name: str) -> None:
        super().become(account_id, account_name)
        self.tables["Organization"].clear()
        row = self._store("Organization", {"Name": account_name, **ORG_PLACE})
        row["Id"] = account_id

    def token_answer(self, answer: Record) -> Record:
        # No expires_in: the lifetime is the org's session setting.
        answer.pop("expires_in")
        base = self.org.moved_to or request.host_url.rstrip("/")
        return {**answer, "instance_url": base, "id": f"{base}/id/00D/005", "issued_at": "0"}

    def _before(self) -> Response | None:
        moved = self.org.moved_to
        if moved and request.path.startswith(DATA) and request.host_url.rstrip("/") != moved:
            page = f'<html><body>The URL has moved <a href="{moved}{request.path}">here</a></body></html>'
            headers = {"Location": f"{moved}{request.full_path}"}
            return Response(page, 302, headers, mimetype="text/html")
        return super()._before()

    def header(self, name: str) -> str:
        """A header that counts for the write that is being done.

        A part of a composite call has its own and inherits none of these; one of a graph has none:
        https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_composite_subrequest.htm
        https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_graph_composite_subrequest.htm
        """
        if self._part is None:
            return str(request.headers.get(name, ""))
        sent = self._part.get("httpHeaders") or {}
        return next((str(v) for k, v in sent.items() if k.lower() == name.lower()), "")

    def take_user(self, user: User) -> None:
        row = {"Email": user.email, "Name": user.name, "IsActive": user.active}
        user.id = self._store("User", {**row, "UserType": user.kind or "Standard"})["Id"]

    def user_left(self, email: str) -> None:
        self._set_active(email, False)

    def user_back(self, email: str) -> None:
        self._set_active(email, True)

    def _set_active(self, email: str, active: bool) -> None:
        for row in self.tables["User"].values():
            if row["Email"] == email:
                row["IsActive"] = active

    def refuse_token(self) -> Response:
        body = [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}]
        return make(401, body)

    def dead_grant(self) -> Response:
        body = {"error": "invalid_grant", "error_description": "expired access/refresh token"}
        return make(400, body)

    def guard(self, scopes: list[str]) -> Response | None:
        if self.total_calls > self.daily_limit:
            body = [
                {"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}
            ]
            return make(403, body)
        if "api" not in scopes:
            return make(403, [{"errorCode": "INSUFFICIENT_SCOPE", "message": "api is missing"}])
        return None

    def _after(self, response: Response) -> Response:
        response.headers["Sforce-Limit-Info"] = f"api-usage={self.total_calls}/{self.daily_limit}"
        return super()._after(response)

    # Records

    def _store(self, sobject: str, values: Record) -> Record:
        number = self.new_id()
        values = self._kept(sobject, values)
        record_id = soql.checked_id(f"{PREFIXES[sobject]}{number:012d}")
        record = {"Id": record_id, "CreatedDate": number, **values}
        table = self.tables[sobject]
        table[record["Id"]] = record
        self._undo.append(lambda: table.pop(record["Id"]))
        self._note(sobject, record)
        return record

    def _change(self, sobject: str, record: Record, body: Record) -> None:
        before = dict(record)

        def undo() -> None:
            record.clear()
            record.update(before)

        self._undo.append(undo)
        record.update(self._kept(sobject, body))
        self._note(sobject, record)

    def _note(self, sobject: str, record: Record) -> None:
        """Let a record be found by its unique values."""
        for (name, _), index in self._unique.items():
            if name == sobject:
                index.note(record["Id"], record)

    def _by_unique(self, sobject: str, field: str, value: str) -> list[Record]:
        index = self._unique.get((sobject, field))
        if index is None:
            index = Index(lambda r: [r.get(field) or ""])
            for record in self.tables[sobject].values():
                index.note(record["Id"], record)
            self._unique[sobject, field] = index
        return index.find(self.tables[sobject], value)

    def _names(self, sobject: str, use: str = "") -> set[str]:
        """The fields of an object, or those for one use of `account.USES`."""
        custom = {n for n in self.custom[sobject] if (sobject, n) not in self.hidden}
        there = set(FIELDS[sobject]) | set(self.account.extra.get(sobject, {})) | custom
        return {name for name in there if self.account.shows(sobject, name, use)}

    def _kind(self, sobject: str, name: str) -> Any:
        """How long a field's text may be, or its type."""
        custom = self.custom[sobject].get(name, {})
        own = CUSTOM_TYPES.get(custom.get("type", ""), custom.get("references", 255))
        return FIELDS[sobject].get(name, self.account.extra.get(sobject, {}).get(name, own))

    def _table(self, sobject: str) -> dict[str, Record]:
        status = self.account.missing.get(sobject)
        if status == 403:
            message = "insufficient access rights on cross-reference id"
            raise Refused(403, "INSUFFICIENT_ACCESS", message)
        if sobject not in self.tables or status:
            raise Refused(404, "NOT_FOUND", "The requested resource does not exist")
        return self.tables[sobject]

    def _check(self, sobject: str, values: Any, record_id: str | None) -> None:
        if not isinstance(values, dict):
            raise Refused(400, "JSON_PARSER_ERROR", "an object is expected")
        for name, value in values.items():
            if name not in self._names(sobject):
                message = f"No such column '{name}' on sobject of type {sobject}"
                raise Refused(400, "INVALID_FIELD", message)
            if self._read_only(sobject, name) or name not in self._names(sobject, "write"):
                message = (
                    f"Unable to create/update fields: {name}. Please check the security settings"
                )
                raise Refused(400, "INVALID_FIELD_FOR_INSERT_UPDATE", message, [name])
            if value is not None:
                self._check_value(sobject, name, value)
            elif self._kind(sobject, name) == "flag":
                message = f"Cannot deserialize instance of boolean from VALUE_NULL: {name}"
                raise Refused(400, "JSON_PARSER_ERROR", message)
            elif name == "OwnerId" and record_id:
                message = "Owner ID: owner cannot be blank"
                raise Refused(400, "INVALID_CROSS_REFERENCE_KEY", message, [name])
        converted = self.tables[sobject].get(record_id or "", {}).get("IsConverted")
        if converted:
            raise Refused(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
        whole = {**(self.tables[sobject].get(record_id or "", {})), **values}
        demanded = [*REQUIRED.get(sobject, ()), *DEMANDED.get(sobject, ())]
        missing = [name for name in demanded if whole.get(name) in (None, "")]
        if missing:
            message = f"Required fields are missing: [{', '.join(missing)}]"
            raise Refused(400, "REQUIRED_FIELD_MISSING", message, missing)
        who, what = whole.get("WhoId") or "", whole.get("WhatId")
        if sobject == "Event" and who.startswith("00Q") and what:
            message = "WhatId: Related To ID cannot be specified with a lead"
            raise Refused(400, "FIELD_INTEGRITY_EXCEPTION", message, ["WhatId"])
        if sobject == "Contact" and values.get("LastName") in self.forbidden_names:
            message = "a rule of this org forbids it"
            raise Refused(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", message, ["LastName"])
        self.org.check(sobject, values, whole, record_id)
        for rule in self.rules:
            rule(sobject, whole)
        for name, spec in self.custom[sobject].items():
            if not (spec.get("unique") and values.get(name)):
                continue
            for other in self._by_unique(sobject, name, values[name]):
                if other["Id"] != record_id:
                    message = f"duplicate value found: {name} duplicates value on record with id: {other['Id']}"  # fmt: skip
                    raise Refused(400, "DUPLICATE_VALUE", message)

    def _check_value(self, sobject: str, name: str, value: Any) -> None:
        custom = self.custom[sobject].get(name, {})
        kind = self._kind(sobject, name)
        if custom.get("type") in ("Picklist", "MultiselectPicklist"):
            given = str(value).split(";") if custom["type"].startswith("Multi") else [value]
            if custom.get("restricted", True) and not set(given) <= set(custom["values"]):
                message = f"bad value for restricted picklist field: {value}"
                raise Refused(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, [name])
            return
        if isinstance(kind, int):
            if not isinstance(value, str):
                raise Refused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as String")
            most = self.account.too_long(sobject, name, value, kind)
            if most is not None:
                message = f"{name}: data value too large: {value} (max length={most})"
                raise Refused(400, "STRING_TOO_LONG", message, [name])
        elif kind == "flag" and not isinstance(value, bool):
            raise Refused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as Boolean")
        elif kind in ("number", "double", "percent"):
            self._check_number(sobject, name, value)
        elif kind == "clock" and not re.fullmatch(CLOCK, str(value)):
            raise Refused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as Time")
        elif kind == "date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):
            raise Refused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as Date")
        elif kind == "time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(value)):
            raise Refused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as DateTime")
        elif (
            kind == "stage"
            and value not in [s["ApiName"] for s in self.tables["OpportunityStage"].values()]
        ) or (isinstance(kind, tuple) and kind[0] == "pick" and value not in kind):
            message = f"bad value for restricted picklist field: {value}"
            raise Refused(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, [name])
        else:
            self._check_reference(kind, name, value)

    def _check_number(self, sobject: str, name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Refused(400, "JSON_PARSER_ERROR", f"Cannot deserialize {name} as Double")
        custom = self.custom[sobject].get(name, {})
        digits = custom.get("precision", 18) - custom.get("scale", 2)
        if abs(value) >= 10**digits:
            message = f"{name}: value outside of valid range on numeric field: {value}"
            raise Refused(400, "NUMBER_OUTSIDE_VALID_RANGE", message, [name])

    def _read_only(self, sobject: str, name: str) -> bool:
        made = self.custom[sobject].get(name, {}).get("type") in CALCULATED
        return made or (sobject, name) in READ_ONLY

    def _kept(self, sobject: str, values: Record) -> Record:
        """Values as Salesforce gives them back: moments with an offset, numbers as doubles."""
        kept = dict(values)
        for name, value in values.items():
            kind = self._kind(sobject, name) if name not in ("Id", "CreatedDate") else ""
            if kind == "time" and isinstance(value, str):
                kept[name] = value.replace("Z", ".000+0000")
            elif kind in ("number", "double", "percent") and isinstance(value, int):
                kept[name] = float(value)
        return kept

    def _check_reference(self, kind: Any, name: str, value: Any) -> None:
        targets = [kind] if isinstance(kind, str) else list(kind)
        targets = [target for target in targets if target in self.tables]
        if targets and not any(value in self.tables[target] for target in targets):
            message = f"invalid cross reference id: {name}"
            raise Refused(400, "INVALID_CROSS_REFERENCE_KEY", message, [name])

    def _sobject(self, rest: str) -> Response:
        with self.lock:
            body = request.get_json(silent=True)
            status, answer = self._do(request.method, f"{DATA}/sobjects/{rest}", body)
            return make(status, answer) if answer is not None else Response(status=status)

    def _do(self, method: str, url: str, body: Any) -> tuple[int, Any]:
        """One operation on one record; the heart of sobjects, composite and graph."""
        parts = urlsplit(url)
        if method == "GET" and parts.path.rstrip("/") == f"{DATA}/queryAll":
            return 200, self._query_all(parse_qs(parts.query)["q"][0])
        if method == "GET" and parts.path.rstrip("/") == f"{DATA}/query":
            return 200, self._query(parse_qs(parts.query)["q"][0])
        match = re.fullmatch(rf"{re.escape(DATA)}/sobjects/(\w+)(?:/(.+))?", parts.path)
        if not match:
            raise Refused(404, "NOT_FOUND", "The requested resource does not exist")
        sobject, rest = match[1], match[2]
        table = self._table(sobject)
        if method == "POST" and not rest:
            self._check(sobject, body, None)
            record = self._store(sobject, dict(body))
            self._assign(sobject, record)
            self._show_field(sobject, body)
            return 201, {"id": record["Id"], "success": True, "errors": []}
        if method == "PATCH" and rest and "/" in rest:
            return self._upsert(sobject, *rest.split("/", 1), body)
        if rest not in table:
            raise Refused(404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible")  # fmt: skip
        if method == "PATCH":
            self._check(sobject, body, rest)
            self._change(sobject, table[rest], body)
            self._assign(sobject, table[rest])
            self._mirror(sobject, table[rest], body)
            return 204, None
        if method == "DELETE":
            gone = table.pop(rest)
            self.deleted[sobject][rest] = {**gone, "MasterRecordId": None}
            self._undo.append(lambda: (table.update({rest: gone}), self.deleted[sobject].pop(rest)))
            return 204, None
        return 200, {"attributes": {"type": sobject}, **table[rest]}

    def _upsert(self, sobject: str, field: str, value: str, body: Any) -> tuple[int, Any]:
        if not self.custom[sobject].get(field, {}).get("externalId"):
            raise Refused(404, "NOT_FOUND", f"{field} is not an external id of {sobject}")
        value = unquote(value)
        found = self._by_unique(sobject, field, value)
        if field in body:
            raise Refused(400, "INVALID_FIELD", f"{field} may not be in the body as well", [field])
        if found:
            self._check(sobject, body, found[0]["Id"])
            self._change(sobject, found[0], body)
            return 200, {"id": found[0]["Id"], "success": True, "created": False, "errors": []}
        self._check(sobject, {**body, field: value}, None)
        record = self._store(sobject, {**body, field: value})
        return 201, {"id": record["Id"], "success": True, "created": True, "errors": []}

    def _show_field(self, sobject: str, body: Record) -> None:
        if sobject == "FieldPermissions" and body.get("PermissionsRead"):
            name = body["Field"].split(".")[1]
            self.hidden.discard((body["SobjectType"], name))

    def _assign(self, sobject: str, record: Record) -> None:
        """An active assignment rule gives a lead or case away that is made or changed, unless the
        header says no; left out it says yes.

        https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_autoassign.htm
        """
        wanted = self.header("Sforce-Auto-Assign").upper() != "FALSE"
        if sobject in ("Lead", "Case") and self.assign_to and wanted:
            record["OwnerId"] = self.assign_to

    def _mirror(self, sobject: str, record: Record, body: Record) -> None:
        """Show in the Contact what was written to the Account of a person."""
        contact = self.tables["Contact"].get(record.get("PersonContactId") or "")
        if sobject == "Account" and contact:
            shown = {MIRRORED[name]: value for name, value in body.items() if name in MIRRORED}
            self._change("Contact", contact, shown)

    def convert(self, lead_id: str) -> str:
        """Do what a person does who converts a lead: it is read-only from then on."""
        with self.lock:
            lead = self.tables["Lead"][lead_id]
            kept = {k: lead.get(k) for k in ("FirstName", "LastName", "Email", "Phone", "OwnerId")}
            contact = self._store("Contact", {k: v for k, v in kept.items() if v})
            lead |= {"IsConverted": True, "ConvertedContactId": contact["Id"]}
            return str(contact["Id"])

    def merge(self, sobject: str, winner: str, loser: str) -> None:
        """Do what a person does who merges two records: the loser goes to the recycle bin."""
        with self.lock:
            gone = self.tables[sobject].pop(loser)
            self.deleted[sobject][loser] = {**gone, "MasterRecordId": winner}
            for table in self.tables.values():
                for row in table.values():
                    row.update({k: winner for k, v in row.items() if v == loser})

    def _query_all(self, text: str) -> Record:
        every = {name: {**self.tables[name], **self.deleted[name]} for name in self.tables}
        names = {sobject: self._names(sobject) | {"MasterRecordId"} for sobject in self.tables}
        rows = self._rows(text, every, names)
        return {"totalSize": len(rows), "done": True, "records": rows}

    def _rows(
        self, text: str, tables: dict[str, dict[str, Record]], names: dict[str, set[str]]
    ) -> list[Record]:
        """What a query gives; what is no query is refused."""
        try:
            return soql.run(text, tables, names, self._holds_ids, self._column_type)
        except soql.Malformed as error:
            raise Refused(400, "MALFORMED_QUERY", f"unexpected token: {error}") from None
        except soql.NoField as error:
            raise Refused(400, "INVALID_FIELD", f"No such column '{error}'") from None
        except soql.WrongType as error:
            message = f"value of filter criterion for field '{error}' must be of its type"
            raise Refused(400, "INVALID_FIELD", message) from None
        except soql.NoId as error:
            message = f"invalid ID field: {error}"
            raise Refused(400, "INVALID_QUERY_FILTER_OPERATOR", message) from None

    def _column_type(self, sobject: str, column: str) -> str:
        """The type of a column, as a query is held to it."""
        there = column in self._names(sobject) and column not in ("Id", "CreatedDate")
        return str(self._type_of(sobject, column)["type"]) if there else "string"

    def _holds_ids(self, sobject: str, name: str) -> bool:
        kind = self._kind(sobject, name)
        named = [kind] if isinstance(kind, str) else list(kind) if isinstance(kind, tuple) else []
        return bool(named) and all(target in PREFIXES for target in named)

    def _shown(self) -> dict[str, dict[str, Record]]:
        """The tables with what Salesforce works out itself."""
        closed = {r["ApiName"]: r["IsClosed"] for r in self.tables["OpportunityStage"].values()}
        deals = {
            key: {**row, "IsClosed": closed[row["StageName"]]}
            for key, row in self.tables["Opportunity"].items()
        }
        return {**self.tables, "Opportunity": deals}

    def _query(self, text: str) -> Record:
        names = {sobject: self._names(sobject, "query") for sobject in self.tables}
        asked = re.search(r"\bFROM\s+(\w+)", text)
        if asked and asked[1] in self.account.missing:
            raise Refused(400, "INVALID_TYPE", f"sObject type '{asked[1]}' is not supported.")
        rows = self._rows(text, self._shown(), names)
        return {"totalSize": len(rows), "done": True, "records": rows}

    # Composite

    def _composite(self) -> Response:
        with self.lock:
            body = request.get_json(silent=True) or {}
            parts = body.get("compositeRequest")
            if not isinstance(parts, list) or not 0 < len(parts) <= 25:
                raise Refused(400, "PROCESSING_HALTED", "between 1 and 25 subrequests")
            inherited = {"accept", "authorization", "content-type"}
            if any(inherited & {h.lower() for h in part.get("httpHeaders", {})} for part in parts):
                raise Refused(400, "INVALID_INPUT", "a subrequest inherits this header")
            if sum("/query" in part["url"] for part in parts) > 5:
                raise Refused(400, "PROCESSING_HALTED", "at most 5 queries")
            if all(part["method"] == "GET" for part in parts):
                # A call that only asks is no write, though it is a POST.
                self.calls[f"POST {request.path}"] -= 1
                self.calls[f"POST {request.path}/query"] += 1
            _, answers = self._run(parts, bool(body.get("allOrNone")))
            return make(200, {"compositeResponse": answers})

    def _graphs(self) -> Response:
        with self.lock:
            graphs = (request.get_json(silent=True) or {}).get("graphs")
            if not isinstance(graphs, list) or not 0 < len(graphs) <= 75:
                raise Refused(400, "PROCESSING_HALTED", "between 1 and 75 graphs")
            if sum(len(graph["compositeRequest"]) for graph in graphs) > 500:
                raise Refused(400, "LIMIT_EXCEEDED", "at most 500 nodes")
            answers, failed = [], 0
            for graph in graphs:
                parts = graph["compositeRequest"]
                if failed > 14:
                    good, nodes = False, [self._halted(part) for part in parts]
                else:
                    self._check_graph(parts)
                    good, nodes = self._run(parts, True)
                failed += not good
                entry = {"graphId": graph["graphId"], "isSuccessful": good}
                answers.append({**entry, "graphResponse": {"compositeResponse": nodes}})
            return make(200, {"graphs": answers})

    def _collection(self) -> Response:
        """Update up to 200 records, each for itself; here nothing in a text is a reference.

        https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobjects_collections_update.htm
        """
        with self.lock:
            body = request.get_json(silent=True) or {}
            records = body.get("records")
            if not isinstance(records, list) or not 0 < len(records) <= 200:
                raise Refused(400, "JSON_PARSER_ERROR", "between 1 and 200 records")
            answers = []
            for record in records:
                values = {k: v for k, v in record.items() if k not in ("attributes", "id")}
                path = f"{DATA}/sobjects/{record['attributes']['type']}/{record['id']}"
                try:
                    self._do("PATCH", path, values)
                    answers.append({"id": record["id"], "success": True, "errors": []})
                except Refused as error:
                    told = error.body[0]
                    errors = [
                        {"statusCode": told["errorCode"], "message": told["message"],
                         "fields": told.get("fields", [])}
                    ]  # fmt: skip
                    answers.append({"success": False, "errors": errors})
            return make(200, answers)

    def _check_graph(self, parts: list[Record]) -> None:
        kinds = set()
        for part in parts:
            if "/query" in part["url"] or part["method"] not in ("GET", "POST", "PATCH", "DELETE"):
                raise Refused(400, "INVALID_INPUT", "a graph takes record URLs only")
            unknown = set(part) - {"method", "url", "referenceId", "body"}
            if unknown:
                message = f"Unrecognized field {unknown.pop()!r}"
                raise Refused(400, "JSON_PARSER_ERROR", message)
            kinds.add((part["method"], part["url"].split("/")[5]))
        if len(kinds) > 15:
            raise Refused(400, "LIMIT_EXCEEDED", "at most 15 kinds of nodes")

    def _halted(self, part: Record) -> Record:
        message = "The transaction was rolled back since another operation in the same transaction failed."  # fmt: skip
        body = [{"errorCode": "PROCESSING_HALTED", "message": message}]
        return {"referenceId": part["referenceId"], "httpStatusCode": 400, "body": body}

    def _run(self, parts: list[Record], all_or_none: bool) -> tuple[bool, list[Record]]:
        self._undo.clear()
        answers: list[Record] = []
        made: dict[str, Any] = {}
        for number, part in enumerate(parts):
            name = part["referenceId"]
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise Refused(400, "INVALID_INPUT", f"referenceId {name}")
            self._part = part
            try:
                status, body = self._do(
                    part["method"], filled(part["url"], made), filled(part.get("body"), made)
                )
            except Refused as error:
                answers.append(
                    {"referenceId": name, "httpStatusCode": error.status, "body": error.body}
                )
                if all_or_none:
                    for undo in reversed(self._undo):
                        undo()
                    halted = [self._halted(p) for p in parts]
                    halted[number] = answers[-1]
                    return False, halted
                continue
            finally:
                self._part = None
            made[name] = body
            answers.append({"referenceId": name, "httpStatusCode": status, "body": body})
        return all(answer["httpStatusCode"] < 300 for answer in answers), answers

    # Schema

    def _describe(self, sobject: str) -> Response:
        with self.lock:
            self._table(sobject)
            rows = [
                {"name": name, "label": name, "nillable": self._nillable(sobject, name),
                 "defaultedOnCreate": name in DEFAULTED,
                 "createable": not self._read_only(sobject, name)
                 and name in self._names(sobject, "write"),
                 "unique": bool(self.custom[sobject].get(name, {}).get("unique")),
                 "custom": name in self.custom[sobject], **self._type_of(sobject, name),
                 # Long texts are not indexed, and no query may ask for what stands in them.
                 "filterable": FIELDS[sobject].get(name) != 32_000}
                for name in sorted(self._names(sobject, "describe"))
            ]  # fmt: skip
            return make(200, {"name": sobject, "fields": rows})

    def _nillable(self, sobject: str, name: str) -> bool:
        filled = name in REQUIRED.get(sobject, []) or name in DEFAULTED
        return not filled and self._kind(sobject, name) != "flag"

    def _type_of(self, sobject: str, name: str) -> Record:
        custom = self.custom[sobject].get(name, {})
        kind = self._kind(sobject, name)
        values = list(custom.get("values", ()))
        if name == "StageName":
            values = [row["ApiName"] for row in self.tables["OpportunityStage"].values()]
        if isinstance(kind, tuple) and kind[0] == "pick":
            kind, values = "pick", list(kind[1:])
        options = [{"value": v, "label": v, "active": True} for v in values]
        if values:
            several = custom.get("type") == "MultiselectPicklist"
            return {"type": "multipicklist" if several else "picklist", "length": 255,
                    "restrictedPicklist": custom.get("restricted", True),
                    "picklistValues": options}  # fmt: skip
        if isinstance(kind, int):
            most = self.account.units.get((sobject, name), kind)
            told = TEXT_TYPES.get(custom.get("type", ""), "string")
            return {"type": told, "length": most, "picklistValues": []}
        named = kind if isinstance(kind, str) else ""
        told = {"type": TYPES.get(named, "reference"), "length": 0, "picklistValues": []}
        if told["type"] == "reference":
            told["referenceTo"] = [kind] if isinstance(kind, str) else list(kind)
        if named in ("number", "double", "percent"):
            told |= {"precision": custom.get("precision", 18), "scale": custom.get("scale", 2)}
        return told

    def _make_field(self) -> Response:
        with self.lock:
            body = request.get_json(silent=True) or {}
            owner, _, name = body.get("FullName", "").partition(".")
            target = "Event" if owner == "Activity" else owner
            if target not in self.custom or not name.endswith("__c"):
                raise Refused(400, "FIELD_INTEGRITY_EXCEPTION", "FullName is not usable")
            if name in self.custom[target]:
                raise Refused(400, "DUPLICATE_DEVELOPER_NAME", f"{name} exists")
            made = dict(body["Metadata"])
            listed = made.pop("valueSet", None)
            if made.get("type") in ("Picklist", "MultiselectPicklist"):
                if not listed or not listed["valueSetDefinition"]["value"]:
                    raise Refused(400, "FIELD_INTEGRITY_EXCEPTION", "a list needs values")
                rows = listed["valueSetDefinition"]["value"]
                made |= {"values": [row["fullName"] for row in rows],
                         "restricted": bool(listed.get("restricted"))}  # fmt: skip
            elif made.get("type") not in CUSTOM_TYPES:
                raise Refused(400, "INVALID_FIELD", f"there is no type {made.get('type')}")
            self.custom[target][name] = made
            # Made by API it is invisible until field-level security grants it.
            self.hidden.add((target, name))
            return make(201, {"id": "00N000000000001AAA", "success": True, "errors": []})

    def _userinfo(self) -> Response:
        return make(200, {"user_id": next(iter(self.tables["User"])), "organization_id": "00D"})

    # For tests and the page

    def drop_booking_fields(self) -> None:
        for fields in self.custom.values():
            fields.pop("meetergo_booking_id__c", None)

    def delete_meetings(self) -> None:
        self.tables["Event"].clear()
        self.tables["EventRelation"].clear()

    def view(self) -> View:
        users = {row["Id"]: row["Email"] for row in self.tables["User"].values()}
        contacts = [
            Contact(
                r["Id"], r.get("Email"), r.get("Phone"), r.get("FirstName"), r.get("LastName"),
                r.get("AccountId"), users.get(r.get("OwnerId", "")),
            )
            for r in self.tables["Contact"].values()
        ]  # fmt: skip
        companies = [
            Company(r["Id"], r["Name"], r.get("Website")) for r in self.tables["Account"].values()
        ]
        roles = list(self.tables["OpportunityContactRole"].values())
        deals = [
            Deal(
                r["Id"], r["Name"], r["StageName"],
                [x["ContactId"] for x in roles if x["OpportunityId"] == r["Id"]],
                r.get("AccountId"), r.get("meetergo_booking_id__c"), users.get(r.get("OwnerId", "")),
            )
            for r in self.tables["Opportunity"].values()
        ]  # fmt: skip
        return View(contacts, companies, deals, [self._meeting(r, users) for r in
                                                 self.tables["Event"].values()])  # fmt: skip

    def _meeting(self, r: Record, users: dict[str, str]) -> Meeting:
        start, end = (datetime.fromisoformat(r[key]) for key in ("StartDateTime", "EndDateTime"))
        others = [
            x["RelationId"]
            for x in self.tables["EventRelation"].values()
            if x["EventId"] == r["Id"]
        ]
        what = r.get("WhatId") or ""
        return Meeting(
            r["Id"], r.get("Subject"), start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            int((end - start).total_seconds() // 60),
            (r.get("Subject") or "").startswith("Cancelled") and r.get("ShowAs") == "Free",
            r.get("Location"), r.get("Description") or "",
            [who for who in (r.get("WhoId"),) if who] + others,
            what if what.startswith("006") else None, users.get(r.get("OwnerId", "")),
        )  # fmt: skip
