"""The JSON Schema of mapping files, made from the pydantic models, so that editors can check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from app.mapping.paths import FIXED, PATTERNS
from app.mapping.schema import MappingFile, Rules
from app.mapping.transforms import PLAIN, WITH_ARGUMENT
from app.mapping.value_source import PART


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of mapping files, for completion and checks in editors."""
    schema = TypeAdapter(MappingFile).json_schema(by_alias=True, mode="validation")
    rules = TypeAdapter(Rules).json_schema(by_alias=True, mode="validation")
    schema, rules = _pointed(schema), _pointed(rules)
    definitions = schema.pop("$defs") | rules.pop("$defs") | {"Override": rules} | _handwritten()
    override = {"anyOf": [{"$ref": "#/$defs/Override"}, {"type": "null"}]}
    for key in ("meeting_types", "hosts"):
        schema["properties"][key]["additionalProperties"] = override
    address = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": address, **schema, "title": "meetergo mapping file", "$defs": definitions}


def _pointed(node: Any) -> Any:
    """Return a generated schema that refers to the parts in _handwritten."""
    if isinstance(node, list):
        return [_pointed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        "$ref" if key == PART else key: f"#/$defs/{value}" if key == PART else _pointed(value)
        for key, value in node.items()
    }


def _handwritten() -> dict[str, Any]:
    """Return the parts that pydantic sees as any text or table: paths, transforms and conditions."""
    path: dict[str, Any] = {"anyOf": [{"enum": sorted(FIXED)}, *({"pattern": p} for p in PATTERNS)]}
    scalar: dict[str, Any] = {"type": ["string", "number", "boolean"]}
    texts = {"type": "array", "items": {"type": "string"}}
    arguments: dict[Any, dict[str, Any]] = {
        int: {"type": "integer"},
        str: {"type": "string"},
        Mapping: {"type": "object", "minProperties": 1},
    }
    wanted = {"$ref": "#/$defs/Wanted"}
    some = {"anyOf": [scalar, {"type": "array", "items": scalar, "minItems": 1}]}
    tests = {
        "not": wanted, "contains": some, "starts_with": some, "above": {"type": "number"},
        "below": {"type": "number"}, "empty": {"type": "boolean"},
    }  # fmt: skip
    one_of = {"minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    transform = {
        "anyOf": [
            {"enum": list(PLAIN)},
            {
                "type": "object",
                "properties": {
                    name: arguments.get(kind, {"anyOf": [scalar, texts]})
                    for name, (kind, _) in WITH_ARGUMENT.items()
                },
                **one_of,
            },
        ]
    }
    conditions = {"type": "array", "items": {"$ref": "#/$defs/Condition"}, "minItems": 1}
    return {
        "Path": {"type": "string", **path},
        "Transforms": {"anyOf": [transform, {"type": "array", "items": transform}]},
        "Condition": {
            "type": "object",
            "properties": {"any": conditions, "all": conditions},
            "additionalProperties": wanted,
            "propertyNames": {"anyOf": [{"enum": ["any", "all"]}, {"$ref": "#/$defs/Path"}]},
        },
        "Wanted": {
            "anyOf": [
                scalar,
                {"type": "null"},
                {"type": "array", "items": wanted, "minItems": 1},
                {"type": "object", "properties": tests, **one_of},
            ]
        },
    }
