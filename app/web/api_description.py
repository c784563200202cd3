"""The API in OpenAPI 3.1, described by the types of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from app.domain.booking import MeetingOutcome
from app.services.erasure import Erased
from app.services.mapping_trial import AccountPreview
from app.services.overview import BookingView, ConnectionView
from app.services.sources import SourceView
from app.store.erasure import PersonRecord
from app.store.states import DeliveryState


@dataclass(frozen=True)
class Bookings:
    """Some bookings."""

    bookings: tuple[BookingView, ...]


@dataclass(frozen=True)
class Preview:
    """What a sync of one booking would do."""

    key: str
    accounts: tuple[AccountPreview, ...]


@dataclass(frozen=True)
class Outcome:
    """How a meeting went."""

    key: str
    outcome: MeetingOutcome | None


@dataclass(frozen=True)
class OutcomeRequest:
    """The outcome to set, or null to take it back."""

    outcome: MeetingOutcome | None


@dataclass(frozen=True)
class SourceList:
    """The meetergo workspaces."""

    sources: tuple[SourceView, ...]


@dataclass(frozen=True)
class ConnectionList:
    """The CRM accounts."""

    connections: tuple[ConnectionView, ...]


@dataclass(frozen=True)
class ExportRequest:
    """The person whose data is wanted."""

    email: str


@dataclass(frozen=True)
class ErasureRequest:
    """A person to erase, and what happens to their records in the CRMs."""

    email: str
    crm_records: Literal["list", "delete"] = "list"


@dataclass(frozen=True)
class Export:
    """All that is held on a person."""

    person: dict[str, Any]
    bookings: list[dict[str, Any]]
    webhooks: list[dict[str, Any]]
    crm_records: list[PersonRecord]


@dataclass(frozen=True)
class ErrorText:
    """What went wrong."""

    code: str
    message: str


@dataclass(frozen=True)
class Error:
    """The body of every answer with a status of 400 or above."""

    error: ErrorText


_ANSWERS = (
    Bookings,
    BookingView,
    Preview,
    Outcome,
    SourceList,
    ConnectionList,
    Export,
    Erased,
    Error,
)
_BODIES = (OutcomeRequest, ExportRequest, ErasureRequest)
_PLACE = "#/components/schemas/{model}"


def describe(most_bookings: int) -> dict[str, Any]:
    """Return the description of the API. `most_bookings`: the most in one answer."""
    number = {"in": "query", "schema": {"type": "integer", "minimum": 0}}
    limit = {"type": "integer", "minimum": 1, "maximum": most_bookings}
    state = {"type": "string", "enum": [state.value for state in DeliveryState]}
    key = {
        "name": "key",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": "The booking's key (source:id), or its id in the default source",
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "meetergo CRM bridge", "version": "1"},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
        "paths": {
            "/api/v1/bookings": {
                "get": _operation(
                    "Bookings that changed last",
                    Bookings,
                    {"name": "limit", "in": "query", "schema": limit},
                    {"name": "offset", **number},
                    {
                        "name": "state",
                        "in": "query",
                        "description": "Only bookings with this state in at least one CRM",
                        "schema": state,
                    },
                )
            },
            "/api/v1/bookings/{key}": {"get": _operation("One booking", BookingView, key)},
            "/api/v1/bookings/{key}/preview": {
                "get": _operation(
                    "What would be created, changed or left alone in one CRM, or in all of them",
                    Preview,
                    key,
                    {"name": "connection", **number},
                )
            },
            "/api/v1/bookings/{key}/outcome": {
                "post": _operation(
                    "Set how the meeting went; null takes the outcome back",
                    Outcome,
                    key,
                    body=OutcomeRequest,
                )
            },
            **_about_people(),
            "/api/v1/sources": {
                "get": _operation("meetergo workspaces and their state", SourceList)
            },
            "/api/v1/connections": {
                "get": _operation("CRM accounts and their state", ConnectionList)
            },
        },
    }


def _about_people() -> dict[str, Any]:
    """The calls about one person."""
    return {
        "/api/v1/privacy/export": {
            "post": _operation(
                "All that is held on a person, given by e-mail address", Export, body=ExportRequest
            )
        },
        "/api/v1/privacy/erase": {
            "post": _operation(
                "Erase a person; their records in the CRMs are listed, or deleted by choice",
                Erased,
                body=ErasureRequest,
            )
        },
    }


class _AllThere(GenerateJsonSchema):
    """Marks every field as required: an answer holds each field, even one with a default."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return self.mode == "serialization" or super().field_is_required(field, total)


def _schemas() -> dict[str, Any]:
    """JSON Schema of every type that the API sends or accepts, by name."""
    kinds: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        *((kind.__name__, "validation", TypeAdapter(kind)) for kind in _BODIES),
        *((kind.__name__, "serialization", TypeAdapter(kind)) for kind in _ANSWERS),
    ]
    _, found = TypeAdapter.json_schemas(kinds, ref_template=_PLACE, schema_generator=_AllThere)
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _as_json(words: str, kind: type) -> dict[str, Any]:
    place = {"$ref": _PLACE.format(model=kind.__name__)}
    return {"description": words, "content": {"application/json": {"schema": place}}}


def _operation(
    summary: str, answer: type, *parameters: dict[str, Any], body: type | None = None
) -> dict[str, Any]:
    refused = {"400": "The request is not valid", "401": "No valid key", "404": "Not found"}
    if body:
        refused["415"] = "The body is not JSON"
    return {
        "summary": summary,
        "parameters": list(parameters),
        "security": [{"key": []}],
        "responses": {
            "200": _as_json("The answer", answer),
            **{status: _as_json(words, Error) for status, words in refused.items()},
        },
        **({"requestBody": {"required": True, **_as_json("", body)}} if body else {}),
    }
