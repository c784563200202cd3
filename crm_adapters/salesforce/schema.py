"""What a Salesforce org tells of itself: fields, users, stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.domain.records import Choice, CrmField, Kind, Pipeline, Stage
from app.outbound.reply import Json, a_text, an_id, some_objects, some_text

KINDS = {
    # https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/field_types.htm
    "string": Kind.TEXT, "textarea": Kind.TEXT, "email": Kind.TEXT, "phone": Kind.TEXT,
    "url": Kind.TEXT, "double": Kind.NUMBER, "currency": Kind.NUMBER, "percent": Kind.NUMBER,
    "int": Kind.WHOLE, "boolean": Kind.FLAG, "date": Kind.DATE, "datetime": Kind.MOMENT,
    "time": Kind.TIME, "picklist": Kind.CHOICE, "multipicklist": Kind.CHOICES,
    "combobox": Kind.TEXT, "reference": Kind.REFERENCE, "id": Kind.REFERENCE,
}  # fmt: skip


def field_of(item: Json) -> CrmField:
    """A field of a describe."""
    options = [o for o in some_objects(item, "picklistValues") if o.get("active", True)]
    kind = KINDS.get(some_text(item, "type"), Kind.OTHER)
    # A list that is not restricted takes any text.
    if kind is Kind.CHOICE and not (options and item.get("restrictedPicklist")):
        kind = Kind.TEXT
    length, name = item.get("length"), a_text(item, "name")
    filled = item.get("nillable") or item.get("defaultedOnCreate") or item.get("type") == "boolean"
    return CrmField(
        name,
        some_text(item, "label") or name,
        kind,
        required=not filled,
        unique=item.get("unique") is True,
        writable=item.get("createable") is True,
        options=tuple(
            Choice(a_text(o, "value"), some_text(o, "label") or a_text(o, "value")) for o in options
        ),
        length=length if isinstance(length, int) and length > 0 else None,
        custom=item.get("custom") is True,
        searchable=item.get("filterable", True) is not False,
    )


def owners_of(users: Iterable[Json], notes: list[str]) -> dict[str, str]:
    """E-mail in lower case -> id of the active users who can own records.

    The address is not unique among users, the user name is: of several who can own the first id
    counts, and that is told.
    """
    by_email: dict[str, list[Json]] = {}
    for user in users:
        email = some_text(user, "Email").strip().lower()
        # Portal and Chatter users can own nothing.
        if email and some_text(user, "UserType") in ("", "Standard"):
            by_email.setdefault(email, []).append(user)
    owners = {}
    for email, found in by_email.items():
        found.sort(key=lambda user: an_id(user, "Id"))
        owners[email] = an_id(found[0], "Id")
        if len(found) > 1:
            notes.append(f"{len(found)} users have the address {email}; {owners[email]} is taken.")
    return owners


def stages_of(rows_: Sequence[Json]) -> tuple[Pipeline, ...]:
    """The opportunity's stages as the one pipeline that there is."""
    stages = tuple(
        Stage(
            a_text(row, "ApiName"),
            some_text(row, "MasterLabel") or a_text(row, "ApiName"),
            row.get("IsClosed") is True,
        )
        for row in rows_
    )
    return (Pipeline("opportunity", "Opportunity", stages),)
