"""Salesforce's own switches beside `sandbox.account`: editions, duplicate rules, person accounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.account import Refusal, User
from sandbox.answers import Record
from sandbox.salesforce.refused import SalesforceRefused

if TYPE_CHECKING:
    from sandbox.salesforce.state import SalesforceState


PERSON_FIELDS = {
    "Contact": {"IsPersonAccount": "flag"},
    "Account": {"IsPersonAccount": "flag", "PersonContactId": "Contact", "PersonEmail": 80,
                "PersonMobilePhone": 40, "FirstName": 40, "LastName": 80},
}  # fmt: skip
MIRRORED = {"PersonEmail": "Email", "PersonMobilePhone": "MobilePhone", "Phone": "Phone",
            "FirstName": "FirstName", "LastName": "LastName"}  # fmt: skip
"""Field of a person's Account -> the Contact's field that shows its value."""
MOST_CONTACTS = 50
"""The maximum number of contacts of an event, including the main one."""


@dataclass
class DuplicateRule:
    """A duplicate rule of the org: it stops new records that match an existing one."""

    object: str
    same: tuple[str, ...]
    """Fields that are equal in both records, regardless of case."""
    alert: bool = False
    """Whether the rule only warns: the header allowSave=true lets the record pass."""
    name: str = "Same_name"


class Org:
    """The switches that only Salesforce has; in a new org all are off."""

    def __init__(self, sandbox: SalesforceState) -> None:
        self._sandbox = sandbox
        self.duplicate_rules: list[DuplicateRule] = []
        self.person_accounts = False
        self.one_person_per_event = False
        self.moved_to = ""
        """The address of the new My Domain; the old one redirects every API call."""

    def sits_in(self, country: str) -> None:
        """Give the org an address in a country."""
        for row in self._sandbox.tables["Organization"].values():
            row["Country"] = country

    def disables_api(self, code: str = "API_CURRENTLY_DISABLED") -> None:
        """Refuse every API call; `code` may be API_DISABLED_FOR_ORG. `clears_answers` ends it."""
        words = "API is disabled for this User" if "CURRENTLY" in code else "API is not enabled for this Organization or Partner"  # fmt: skip
        self._refuse_all(code, words)

    def day_is_used_up(self, times: int | None = None) -> None:
        """Refuse calls because the calls of 24 hours are used up."""
        self._refuse_all("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", times)

    def too_many_at_once(self, times: int = 1) -> None:
        """Refuse this many calls because of other long transactions; this passes within seconds."""
        message = "ConcurrentPerOrgLongTxn Limit exceeded."
        self._refuse_all("REQUEST_LIMIT_EXCEEDED", message, times)

    def _refuse_all(self, code: str, message: str, times: int | None = None) -> None:
        body = [{"errorCode": code, "message": message}]
        self._sandbox.account.answers("/services/data", 403, body, times=times)

    def blocks_duplicates(self, object_: str, same: list[str], alert: bool = False) -> None:
        """Add a duplicate rule for records of an object with equal values in these fields."""
        self.duplicate_rules.append(DuplicateRule(object_, tuple(same), alert))

    def allows_one_person_per_event(self) -> None:
        """Turn "Allow Users to Relate Multiple Contacts to Tasks and Events" off.

        https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_eventrelation.htm
        """
        self.one_person_per_event = True
        self._sandbox.account.lacks("EventRelation", "IsParent", "IsWhat")

    def turns_on_person_accounts(self) -> None:
        """Turn person accounts on: Contact shows them, and writes go to the Account."""
        self.person_accounts = True
        for sobject, fields in PERSON_FIELDS.items():
            self._sandbox.account.adds(sobject, **fields)

    def person(self, first: str, last: str, email: str) -> str:
        """Create a person account as a colleague does; return the id of its Contact."""
        sandbox = self._sandbox
        with sandbox.lock:
            names = {"FirstName": first, "LastName": last}
            whole = {"Name": f"{first} {last}", "PersonEmail": email, **names}
            account = sandbox.store("Account", {**whole, "IsPersonAccount": True})
            contact = sandbox.store(
                "Contact",
                {**names, "Email": email, "AccountId": account["Id"], "IsPersonAccount": True},
            )
            account["PersonContactId"] = contact["Id"]
            return str(contact["Id"])

    def check(self, sobject: str, written: Record, whole: Record, record_id: str | None) -> None:
        """Raise SalesforceRefused if the org's admin or edition forbids a write."""
        sandbox = self._sandbox
        if not sandbox.account.rules_hold:
            return
        locked = sandbox.account.locked_field(record_id, written)
        if locked:
            raise SalesforceRefused(400, locked[1], locked[2], [locked[0]])
        if written and sobject == "Contact" and whole.get("IsPersonAccount"):
            raise SalesforceRefused(
                400, "INVALID_PERSON_ACCOUNT_OPERATION", "cannot reference person contact"
            )
        if sobject == "Account" and whole.get("IsPersonAccount") and "Name" in written:
            message = "Unable to create/update fields: Name. Please check the security settings"
            raise SalesforceRefused(400, "INVALID_FIELD_FOR_INSERT_UPDATE", message, ["Name"])
        if sobject == "EventRelation" and self.one_person_per_event and record_id is None:
            message = "insufficient access rights on object id"
            raise SalesforceRefused(400, "INSUFFICIENT_ACCESS_OR_READONLY", message)
        if sobject == "EventRelation" and record_id is None:
            # An event can be related to up to 50 contacts or one lead:
            # https://developer.salesforce.com/docs/platform/object-reference/references/standard-objects/object-eventrelation.html
            rows = sandbox.tables["EventRelation"].values()
            there = [row for row in rows if row["EventId"] == written.get("EventId")]
            event = sandbox.tables["Event"].get(written.get("EventId") or "", {})
            lead = str(event.get("WhoId") or "").startswith("00Q")
            if lead or len(there) + 1 >= MOST_CONTACTS:
                message = "An event can be related to up to 50 contacts or one lead"
                raise SalesforceRefused(400, "FIELD_INTEGRITY_EXCEPTION", message, ["RelationId"])
        owner = self._new_owner(sobject, written, record_id)
        struck = sandbox.account.struck(sobject, record_id is None, written, whole, owner)
        if struck:
            raise self._refused(struck)
        if owner:
            self._check_owner(sobject, owner)
        if record_id is None:
            self._check_duplicates(sobject, whole)

    def _refused(self, struck: Refusal) -> SalesforceRefused:
        code = struck.code or "FIELD_CUSTOM_VALIDATION_EXCEPTION"
        return SalesforceRefused(400, code, struck.message, list(struck.fields), struck.more)

    def _new_owner(self, sobject: str, written: Record, record_id: str | None) -> User | None:
        given = written.get("OwnerId")
        before = self._sandbox.tables[sobject].get(record_id or "", {}).get("OwnerId")
        row = self._sandbox.tables["User"].get(given or "")
        if row is None or given == before:
            return None
        kind = row.get("UserType") or "Standard"
        return User(row["Email"], row["Name"], bool(row["IsActive"]), kind, row["Id"])

    def _check_owner(self, sobject: str, owner: User) -> None:
        if not owner.active:
            message = f"operation performed with inactive user [{owner.id}] as owner of {sobject.lower()}"  # fmt: skip
            raise SalesforceRefused(400, "INACTIVE_OWNER_OR_USER", message)
        if owner.kind != "Standard":
            message = "Operation not valid for this user type"
            raise SalesforceRefused(
                400, "OP_WITH_INVALID_USER_TYPE_EXCEPTION", message, ["OwnerId"]
            )

    def _check_duplicates(self, sobject: str, whole: Record) -> None:
        for rule in self.duplicate_rules:
            if rule.object != sobject or not all(whole.get(name) for name in rule.same):
                continue
            found = [
                row for row in self._sandbox.tables[sobject].values()
                if all(str(row.get(n) or "").lower() == str(whole[n]).lower() for n in rule.same)
            ]  # fmt: skip
            let = self._sandbox.header("Sforce-Duplicate-Rule-Header").replace(" ", "").lower()
            if found and not (rule.alert and "allowsave=true" in let):
                raise SalesforceRefused(
                    400, "DUPLICATES_DETECTED", "Use one of these records?",
                    more={"duplicateResut": matches(rule, found)},
                )  # fmt: skip


def matches(rule: DuplicateRule, found: list[Record]) -> Record:
    """Return a duplicate rule's data about the matching records."""
    # The spelling `duplicateResut` of the key above is Salesforce's own:
    # https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_duplicaterules.htm
    rows = [
        {"additionalInformation": [], "fieldDiffs": [], "matchConfidence": 98.0,
         "record": {"attributes": {"type": rule.object}, "Id": row["Id"]}}
        for row in found
    ]  # fmt: skip
    result = {"entityType": rule.object, "errors": [], "matchEngine": "FuzzyMatchEngine",
              "rule": rule.name, "size": len(rows), "success": True, "matchRecords": rows}  # fmt: skip
    return {"allowSave": rule.alert, "duplicateRule": rule.name,
            "duplicateRuleEntityType": rule.object, "errorMessage": "Use one of these records?",
            "matchResults": [result]}  # fmt: skip
