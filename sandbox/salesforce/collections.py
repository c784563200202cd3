"""Several records in one call, independent of each other."""

from __future__ import annotations

from flask import Response, request

from sandbox.answers import make
from sandbox.salesforce.paths import DATA
from sandbox.salesforce.records import do
from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.state import SalesforceState


def serve_collection(crm: SalesforceState) -> Response:
    """Update up to 200 independent records; in this call, no text is read as a reference.

    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobjects_collections_update.htm
    """
    with crm.lock:
        body = request.get_json(silent=True) or {}
        records = body.get("records")
        if not isinstance(records, list) or not 0 < len(records) <= 200:
            raise SalesforceRefused(400, "JSON_PARSER_ERROR", "between 1 and 200 records")
        answers = []
        for record in records:
            values = {k: v for k, v in record.items() if k not in ("attributes", "id")}
            path = f"{DATA}/sobjects/{record['attributes']['type']}/{record['id']}"
            try:
                do(crm, "PATCH", path, values)
                answers.append({"id": record["id"], "success": True, "errors": []})
            except SalesforceRefused as error:
                told = error.body[0]
                errors = [
                    {"statusCode": told["errorCode"], "message": told["message"],
                     "fields": told.get("fields", [])}
                ]  # fmt: skip
                answers.append({"success": False, "errors": errors})
        return make(200, answers)
