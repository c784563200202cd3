"""The API's paths and their functions."""

from __future__ import annotations

from functools import partial

from sandbox.hubspot import about, batches, links, properties, records, search
from sandbox.hubspot.refused import HubSpotRefused
from sandbox.hubspot.state import HubSpotState

VERSION = "2026-09"


def add_routes(crm: HubSpotState) -> None:
    """Add the API's paths to a portal."""
    crm.app.register_error_handler(HubSpotRefused, lambda error: error.response())
    add = crm.app.add_url_rule
    objects = f"/crm/objects/{VERSION}/<kind>"
    batch = partial(batches.serve_batch, crm)
    add(f"{objects}/batch/<action>", "batch", batch, methods=["POST"])
    add(f"{objects}/search", "search", partial(search.serve_search, crm), methods=["POST"])
    add(objects, "list", partial(records.list_records, crm))
    one = partial(records.one_record, crm)
    add(f"{objects}/<record_id>", "one", one, methods=["GET", "DELETE"])
    linked = f"/crm/associations/{VERSION}/<source>/<target>/batch/<action>"
    add(linked, "links", partial(links.serve_links, crm), methods=["POST"])
    described = f"/crm/properties/{VERSION}/<kind>"
    listed = partial(properties.serve_properties, crm)
    add(described, "properties", listed, methods=["GET", "POST"])
    add(f"/crm/pipelines/{VERSION}/deals", "pipelines", partial(about.list_pipelines, crm))
    add(f"/crm/owners/{VERSION}", "owners", partial(about.list_owners, crm))
    add(f"/account-info/{VERSION}/details", "details", partial(about.show_details, crm))
