"""The CRMs' own answers become plain sentences: one table of real bodies for each CRM."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import CrmError
from app.domain.refusals import Refusal, RefusalReason, cause_key
from app.outbound.reply import Reply
from crm_adapters.hubspot import errors as hubspot
from crm_adapters.pipedrive import errors as pipedrive
from crm_adapters.salesforce import errors as salesforce

R = RefusalReason


def inside(*items: dict[str, Any]) -> dict[str, Any]:
    """HubSpot's answer with the list of refused properties inside the message."""
    told = json.dumps([{"isValid": False, **item} for item in items])
    return {"status": "error", "category": "VALIDATION_ERROR",
            "message": f"Property values were not valid: {told}"}  # fmt: skip


def entry(name: str, error: str, message: str) -> dict[str, Any]:
    return {"message": message, "error": error, "name": name}


HUBSPOT: list[tuple[dict[str, Any], R, str]] = [
    (
        inside(entry("lead_source", "INVALID_OPTION",
                     "zzz was not one of the allowed options: [A, B]")),
        R.OPTION,
        'HubSpot refuses the property lead_source of the deal: "zzz" is none of its options A, B.',
    ),
    (  # the long form of options
        inside(entry("visitors", "INVALID_OPTION",
                     "Few (no) was not one of the allowed options: [label: \"Less than 5,000\"\n"
                     "value: \"Less than 5,000\"\ndisplay_order: -1\nhidden: false\n, "
                     "label: \"5,000 - 10,000\"\nvalue: \"5,000 - 10,000\"\nhidden: false\n]")),
        R.OPTION,
        'HubSpot refuses the property visitors of the deal: "Few (no)" is none of its options'
        " Less than 5,000, 5,000 - 10,000.",
    ),
    (
        inside(entry("dealstage", "INVALID_OPTION",
                     "gone was not one of the allowed options: ['new', 'won']")),
        R.STAGE,
        'HubSpot refuses the property dealstage of the deal: "gone" is none of the account\'s stages'
        " and pipelines new, won.",
    ),
    (
        inside(entry("hubspot_owner_id", "INVALID_OWNER_ID", "77 was not a valid owner id")),
        R.OWNER,
        'HubSpot refuses the owner of the deal: the user "77" is unknown, inactive, or may own no'
        " such record.",
    ),
    (
        inside(entry("amount", "INVALID_NUMBER", "twelve was not a valid number.")),
        R.TYPE,
        'HubSpot refuses the property amount of the deal: "twelve" is not a number.',
    ),
    (
        inside(entry("seats", "INVALID_INTEGER", "1.5 was not a valid integer.")),
        R.TYPE,
        'HubSpot refuses the property seats of the deal: "1.5" is not a whole number.',
    ),
    (
        inside(entry("closedate", "INVALID_DATE", "soon was not a valid date.")),
        R.TYPE,
        'HubSpot refuses the property closedate of the deal: "soon" is not a date.',
    ),
    (
        inside(entry("agreed", "INVALID_BOOLEAN", "maybe was not a valid boolean.")),
        R.TYPE,
        'HubSpot refuses the property agreed of the deal: "maybe" is not yes or no.',
    ),
    (
        inside(entry("email", "INVALID_EMAIL", "Email address jane@x is invalid")),
        R.TYPE,
        'HubSpot refuses the property email of the deal: "[e-mail]" is not an e-mail address.',
    ),
    (
        inside(entry("email", "INVALID_EMAIL", "Email address is too long")),
        R.LENGTH,
        "HubSpot refuses the property email of the deal: the value is too long.",
    ),
    (
        inside(entry("note", "TOO_LONG", "Property values must not be longer than 65536")),
        R.LENGTH,
        "HubSpot refuses the property note of the deal: the value is longer than 65,536 characters.",
    ),
    (
        inside(entry("region", "REQUIRED_PROPERTY", "region is required")),
        R.REQUIRED,
        "HubSpot refuses the deal: the property region is required and empty.",
    ),
    (
        {"message": "Error creating DEAL. Some required properties were not set.",
         "context": {"properties": ["dealname"]}, "category": "VALIDATION_ERROR"},
        R.REQUIRED,
        "HubSpot refuses the deal: the property dealname is required and empty.",
    ),
    (
        inside(entry("old", "PROPERTY_DOESNT_EXIST", 'Property "old" does not exist')),
        R.UNKNOWN_FIELD,
        "HubSpot refuses the deal: it has no property old.",
    ),
    (
        inside(entry("score", "READ_ONLY_VALUE", '"score" is a read only property')),
        R.READ_ONLY,
        "HubSpot refuses the deal: the property score is read-only.",
    ),
    (
        {"message": "Cannot set PropertyValueCoordinates{portalId=4711, propertyName=booking} on 7. "
                    "5 already has that value.", "category": "VALIDATION_ERROR"},
        R.TAKEN,
        "HubSpot refuses the property booking of the deal: the record 5 already has the value.",
    ),
    (
        {"message": "Contact already exists. Existing ID: 12", "category": "CONFLICT"},
        R.TAKEN,
        "HubSpot refuses the deal: the record 12 already has one of its unique values.",
    ),
    (
        inside(entry("phone", "PROPERTY_VALIDATION", "Only numbers with +49, says the rule.")),
        R.RULE,
        "A rule of the HubSpot account refuses the deal, for the property phone:"
        ' "Only numbers with +49, says the rule."',
    ),
    (
        {"message": "resource not found", "category": "OBJECT_NOT_FOUND"},
        R.DELETED,
        "HubSpot refuses the deal. A record that it needs is deleted, or hidden from the connected"
        ' user. It says: "resource not found"',
    ),
    (
        {"message": "contacts 5 has reached its association limit", "category": "VALIDATION_ERROR"},
        R.LIMIT,
        "HubSpot refuses the deal: a limit of the account is reached: "
        '"contacts 5 has reached its association limit"',
    ),
    (  # several properties at once
        inside(entry("a", "INVALID_OPTION", "x was not one of the allowed options: []"),
               entry("b", "INVALID_NUMBER", "y was not a valid number.")),
        R.OPTION,
        'HubSpot refuses the property a of the deal: "x" is none of its options. It refuses also: b.',
    ),
    (  # the list only in errors[], with a context that is no list
        {"message": "One or more validation errors occurred", "category": "VALIDATION_ERROR",
         "errors": [{"message": "y was not a valid number.", "code": "INVALID_NUMBER",
                     "context": {"propertyName": "b"}}]},
        R.TYPE,
        'HubSpot refuses the property b of the deal: "y" is not a number.',
    ),
    (
        {"message": "Something nobody has seen", "category": "VALIDATION_ERROR"},
        R.OTHER,
        'HubSpot refuses the deal: "Something nobody has seen"',
    ),
]  # fmt: skip


