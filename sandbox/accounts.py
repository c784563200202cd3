"""Four ready-made accounts for each CRM: plain, poor, strict and full-grown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.salesforce.org import DuplicateRule

KINDS = ("plain", "poor", "strict", "full-grown")


def dress(sandbox: Any, kind: str) -> None:
    """Make an account what `kind` of KINDS says, before it is connected. Raises KeyError for others.

    plain: as a new sandbox is. poor: the smallest edition with the least rights; what the mapping
    files that come with the service write is there, everything else is missing. strict: rules of the
    admin for what no file of ours writes badly. full-grown: many of everything.
    """
    _DRESSES[kind, sandbox.name](sandbox)


def _plain(sandbox: Any) -> None:
    """A new sandbox is a plain account."""


def _poor_salesforce(sandbox: Any) -> None:
    account = sandbox.account
    account.without("Case")
    account.without("Lead")
    # A profile that may make no custom fields and no permission sets.
    for path in ("/tooling/", "/sobjects/PermissionSet", "/sobjects/FieldPermissions"):
        body = [{"errorCode": "INSUFFICIENT_ACCESS", "message": "insufficient access rights"}]
        account.answers(path, 403, body, method="POST")
    sandbox.org.allows_one_person_per_event()


def _poor_hubspot(sandbox: Any) -> None:
    # No property can be made: booking-id fields are then left out.
    sandbox.account.loses_scopes(
        "crm.schemas.contacts.write", "crm.schemas.deals.write", "crm.schemas.companies.write"
    )
    sandbox.portal.meeting_group = "meeting"


def _poor_pipedrive(sandbox: Any) -> None:
    # By the published specification of v2 our scopes do not read activityFields.
    sandbox.activity_fields_need_admin = True
    sandbox.account.loses_scopes("deal-fields:full")
    sandbox.gone_v1 = {"/users": 410, "/participants": 404}
    sandbox.searches_slower(6)


def _strict_salesforce(sandbox: Any) -> None:
    account, org = sandbox.account, sandbox.org
    account.adds("Opportunity", Budget__c="number")
    # Demanded of what no mapping file of ours writes: an opportunity that is closed.
    account.refuses("Opportunity", "FIELD_CUSTOM_VALIDATION_EXCEPTION", "A closed deal needs a budget",
                    where={"StageName": "Closed Won"}, lacks="Budget__c", fields=("Budget__c",))  # fmt: skip
    org.duplicate_rules.append(DuplicateRule("Contact", ("FirstName", "LastName"), alert=True))
    org.duplicate_rules.append(DuplicateRule("Account", ("Name",), name="One_account"))
    for field, units in (("Contact.FirstName", 40), ("Contact.LastName", 40), ("Account.Name", 60),
                         ("Opportunity.Name", 80), ("Event.Subject", 80)):  # fmt: skip
        account.longest(*field.split("."), units)
    account.user("gone@acme.example", "Gil Gone", active=False)
    account.user("john@acme.example", "John Portal", kind="CspLitePortal")


def _strict_hubspot(sandbox: Any) -> None:
    account = sandbox.account
    account.adds("deals", budget="number")
    account.refuses("deals", "REQUIRED_PROPERTY", "A closed deal needs a budget",
                    where={"dealstage": "closedwon"}, lacks="budget", fields=("budget",))  # fmt: skip
    account.requires("contacts", "email", "REQUIRED_PROPERTY")
    account.requires("meetings", "hs_meeting_outcome", "REQUIRED_PROPERTY")
    account.longest("meetings", "hs_meeting_title", 200)
    account.user("gone@acme.example", "Gil Gone", active=False)
    sandbox.portal.meeting_group = "meeting"


def _strict_pipedrive(sandbox: Any) -> None:
    account = sandbox.account
    sandbox.strict_nulls()
    account.refuses("deals", message="A won deal needs a value", where={"status": "won"},
                    lacks="value", fields=("value",))  # fmt: skip
    account.longest("deals", "title", 120)
    account.user("gone@acme.example", "Gil Gone", active=False)
    sandbox.searches_slower(8)


def _full_salesforce(sandbox: Any) -> None:
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


def _full_hubspot(sandbox: Any) -> None:
    for number in range(20):
        sandbox.account.user(f"user{number}@acme.example", f"User {number}")
        stages = [{"id": f"p{number}s{place}", "label": f"Step {place}", "displayOrder": place}
                  for place in range(5)]  # fmt: skip
        line = {"id": f"p{number}", "label": f"Line {number}", "displayOrder": 10 + number}
        sandbox.pipelines.append({**line, "stages": stages})
        for kind in ("contacts", "companies", "deals", "meetings"):
            sandbox.account.adds(kind, **{f"extra_{number}": "string"})
    sandbox.account.adds("deals", deal_currency_code=("EUR", "USD", "CHF"))
    sandbox.portal.companies_after = 0.0


def _full_pipedrive(sandbox: Any) -> None:
    for number in range(20):
        sandbox.account.user(f"user{number}@acme.example", f"User {number}")
        line, last = {"id": 50 + number, "name": f"Line {number}", "order_nr": 10 + number}, 5
        sandbox.pipelines.append(line)
        sandbox.stages += [
            {"id": 100 + number * last + place, "name": f"Step {place}", "pipeline_id": line["id"],
             "order_nr": place} for place in range(last)
        ]  # fmt: skip
        for kind in ("persons", "organizations", "deals"):
            key = f"{number:02d}{kind[0]}".ljust(40, "0")
            # Two of each name: the old one and the one that came after it.
            field = {
                "field_code": key,
                "field_name": f"Extra {number // 2}",
                "field_type": "varchar",
            }
            sandbox.custom[kind][key] = field


_DRESSES: dict[tuple[str, str], Callable[[Any], None]] = {
    **{("plain", name): _plain for name in ("hubspot", "pipedrive", "salesforce")},
    ("poor", "hubspot"): _poor_hubspot,
    ("poor", "pipedrive"): _poor_pipedrive,
    ("poor", "salesforce"): _poor_salesforce,
    ("strict", "hubspot"): _strict_hubspot,
    ("strict", "pipedrive"): _strict_pipedrive,
    ("strict", "salesforce"): _strict_salesforce,
    ("full-grown", "hubspot"): _full_hubspot,
    ("full-grown", "pipedrive"): _full_pipedrive,
    ("full-grown", "salesforce"): _full_salesforce,
}
