"""Pipedrive's objects: the bodies of v2, their types and options."""

from __future__ import annotations

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
"""The keys that v2 accepts in a body; all others are refused."""
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
FIELDS = {"personFields": "persons", "organizationFields": "organizations", "dealFields": "deals",
          "activityFields": "activities"}  # fmt: skip
NULLABLE = {"person_id", "org_id", "deal_id", "location", "note", "probability", "lost_reason"}
PATTERNS = {"due_date": r"\d{4}-\d\d-\d\d", "due_time": r"\d\d:\d\d(:\d\d)?", "duration": r"\d\d:\d\d(:\d\d)?"}  # fmt: skip
