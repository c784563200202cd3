"""Finds the CRM's user who owns the records of a booking, and sets them on a record."""

from __future__ import annotations

from app.crm.objects import ObjectName
from app.domain.people import address_key
from app.mapping.field_values import RecordFields
from app.mapping.plan_context import PlanInputs, PlanReport
from app.mapping.schema import OwnerRules
from app.sync.desired import WriteRule


def owner_of(inputs: PlanInputs, report: PlanReport) -> str | None:
    """The id of the user whom the rule names, else of the fallback; None where neither is a user.

    Where the CRM's users could not be read, the addresses stand for the id.
    """
    owner, directory = inputs.rules.owner, inputs.directory
    named = (*_named_by_rule(inputs, owner), owner.fallback)
    emails = [address_key(email) for email in named if email]
    if directory.unread:
        return ", else ".join(dict.fromkeys(emails)) or None
    for email in emails:
        user = directory.owner(email)
        if user is None and not directory.owners and "@" not in email:
            # Where the CRM does not tell its users the file may name them by their numbers.
            user = email
        if user and user not in inputs.context.refused_owners:
            return user
        if user:
            words = f"The CRM refuses {email} as an owner, though its list has them."
            report.notes.append(words)
    return None


def _named_by_rule(inputs: PlanInputs, owner: OwnerRules) -> list[str | None]:
    """Whom the rule names, the first one first."""
    hosts = [host.email for host in inputs.booking.hosts if host.email]
    if owner.rule == "table":
        table = {address_key(host): user for host, user in owner.table.items()}
        return [table[host] for host in hosts if host in table]
    if owner.rule == "fixed":
        return [owner.user]
    if owner.rule == "round_robin":
        turn, users = inputs.context.round_robin_position, owner.users
        return [users[(turn + n) % len(users)] for n in range(len(users))]
    return [*hosts]


def set_owner(inputs: PlanInputs, fields: RecordFields, name: ObjectName) -> None:
    """Set the owner on a record's fields, unless the mapping sets it as a field."""
    key, owner = inputs.shape.owner_fields.get(name), inputs.rules.owner
    if key and key not in fields.values:
        rule = WriteRule(owner.write) if owner.write else WriteRule.NEVER_BLANK
        fields.set(key, inputs.owner_id, WriteRule.ON_CREATE if owner.rule == "keep" else rule)
