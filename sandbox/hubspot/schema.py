"""The properties of HubSpot's objects, as describe returns them."""

from __future__ import annotations

from typing import Any

from sandbox.answers import Record

TEXT, NUMBER, DATE = "string", "number", "datetime"
GROUPS = {"contacts": "contactinformation", "companies": "companyinformation",
          "deals": "dealinformation"}  # fmt: skip
"""Object -> the group of its standard properties."""
SEARCHABLE = {"hs_searchable_calculated_phone_number": "phone",
              "hs_searchable_calculated_mobile_number": "mobilephone"}  # fmt: skip
"""Property that is computed for the search -> its source property."""
DEMANDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "contacts": (("email", "firstname", "lastname"),),
    "companies": (("name", "domain"),),
    "deals": (("dealname",), ("dealstage",)),
    "meetings": (("hs_timestamp",),),
}
"""A new record needs one property of each group, according to the guides of the objects, such as
https://developers.hubspot.com/docs/api-reference/2026-03/crm/objects/deals/guide. A meeting
without hs_timestamp gets its start time.
"""


def new_property(name: str, kind: str = TEXT, options: tuple[str, ...] = (), **more: Any) -> Record:
    """Return a property as HubSpot describes it; `more`: values that differ from the usual ones."""
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
    """Return the keys that mark a property as holding a user of the portal."""
    if name != "hubspot_owner_id":
        return {}
    return {"referencedObjectType": "OWNER", "externalOptions": True}


def new_schema() -> dict[str, dict[str, Record]]:
    """Return object -> name -> property of a new portal."""
    outcome = ("SCHEDULED", "COMPLETED", "RESCHEDULED", "NO_SHOW", "CANCELED")
    entries = {
        "contacts": [
            new_property("email"), new_property("firstname"), new_property("lastname"),
            new_property("phone"),
            new_property("mobilephone"), new_property("hs_whatsapp_phone_number"),
            *(new_property(name, read_only=True) for name in SEARCHABLE),
            new_property("country"), new_property("hs_country_region_code"),
            new_property("hubspot_owner_id", "enumeration"),
            new_property("jobtitle"), new_property("date_of_birth"),
            new_property("lifecyclestage", "enumeration", ("lead", "customer")),
            new_property("hs_buying_role", "enumeration", ("CHAMPION", "END_USER", "BUDGET_HOLDER"),
                      fieldType="checkbox"),
            new_property("hs_additional_emails", read_only=True),
            new_property("num_associated_deals", NUMBER, read_only=True),
        ],
        "companies": [new_property("name"), new_property("domain"), new_property("phone"),
                      new_property("hs_additional_domains"),
                      new_property("hubspot_owner_id", "enumeration")],
        "deals": [
            new_property("dealname"), new_property("amount", NUMBER), new_property("closedate", DATE),
            new_property("pipeline", "enumeration"), new_property("dealstage", "enumeration"),
            new_property("description"), new_property("hubspot_owner_id", "enumeration"),
            new_property("hs_is_closed", "bool", read_only=True),
        ],
        "meetings": [
            new_property("hs_timestamp", DATE), new_property("hs_meeting_title"),
            new_property("hs_meeting_body"), new_property("hs_meeting_start_time", DATE),
            new_property("hs_meeting_end_time", DATE), new_property("hs_meeting_location"),
            new_property("hs_meeting_external_url"), new_property("hs_activity_type"),
            new_property("hs_meeting_outcome", "enumeration", outcome),
            new_property("hubspot_owner_id", "enumeration"),
        ],
    }  # fmt: skip
    return {
        name: {
            item["name"]: {**item, **_owned(item["name"]), "groupName": GROUPS.get(name, "")}
            for item in items
        }
        for name, items in entries.items()
    }
