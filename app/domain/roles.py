"""The roles of people and keys, and what each may do: the one place that says so."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a person is here for."""

    ADMIN = "admin"
    DEVELOPER = "developer"
    SALES = "sales"
    VIEWER = "viewer"


class Permission(StrEnum):
    """One kind of act; every page and every call of the API names one."""

    OWN_ACCOUNT = "own_account"
    """See and change one's own account: password, sessions."""
    SEE_BOOKINGS = "see_bookings"
    """See bookings with their people, and how the CRMs are."""
    SYNC_BOOKINGS = "sync_bookings"
    """Sync a booking once more."""
    SAY_OUTCOMES = "say_outcomes"
    """Say how a meeting went."""
    SEE_SETUP = "see_setup"
    """See connections, mappings, webhooks and sources; no secret is among them."""
    CHANGE_SETUP = "change_setup"
    """Connect and disconnect CRMs, change sources, try mappings, check an account."""
    SEE_AUDIT = "see_audit"
    """See who did what."""
    MANAGE_PEOPLE = "manage_people"
    """Make users, give roles, end sessions."""
    ANSWER_REQUESTS = "answer_requests"
    """Export and erase the data of people who book."""


_SEES = frozenset([Permission.OWN_ACCOUNT, Permission.SEE_BOOKINGS])
_WORKS = frozenset([Permission.SYNC_BOOKINGS, Permission.SAY_OUTCOMES])
MAY: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.DEVELOPER: _SEES | _WORKS | {Permission.SEE_SETUP, Permission.CHANGE_SETUP},
    Role.SALES: _SEES | _WORKS,
    Role.VIEWER: _SEES | {Permission.SEE_SETUP},
}


def may(role: Role, permission: Permission) -> bool:
    """Whether a role may do an act."""
    return permission in MAY[role]


def role_of(text: str | None, without: Role = Role.VIEWER) -> Role:
    """The role that a text names; `without` if there is no text, and the least for any other text."""
    if text is None:
        return without
    return Role(text) if text in list(Role) else Role.VIEWER
