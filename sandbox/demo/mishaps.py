"""What can go wrong in a CRM of the demo: how it begins, how it ends, and what the bridge then shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandbox.core import Sandbox

REFUSED_NAME = "Refused"
QUESTION = "How did you hear about us?"
"""The question whose answer goes into HubSpot's property lead_source."""
OPTIONS = ("Website", "Recommendation", "Event")
NEW_OPTION = "Podcast"
"""An answer that HubSpot's property has no option for."""
RIVAL = "Rival"
LOCKED = "Locked"
PAUSE = 10
"""Seconds after which a CRM with too many calls wants to be called again."""


@dataclass(frozen=True)
class Mishap:
    """One thing that can go wrong. `ends`: None if only the bridge can put it right."""

    code: str
    title: str
    seen: str
    mended: str
    is_on: Callable[[Any], bool]
    begins: Callable[[Any], object]
    ends: Callable[[Any], object] | None
    crms: tuple[str, ...] = ()
    """The CRMs in which it can happen; empty: in all."""


def mishaps_of(crm: Sandbox) -> list[Mishap]:
    """Return what can go wrong in a CRM."""
    fitting = [mishap for mishap in MISHAPS if not mishap.crms or crm.name in mishap.crms]
    # A CRM whose access never ends renews none.
    return [mishap for mishap in fitting if crm.lifetime or mishap is not SIGN_IN]


def _fault(status: int) -> Callable[[Sandbox], bool]:
    def is_on(crm: Sandbox) -> bool:
        return any(f.status == status and f.path == crm.api_paths for f in crm.faults)

    return is_on


def _mends_fault(status: int) -> Callable[[Sandbox], None]:
    def ends(crm: Sandbox) -> None:
        with crm.lock:
            crm.faults[:] = [f for f in crm.faults if f.status != status or f.path != crm.api_paths]

    return ends


def _is_out(crm: Sandbox) -> bool:
    return any(fault.path == crm.token_path for fault in crm.faults)


def _sign_in_fails(crm: Sandbox) -> None:
    crm.account.answers(crm.token_path, 503, "Service Unavailable")
    crm.expire_access_tokens()


def _sign_in_works(crm: Sandbox) -> None:
    with crm.lock:
        crm.faults[:] = [fault for fault in crm.faults if fault.path != crm.token_path]


def _options(crm: Sandbox) -> tuple[str, ...]:
    found: tuple[str, ...] = crm.account.extra.get("deals", {}).get("lead_source", ())
    return found


def _offers(*options: str) -> Callable[[Sandbox], object]:
    return lambda crm: crm.account.adds("deals", lead_source=options)


def _rule_for(name: str) -> Callable[[Sandbox], bool]:
    return lambda crm: any(rule.where == {"LastName": name} for rule in crm.account.refusals)


def _lifts(name: str) -> Callable[[Sandbox], None]:
    def ends(crm: Sandbox) -> None:
        kept = [rule for rule in crm.account.refusals if rule.where != {"LastName": name}]
        crm.account.refusals[:] = kept

    return ends


def _locks(crm: Sandbox) -> None:
    words = "unable to obtain exclusive access to this record"
    crm.account.refuses("Contact", "UNABLE_TO_LOCK_ROW", words, where={"LastName": LOCKED})


def _needs_approval(crm: Sandbox) -> None:
    words = "A contact at a competitor needs an approval"
    crm.account.refuses("Contact", "FIELD_CUSTOM_VALIDATION_EXCEPTION", words,
                        where={"LastName": RIVAL}, fields=("LastName",))  # fmt: skip


def _revoked(crm: Sandbox) -> bool:
    return bool(crm.grants) and all(grant.dead for grant in crm.grants)


NO_OPTION = Mishap(
    "option",
    f"The property lead_source lacks the option {NEW_OPTION}",
    f"Bookings with the answer {NEW_OPTION} fail in HubSpot and go into the other CRMs. All of them have one cause.",
    f"HubSpot now has the option {NEW_OPTION}. Sync the failed bookings again in the bridge.",
    lambda crm: NEW_OPTION not in _options(crm),
    _offers(*OPTIONS),
    _offers(*OPTIONS, NEW_OPTION),
    ("hubspot",),
)
APPROVAL = Mishap(
    "approval",
    f"A validation rule refuses the last name {RIVAL}",
    f"A booking of somebody with the last name {RIVAL} fails in Salesforce, in the words of the rule.",
    "The rule is gone. Sync the failed booking again in the bridge.",
    _rule_for(RIVAL),
    _needs_approval,
    _lifts(RIVAL),
    ("salesforce",),
)
LOCK = Mishap(
    "lock",
    f"An import holds the records with the last name {LOCKED}",
    f"A booking of somebody with the last name {LOCKED} is retrying: the bridge tries again by itself, at growing intervals.",
    "The import is over. The booking is synced at its next try, or at once by Sync again.",
    _rule_for(LOCKED),
    _locks,
    _lifts(LOCKED),
    ("salesforce",),
)
NAME = Mishap(
    "name",
    f"A rule refuses the last name {REFUSED_NAME}",
    f"Book a meeting for somebody with the last name {REFUSED_NAME}: it fails in this CRM, and the bridge gives the reason.",
    "The rule is gone. Sync the failed booking again in the bridge.",
    lambda crm: REFUSED_NAME in crm.forbidden_names,
    lambda crm: crm.forbidden_names.add(REFUSED_NAME),
    lambda crm: crm.forbidden_names.discard(REFUSED_NAME),
)
REVOKED = Mishap(
    "grant",
    "An admin removes the bridge's app",
    "At the next booking the connection is expired, and bookings for this CRM are parked. None is lost.",
    "",
    _revoked,
    lambda crm: crm.kill_grants(),
    None,
)
SIGN_IN = Mishap(
    "sign-in",
    "The CRM renews no access",
    "The present access has ended and cannot be renewed. Bookings wait; after 15 minutes the connection is expiring.",
    "Access is renewed again at the next try, by itself.",
    _is_out,
    _sign_in_fails,
    _sign_in_works,
)
MISHAPS = (
    Mishap(
        "outage",
        "The CRM is down",
        "The next booking waits for this CRM, and the bridge looks every few seconds whether it is back. The other CRMs go on.",
        "The CRM is back. Within seconds the waiting bookings are synced, without a click.",
        _fault(503),
        lambda crm: crm.account.every_call_answers(503, "Service Unavailable"),
        _mends_fault(503),
    ),
    Mishap(
        "limit",
        "The CRM's rate limit is used up",
        f"The CRM asks for a pause of {PAUSE} seconds at each call. Bookings wait exactly as long as it asks.",
        "Calls are answered again. The waiting bookings are synced after the pause.",
        _fault(429),
        lambda crm: crm.account.every_call_answers(
            429, "Too Many Requests", headers={"Retry-After": str(PAUSE)}
        ),
        _mends_fault(429),
    ),
    REVOKED,
    SIGN_IN,
    NAME,
    NO_OPTION,
    APPROVAL,
    LOCK,
)
