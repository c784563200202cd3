"""Parts that all adapters share: names, loading an adapter, reading the schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TypeVar

from app.crm.objects import ObjectName
from app.crm.port import Adapter
from app.crm.schema import CrmField
from app.domain.errors import (
    AccountMoved,
    AccountRefused,
    Gone,
    InvalidRecord,
)

T = TypeVar("T")


BOOKING_FIELD = "meetergo_booking_id"
"""Name of the custom field that holds the booking's id in every CRM."""


SEARCH_LAG = 15.0
"""Seconds until a search finds a new record; HubSpot and Pipedrive only say that it takes some."""


def load_adapter(path: str) -> type[Adapter]:
    """Load an adapter's class from `module:Class`, as providers.yaml gives it."""
    module, _, name = path.partition(":")
    adapter: type[Adapter] = getattr(import_module(module), name)
    return adapter


def confirmed(ask: Callable[[], T], probe: Callable[[], object]) -> T:
    """Return the answer to an optional question; the caller does without it if it is refused.

    A refusal may be part of an outage that passes in a moment. So `probe` makes a call that every
    account answers, and the question is asked again. Raises the error of that second try, or of
    `probe`.
    """
    try:
        return ask()
    except (AccountRefused, InvalidRecord):
        probe()
        return ask()


def read_schema(
    read: Callable[[ObjectName], dict[str, CrmField]],
    objects: Sequence[ObjectName],
    needed: frozenset[ObjectName] | None,
    called: Mapping[ObjectName, str] | None = None,
) -> tuple[dict[ObjectName, dict[str, CrmField]], list[str]]:
    """Return the fields of the objects that a mapping uses, and a sentence for each unreadable object.

    `called`: the CRM's names for its objects, if a user who may not read an object's fields may not
    write its records either. In that case, raises AccountRefused if the mapping needs the object.
    """
    schema: dict[ObjectName, dict[str, CrmField]] = {}
    notes: list[str] = []
    for name in objects:
        if needed is not None and name not in needed:
            continue
        try:
            schema[name] = read(name)
        except AccountMoved:
            raise  # The refusal is not about this object.
        except (Gone, AccountRefused, InvalidRecord) as error:
            if needed is not None and called:
                words = (
                    f"The account does not show {called[name]} records, which the mapping writes"
                )
                raise AccountRefused(f"{words}: {error.message}") from None
            notes.append(f"The fields of {name} records cannot be read: {error.message}")
    return schema, notes
