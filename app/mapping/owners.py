"""Finds the CRM user who owns the records of a booking, and sets the owner on a record."""

from __future__ import annotations

from app.crm.objects import ObjectName
from app.domain.people import address_key
from app.mapping.field_values import RecordFields
from app.mapping.plan_context import PlanInputs, PlanReport
from app.mapping.schema import OwnerRules
from app.sync.desired import WriteRule


def owner_of(inputs: PlanInputs, report: PlanReport) -> str | None:
    """Return the id of the user in the rule, or else of the fallback; None if neither is a user.

    If the CRM's users were not read, return the addresses in place of the id.
    """
    owner, directory = inputs.rules.owner, inputs.directory
    named = (*_named_by_rule(inputs, owner), owner.fallback)
    emails = [address_key(email) for email in named if email]
    if directory.unread:
        return ", else ".join(dict.fromkeys(emails)) or None
    for email in emails:
        user = directory.owner(email)
        if user is None and not directory.owners and "@" not in email:
            # If the CRM does not show its users, the file may give them by their ids.
            user = email
        if user and user not in inputs.context.refused_owners:
            return user
        if user:
            words = f"The CRM refuses {email} as an owner, although its user list has this address."
            report.notes.append(words)
    return None


def _named_by_rule(inputs: PlanInputs, owner: OwnerRules) -> list[str | None]:
    """Return the addresses that the rule gives, in order."""
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
