"""References in a part of a composite call to results of earlier parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sandbox.salesforce.refused import SalesforceRefused

_REFERENCE = re.compile(r"@\{([^{}]*)\}")


def filled(value: Any, made: Mapping[str, Any]) -> Any:
    """Return a part of a composite call with results of earlier parts in place of @{ref.field}.

    Every text is searched: any such braces are read as a reference. Raises SalesforceRefused as
    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/using_resources_composite.htm
    """
    if isinstance(value, dict):
        return {key: filled(item, made) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, made) for item in value]
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda match: _looked_up(match[1], made), value)


def _looked_up(reference: str, made: Mapping[str, Any]) -> str:
    name, *steps = [part for part in re.split(r"[.\[\]]", reference) if part] or [""]
    value = made.get(name)
    for step in steps:
        if isinstance(value, list):
            value = value[int(step)] if step.isdigit() and int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    if not steps or value is None or isinstance(value, (dict, list)):
        raise SalesforceRefused(
            400, "PROCESSING_HALTED",
            f"Invalid reference specified. No value for {reference} found in {name}. Provided "
            f"referenceId ('{reference}') must start with a letter or a number, and it can contain "
            "only letters, numbers and underscores ('_').",
        )  # fmt: skip
    return str(value).lower() if isinstance(value, bool) else str(value)
