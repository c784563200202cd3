"""The API's paths and their functions."""

from __future__ import annotations

from functools import partial

from flask import Response, request

from sandbox.answers import make
from sandbox.salesforce import collections, composite, custom_fields, describe, queries, records
from sandbox.salesforce.paths import DATA
from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.state import SalesforceState


def add_routes(crm: SalesforceState) -> None:
    """Add the API's paths to an org."""
    crm.app.register_error_handler(SalesforceRefused, lambda error: make(error.status, error.body))
    add = crm.app.add_url_rule
    add("/services/oauth2/userinfo", "userinfo", partial(_show_user, crm))
    query = partial(_query, crm)
    add(f"{DATA}/query", "query", query)
    add(f"{DATA}/query/", "query_slash", query)
    add(f"{DATA}/queryAll", "query_all", partial(_query_all, crm))
    parts = partial(composite.serve_composite, crm)
    add(f"{DATA}/composite", "composite", parts, methods=["POST"])
    graphs = partial(composite.serve_graphs, crm)
    add(f"{DATA}/composite/graph", "graph", graphs, methods=["POST"])
    several = partial(collections.serve_collection, crm)
    add(f"{DATA}/composite/sobjects", "collection", several, methods=["PATCH"])
    described = partial(describe.serve_describe, crm)
    add(f"{DATA}/sobjects/<sobject>/describe", "describe", described)
    field = partial(custom_fields.make_field, crm)
    add(f"{DATA}/tooling/sobjects/CustomField", "field", field, methods=["POST"])
    one = partial(records.serve_sobject, crm)
    add(f"{DATA}/sobjects/<path:rest>", "sobject", one, methods=["GET", "POST", "PATCH", "DELETE"])


def _show_user(crm: SalesforceState) -> Response:
    return make(200, {"user_id": next(iter(crm.tables["User"])), "organization_id": "00D"})


def _query(crm: SalesforceState) -> Response:
    return make(200, queries.query(crm, request.args.get("q", "")))


def _query_all(crm: SalesforceState) -> Response:
    return make(200, queries.query_all(crm, request.args["q"]))