def failed(what: str) -> dict[str, Any]:
    return {"success": False, "error": f"Validation failed: {what}", "error_info": "See the docs.",
            "code": "ERR_SCHEMA_VALIDATION_FAILED"}  # fmt: skip


KEY = "0123456789abcdef0123456789abcdef01234567"
PIPEDRIVE: list[tuple[int, dict[str, Any], R, str]] = [
    (400, failed("label_ids: must be one of ['1', '2']"), R.OPTION,
     "Pipedrive refuses the field label_ids of the deal: the value is none of its options 1, 2."),
    (400, failed("custom_fields: Tier must be of type enum"), R.OPTION,
     "Pipedrive refuses the field Tier of the deal: the value is none of its options."),
    (400, failed("custom_fields: Budget must be of type double"), R.TYPE,
     "Pipedrive refuses the field Budget of the deal: the value is not a number."),
    (400, failed("custom_fields: Expected object as value for monetary field Budget"), R.TYPE,
     "Pipedrive refuses the field Budget of the deal: the value is not a structured value."),
    (400, failed("due_date: has the wrong format"), R.TYPE,
     "Pipedrive refuses the field due_date of the deal: the value has the wrong form."),
    (400, failed("title: is longer than 255"), R.LENGTH,
     "Pipedrive refuses the field title of the deal: the value is longer than 255 characters."),
    (400, failed("title: is required"), R.REQUIRED,
     "Pipedrive refuses the deal: the field title is required and empty."),
    (400, {"success": False, "error": "Deal title must be given."}, R.REQUIRED,
     "Pipedrive refuses the deal: the field title is required and empty."),
    (400, failed("colour: is not allowed"), R.UNKNOWN_FIELD,
     "Pipedrive refuses the deal: it has no field colour."),
    (400, failed(f"custom_fields: {KEY} is not allowed"), R.UNKNOWN_FIELD,
     f"Pipedrive refuses the deal: it has no field {KEY}."),
    (400, failed("name: name is read-only"), R.READ_ONLY,
     "Pipedrive refuses the deal: the field name is read-only."),
    (400, failed("owner_id: user 9 does not exist or is inactive"), R.OWNER,
     'Pipedrive refuses the owner of the deal: the user "9" is unknown, inactive, or may own no'
     " such record."),
    (400, failed("stage_id: does not exist"), R.STAGE,
     "Pipedrive refuses the field stage_id of the deal: the value is none of the account's stages"
     " and pipelines."),
    (400, failed("name: a rule of this account forbids it"), R.RULE,
     "A rule of the Pipedrive account refuses the deal, for the field name:"
     ' "a rule of this account forbids it"'),
    (400, {"success": False, "error": "persons 12 does not exist or is deleted"}, R.DELETED,
     "Pipedrive refuses the deal. The record 12 is deleted, or hidden from the connected user."),
    (403, {"success": False, "error": "Deals limit", "code": "feature_capping_deals"}, R.LIMIT,
     'Pipedrive refuses the deal: a limit of the account is reached: "Deals limit"'),
    (403, {"success": False, "error": "You have no permission to edit this deal"}, R.PERMISSION,
     "Pipedrive refuses the deal: the connected user may not write it."
     ' It says: "You have no permission to edit this deal"'),
    (403, {"success": False, "error": "job_title needs Contact Sync"}, R.PERMISSION,
     "Pipedrive refuses the deal: the connected user may not write the field job_title."),
    (404, {"success": False, "error": "deal not found"}, R.DELETED,
     "Pipedrive refuses the deal. A record that it needs is deleted, or hidden from the connected"
     ' user. It says: "deal not found"'),
    (409, {"success": False, "error": "Conflict"}, R.TAKEN,
     "Pipedrive refuses the deal: another record already has one of its unique values."),
    (400, failed("title: is longer than 255; value: must be of type float"), R.LENGTH,
     "Pipedrive refuses the field title of the deal: the value is longer than 255 characters."
     " It refuses also: value."),
]  # fmt: skip


