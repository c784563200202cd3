"""The fields of an object, and the creation of custom ones."""

from __future__ import annotations

import hashlib

from flask import Response, request

from sandbox.answers import make
from sandbox.pipedrive.paging import page_of_rows
from sandbox.pipedrive.presence import must_show, types_of
from sandbox.pipedrive.refused import unfit
from sandbox.pipedrive.schema import FIELD_TYPES, FIELDS, NATIVE_OPTIONS, TYPES
from sandbox.pipedrive.state import PipedriveState

MADE = {"varchar", "text", "double", "phone", "date", "daterange", "time", "timerange", "set", "enum",
        "varchar_auto", "address", "monetary", "org", "people", "user"}  # fmt: skip
"""The types for custom fields: there is no yes-or-no type."""


def serve_fields(crm: PipedriveState, kind: str) -> Response:
    """List the fields of an object, or create a custom one."""
    with crm.lock:
        target = FIELDS[kind]
        must_show(crm, target)
        if request.method == "GET":
            native = [
                {"field_code": key, "field_name": key,
                 "field_type": FIELD_TYPES.get(key, TYPES[kind_]),
                 "options": [{"id": i, "label": label}
                             for i, label in NATIVE_OPTIONS.get(key, ())]}
                for key, kind_ in types_of(crm, target, "describe").items()
                if key != "custom_fields"
            ]  # fmt: skip
            return page_of_rows(native + list(crm.custom[target].values()))
        body = request.get_json(silent=True) or {}
        if set(body) - {"field_name", "field_type", "options"} or "field_name" not in body:
            raise unfit("body: unknown or missing key")
        listed = body.get("field_type") in ("enum", "set")
        if body.get("field_type") not in MADE or listed is not bool(body.get("options")):
            raise unfit("field_type: is not allowed, or its options")
        seed = f"{target}{body['field_name']}{len(crm.custom[target])}"
        key = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
        options = [
            {"id": number, "label": option["label"]}
            for number, option in enumerate(body.get("options") or (), 1)
        ]
        field = {"field_code": key, **body, **({"options": options} if options else {})}
        crm.custom[target][key] = field
        return make(200, {"success": True, "data": field})
