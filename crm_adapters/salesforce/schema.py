"""Reads what a Salesforce org reports of itself: fields, users, stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.crm.schema import CrmField, FieldKind, FieldOption, Pipeline, Stage
from app.outbound.reply import Json, a_text, an_id, some_objects, some_text

KINDS = {
    # https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/field_types.htm
    # Other types take no value: address and location are written by their parts, base64 and anyType
    # by no mapping file, and a formula or an auto-number is not createable.
    "string": FieldKind.TEXT, "textarea": FieldKind.TEXT, "email": FieldKind.TEXT,
    "phone": FieldKind.TEXT,
    "url": FieldKind.TEXT, "encryptedstring": FieldKind.TEXT, "combobox": FieldKind.TEXT,
    "double": FieldKind.NUMBER, "currency": FieldKind.NUMBER, "percent": FieldKind.NUMBER,
    "int": FieldKind.WHOLE, "long": FieldKind.WHOLE, "boolean": FieldKind.FLAG, "date": FieldKind.DATE,
    "datetime": FieldKind.MOMENT, "time": FieldKind.TIME, "picklist": FieldKind.CHOICE,
    "multipicklist": FieldKind.CHOICES, "reference": FieldKind.REFERENCE, "id": FieldKind.REFERENCE,
}  # fmt: skip
RECORD_FORM = r"[a-zA-Z0-9]{15}(?:[a-zA-Z0-9]{3})?"


def field_of(item: Json, users: tuple[FieldOption, ...] = ()) -> CrmField:
    """Return a field of a describe; `users` are the allowed values of a field for users only."""
    options = [o for o in some_objects(item, "picklistValues") if o.get("active", True)]
    kind = KINDS.get(some_text(item, "type"), FieldKind.OTHER)
    # A picklist that is not restricted accepts any text.
    free = not (options and item.get("restrictedPicklist"))
    if kind is FieldKind.CHOICE and free:
        kind = FieldKind.TEXT
    length, name = item.get("length"), a_text(item, "name")
    filled = item.get("nillable") or item.get("defaultedOnCreate") or item.get("type") == "boolean"
    choices = tuple(
        FieldOption(a_text(o, "value"), some_text(o, "label") or a_text(o, "value"))
        for o in options
    )
    targets = item.get("referenceTo")
    if kind is FieldKind.REFERENCE and (targets == ["User"] or name == "OwnerId"):
        kind, choices = FieldKind.USER, users
    return CrmField(
        name,
        some_text(item, "label") or name,
        kind,
        required=not filled,
        unique=item.get("unique") is True,
        writable=item.get("createable") is True and kind is not FieldKind.OTHER,
        options=choices,
        form=RECORD_FORM if kind in (FieldKind.USER, FieldKind.REFERENCE) else "",
        most=_most(item) if kind in (FieldKind.NUMBER, FieldKind.WHOLE) else None,
        empties=item.get("nillable") is True,
        length=length if isinstance(length, int) and length > 0 else None,
        custom=item.get("custom") is True,
        searchable=item.get("filterable", True) is not False,
    )


def _most(item: Json) -> float | None:
    """Return the largest amount: `precision` digits, of which `scale` are behind the decimal point."""
    digits, precision, scale = item.get("digits"), item.get("precision"), item.get("scale")
    if some_text(item, "type") == "int" and isinstance(digits, int) and 0 < digits <= 18:
        return float(10**digits - 1)
    if isinstance(precision, int) and isinstance(scale, int) and 0 < precision - scale <= 18:
        return float(10 ** (precision - scale)) - 10.0**-scale
    return None


def users_of(users: Iterable[Json]) -> tuple[FieldOption, ...]:
    """Return id and e-mail address of the active users."""
    return tuple(
        FieldOption(an_id(user, "Id"), some_text(user, "Email").strip().lower()) for user in users
    )


def owners_of(users: Iterable[Json], notes: list[str]) -> dict[str, str]:
    """Return e-mail in lower case -> id of the active users who can own records.

    Several users may have one address; only the user name is unique. Of several possible owners the
    first id counts, and a note reports it.
    """
    by_email: dict[str, list[Json]] = {}
    for user in users:
        email = some_text(user, "Email").strip().lower()
        # Portal and Chatter users cannot own records.
        if email and some_text(user, "UserType") in ("", "Standard"):
            by_email.setdefault(email, []).append(user)
    owners = {}
    for email, found in by_email.items():
        found.sort(key=lambda user: an_id(user, "Id"))
        owners[email] = an_id(found[0], "Id")
        if len(found) > 1:
            notes.append(f"{len(found)} users have the address {email}; {owners[email]} is used.")
    return owners


def stages_of(rows_: Sequence[Json]) -> tuple[Pipeline, ...]:
    """Return the opportunity's stages as the only pipeline."""
    stages = tuple(
        Stage(
            a_text(row, "ApiName"),
            some_text(row, "MasterLabel") or a_text(row, "ApiName"),
            row.get("IsClosed") is True,
        )
        for row in rows_
    )
    return (Pipeline("opportunity", "Opportunity", stages),)