def of(code: str, message: str, *fields: str, **more: Any) -> list[dict[str, Any]]:
    return [{"errorCode": code, "message": message, "fields": list(fields), **more}]


SALESFORCE: list[tuple[list[dict[str, Any]], R, str]] = [
    (of("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        "Highest Degree: bad value for restricted picklist field: Bachelor&#39;s Degree",
        "Degree__c"), R.OPTION,
     'Salesforce refuses the field Degree__c of the deal: "Bachelor\'s Degree" is none of its'
     " options."),
    (of("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "bad value for restricted picklist field: Gone",
        "StageName"), R.STAGE,
     'Salesforce refuses the field StageName of the deal: "Gone" is none of the account\'s stages'
     " and pipelines."),
    (of("STRING_TOO_LONG", "Billing City: data value too large: Llanfair (max length=40)",
        "BillingCity"), R.LENGTH,
     'Salesforce refuses the field BillingCity of the deal: "Llanfair" is longer than 40'
     " characters."),
    (of("INVALID_EMAIL_ADDRESS", "Email: invalid email address: jane at x", "Email"), R.TYPE,
     'Salesforce refuses the field Email of the deal: "jane at x" is not an e-mail address.'),
    (of("JSON_PARSER_ERROR", "Cannot deserialize instance of double from VALUE_STRING value abc or"
        " request may be missing a required field at [line:1, column:57]"), R.TYPE,
     'Salesforce refuses a value of the deal: "abc" is not a number.'),
    (of("JSON_PARSER_ERROR", "Cannot deserialize Budget__c as Date"), R.TYPE,
     "Salesforce refuses the field Budget__c of the deal: the value is not a date."),
    (of("NUMBER_OUTSIDE_VALID_RANGE",
        "Seats: value outside of valid range on numeric field: 12345", "Seats__c"), R.TYPE,
     'Salesforce refuses the field Seats__c of the deal: "12345" is not a number that the field has'
     " room for."),
    (of("REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", "LastName"), R.REQUIRED,
     "Salesforce refuses the deal: the field LastName is required and empty."),
    (of("DUPLICATE_VALUE",
        "duplicate value found: Booking__c duplicates value on record with id: 006000000000001"),
     R.TAKEN,
     "Salesforce refuses the field Booking__c of the deal: the record 006000000000001 already has"
     " the value."),
    (of("DUPLICATES_DETECTED", "Use one of these records?"), R.DUPLICATE,
     "Salesforce refuses the deal: a duplicate rule takes it for an existing record."),
    (of("INVALID_FIELD", "No such column 'Old__c' on sobject of type Opportunity"), R.UNKNOWN_FIELD,
     "Salesforce refuses the deal: it has no field Old__c."),
    (of("INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: Score__c. Please check"
        " the security settings of this field", "Score__c"), R.READ_ONLY,
     "Salesforce refuses the deal: the field Score__c is read-only."),
    (of("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id"), R.PERMISSION,
     "Salesforce refuses the deal: the connected user may not write it."
     ' It says: "insufficient access rights on object id"'),
    (of("INACTIVE_OWNER_OR_USER", "operation performed with inactive user [005000000000001]"),
     R.OWNER,
     "Salesforce refuses the owner of the deal: the user is unknown, inactive, or may own no such"
     " record."),
    (of("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Give a budget above 100 first.", "Amount"), R.RULE,
     "A rule of the Salesforce account refuses the deal, for the field Amount:"
     ' "Give a budget above 100 first."'),
    (of("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "OnDeal: execution of BeforeInsert failed"),
     R.AUTOMATION,
     "An automation of the Salesforce account refuses the deal:"
     ' "OnDeal: execution of BeforeInsert failed"'),
    (of("ENTITY_IS_LOCKED", "entity is locked for editing"), R.LOCKED,
     "Salesforce refuses the deal: it is locked."),
    (of("ENTITY_IS_DELETED", "entity is deleted"), R.DELETED,
     "Salesforce refuses the deal. A record that it needs is deleted, or hidden from the connected"
     ' user. It says: "entity is deleted"'),
    (of("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded"), R.LIMIT,
     'Salesforce refuses the deal: a limit of the account is reached: "storage limit exceeded"'),
    (of("BRAND_NEW", "nobody knows"), R.OTHER, 'Salesforce refuses the deal: "nobody knows"'),
]  # fmt: skip


def answer(status: int, body: Any) -> Reply:
    return Reply(status, {}, json.dumps(body).encode())


def told_by(error: object) -> Refusal:
    """The refusal of an error, about a deal."""
    assert isinstance(error, CrmError) and error.refusal, error
    assert error.message == error.refusal.sentence
    return replace(error.refusal, object="deal")


def check(error: object, reason: R, sentence: str) -> None:
    refusal = told_by(error)
    assert (refusal.reason, refusal.sentence) == (reason, sentence)
    assert refusal.raw and refusal.mend("hubspot.yaml").endswith(", then sync again.")


@pytest.mark.parametrize(("body", "reason", "sentence"), HUBSPOT)
def test_hubspot(body: dict[str, Any], reason: R, sentence: str) -> None:
    """Each of HubSpot's answers, alone and inside a batch's answer, becomes a plain sentence."""
    status = {"CONFLICT": 409, "OBJECT_NOT_FOUND": 404}.get(body.get("category", ""), 400)
    check(hubspot.refusal(answer(status, body)), reason, sentence)
    check(hubspot.batch_error(body), reason, sentence)


@pytest.mark.parametrize(("status", "body", "reason", "sentence"), PIPEDRIVE)
def test_pipedrive(status: int, body: dict[str, Any], reason: R, sentence: str) -> None:
    """Each of Pipedrive's answers becomes a plain sentence."""
    check(pipedrive.refusal(answer(status, body), one=True), reason, sentence)


@pytest.mark.parametrize(("body", "reason", "sentence"), SALESFORCE)
def test_salesforce(body: list[dict[str, Any]], reason: R, sentence: str) -> None:
    """Each of Salesforce's answers becomes a plain sentence."""
    check(salesforce.error_of(400, body, "Opportunity"), reason, sentence)


def test_the_mend_names_the_crm_and_the_mapping_file() -> None:
    """The mend says where to do what."""
    refusal = told_by(hubspot.refusal(answer(400, HUBSPOT[0][0])))
    assert refusal.mend("hubspot.yaml") == (
        "Add the option in HubSpot, or map the value in the mapping file hubspot.yaml,"
        " then sync again."
    )


@pytest.mark.parametrize("reason", list(R))
def test_every_reason_has_short_sentences(reason: R) -> None:
    """However long the parts of an answer are, sentence and mend stay short and hide addresses."""
    long = "jane@example.com " * 500
    options = tuple(f"option {number} {'x' * 500}" for number in range(500))
    full = Refusal(
        reason, "HubSpot", "property", "deal", "f" * 200, "Label", long, options, 40, "a number",
        "12", long, tuple("abcdefghijk"), long,
    )  # fmt: skip
    for refusal in (full, Refusal(reason)):
        assert 20 < len(refusal.sentence) <= 600 and "jane" not in refusal.sentence
        assert "{" not in refusal.mend() and len(refusal.mend("hubspot.yaml")) < 200
    assert "jane" not in full.general and "e-mail" not in full.general


def test_the_key_of_a_cause_has_no_value_in_it() -> None:
    """Bookings whose values differ share a cause; another field, object or connection is another."""
    one = cause_key("hubspot", 1, "invalid_record", "option", "deal", "lead_source")
    assert one == cause_key("hubspot", 1, "invalid_record", "option", "deal", "lead_source")
    others = {
        cause_key("hubspot", 2, "invalid_record", "option", "deal", "lead_source"),
        cause_key("hubspot", 1, "invalid_record", "option", "contact", "lead_source"),
        cause_key("hubspot", 1, "invalid_record", "type", "deal", "lead_source"),
        cause_key("hubspot", 1, "invalid_record", "option", "deal", "source"),
    }
    assert len(one) == 16 and len({one, *others}) == 5


@pytest.mark.parametrize("body", [
    {"message": "[{" * 9000, "category": "VALIDATION_ERROR"},
    {"message": '[{"a":' * 3000, "errors": [{"context": {"propertyName": [7, None]}}, 7]},
    {"message": "allowed options: [", "errors": "x", "context": []},
])  # fmt: skip
def test_an_answer_that_cannot_be_read_is_still_a_sentence(body: dict[str, Any]) -> None:
    """Cut off or hostile lists inside an answer leave a short sentence."""
    assert len(told_by(hubspot.refusal(answer(400, body))).sentence) <= 600
    assert told_by(pipedrive.refusal(answer(400, {"error": body["message"]}))).sentence
