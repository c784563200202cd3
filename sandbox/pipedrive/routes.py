"""The paths of v1 and v2, and their functions."""

from __future__ import annotations

from functools import partial

from sandbox.pipedrive import company, fields, leads, participants, records, search
from sandbox.pipedrive.paging import page_of_rows
from sandbox.pipedrive.refused import PipedriveRefused
from sandbox.pipedrive.schema import FIELDS
from sandbox.pipedrive.state import PipedriveState


def add_routes(crm: PipedriveState) -> None:
    """Add the API's paths to a company account."""
    crm.app.register_error_handler(PipedriveRefused, lambda error: error.response())
    _add_v2(crm)
    _add_v1(crm)


def _add_v2(crm: PipedriveState) -> None:
    add = crm.app.add_url_rule
    kinds = "any(persons,organizations,deals,activities)"
    many, one = partial(records.many_records, crm), partial(records.one_record, crm)
    add(f"/api/v2/<{kinds}:kind>", "many", many, methods=["GET", "POST"])
    add(f"/api/v2/<{kinds}:kind>/search", "search", partial(search.search_records, crm))
    add(f"/api/v2/<{kinds}:kind>/<int:number>", "one", one, methods=["GET", "PATCH", "DELETE"])
    described = f"/api/v2/<any({','.join(FIELDS)}):kind>"
    add(described, "fields", partial(fields.serve_fields, crm), methods=["GET", "POST"])
    add("/api/v2/pipelines", "pipelines", lambda: page_of_rows(crm.pipelines))
    add("/api/v2/stages", "stages", lambda: page_of_rows(crm.stages))
    add("/api/v2/leads/search", "search_leads", partial(search.search_leads, crm))


def _add_v1(crm: PipedriveState) -> None:
    add = crm.app.add_url_rule
    add("/v1/leads", "leads", partial(leads.many_leads, crm), methods=["GET", "POST"])
    one = partial(leads.one_lead, crm)
    add("/v1/leads/<lead_id>", "lead", one, methods=["GET", "PATCH", "DELETE"])
    add("/v1/users", "users", partial(company.list_users, crm))
    add("/v1/users/me", "me", partial(company.show_me, crm))
    row = "/v1/deals/<int:deal_id>/participants"
    people = partial(participants.serve_participants, crm)
    add(row, "participants", people, methods=["GET", "POST"])
    person = partial(participants.drop_participant, crm)
    add(f"{row}/<int:row_id>", "participant", person, methods=["DELETE"])
