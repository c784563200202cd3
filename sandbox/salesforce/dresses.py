"""The Salesforce accounts of sandbox.accounts.KINDS except plain, each made from a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sandbox.salesforce.org import DuplicateRule


def _poor(sandbox: Any) -> None:
    """Set up the smallest edition with the fewest rights."""
    account = sandbox.account
    account.without("Case")
    account.without("Lead")
    # This profile may create no custom fields and no permission sets.
    for path in ("/tooling/", "/sobjects/PermissionSet", "/sobjects/FieldPermissions"):
        body = [{"errorCode": "INSUFFICIENT_ACCESS", "message": "insufficient access rights"}]
        account.answers(path, 403, body, method="POST")
    sandbox.org.allows_one_person_per_event()


def _strict(sandbox: Any) -> None:
    """Add admin rules that our files never break."""
    account, org = sandbox.account, sandbox.org
    account.adds("Opportunity", Budget__c="number")
    # Required only for closed opportunities, which none of our mapping files writes.
    account.refuses("Opportunity", "FIELD_CUSTOM_VALIDATION_EXCEPTION", "A closed deal needs a budget",
                    where={"StageName": "Closed Won"}, lacks="Budget__c", fields=("Budget__c",))  # fmt: skip
    org.duplicate_rules.append(DuplicateRule("Contact", ("FirstName", "LastName"), alert=True))
    org.duplicate_rules.append(DuplicateRule("Account", ("Name",), name="One_account"))
    for field, units in (("Contact.FirstName", 40), ("Contact.LastName", 40), ("Account.Name", 60),
                         ("Opportunity.Name", 80), ("Event.Subject", 80)):  # fmt: skip
        account.longest(*field.split("."), units)
    account.user("gone@acme.example", "Gil Gone", active=False)
    account.user("john@acme.example", "John Portal", kind="CspLitePortal")


def _full(sandbox: Any) -> None:
    """Add many of everything."""
    account = sandbox.account
    sandbox.org.turns_on_person_accounts()
    sandbox.org.person("Pia", "Private", "pia@private.example")
    for sobject in ("Account", "Contact", "Opportunity", "Event", "Lead"):
        account.adds(sobject, CurrencyIsoCode=("pick", "EUR", "USD", "CHF"))
        account.adds(sobject, RecordTypeId=18)
    account.adds(
        "Contact", MailingCountryCode=("pick", "DE", "US"), MailingStateCode=("pick", "CA")
    )
    for number in range(20):
        account.user(f"user{number}@acme.example", f"User {number}")
        stage = {"ApiName": f"Stage {number}", "MasterLabel": f"Stage {number}",
                 "SortOrder": 100 + number, "IsActive": True, "IsClosed": False}  # fmt: skip
        sandbox.store("OpportunityStage", stage)
        for sobject in ("Contact", "Opportunity", "Event"):
            sandbox.custom[sobject][f"Extra_{number}__c"] = {"type": "Text"}
    account.user("john@acme.example", "John Portal", kind="CspLitePortal")


DRESSES: Mapping[str, Callable[[Any], None]] = {
    "poor": _poor,
    "strict": _strict,
    "full-grown": _full,
}
