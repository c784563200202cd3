"""Reads from Salesforce's answers why it refuses a record: the code tells, the words complete it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.domain.refusals import MOST_RAW, Refusal, RefusalReason, clipped
from app.outbound.reply import Json, some_text
from crm_adapters.http import shorten
from crm_adapters.reasons import expected_in, limit_in, reason_in, unescaped

CODES = {
    # https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm
    **dict.fromkeys((
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "INVALID_CURRENCY_ISO", "INVALID_STATUS",
        "TOO_MANY_ENUM_VALUE", "INVALID_RECORD_TYPE", "UNAVAILABLE_RECORDTYPE_EXCEPTION",
    ), RefusalReason.OPTION),
    **dict.fromkeys((
        "JSON_PARSER_ERROR", "INVALID_EMAIL_ADDRESS", "NUMBER_OUTSIDE_VALID_RANGE", "MALFORMED_ID",
        "INVALID_ARGUMENT_TYPE", "INVALID_CROSS_REFERENCE_TYPE_FOR_FIELD", "INVALID_ID_FIELD",
    ), RefusalReason.TYPE),
    "STRING_TOO_LONG": RefusalReason.LENGTH,
    **dict.fromkeys(("REQUIRED_FIELD_MISSING", "MISSING_ARGUMENT"), RefusalReason.REQUIRED),
    **dict.fromkeys(("DUPLICATE_VALUE", "DUPLICATE_EXTERNAL_ID"), RefusalReason.TAKEN),
    "DUPLICATES_DETECTED": RefusalReason.DUPLICATE,
    "INVALID_FIELD": RefusalReason.UNKNOWN_FIELD,
    **dict.fromkeys((
        "INVALID_FIELD_FOR_INSERT_UPDATE", "FIELD_NOT_UPDATABLE",
    ), RefusalReason.READ_ONLY),
    **dict.fromkeys((
        "INSUFFICIENT_ACCESS_OR_READONLY", "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
        "TXN_SECURITY_NO_ACCESS", "INSUFFICIENT_ACCESS", "INVALID_PERSON_ACCOUNT_OPERATION",
    ), RefusalReason.PERMISSION),
    **dict.fromkeys((
        "INACTIVE_OWNER_OR_USER", "OP_WITH_INVALID_USER_TYPE_EXCEPTION", "INVALID_ASSIGNEE_TYPE",
        "INACTIVE_USER", "TRANSFER_REQUIRES_READ", "MANAGER_NOT_DEFINED",
    ), RefusalReason.OWNER),
    **dict.fromkeys((
        "FIELD_CUSTOM_VALIDATION_EXCEPTION", "FIELD_FILTER_VALIDATION_EXCEPTION",
        "FIELD_INTEGRITY_EXCEPTION", "CIRCULAR_DEPENDENCY",
    ), RefusalReason.RULE),
    **dict.fromkeys((
        "APEX_ERROR", "CANNOT_EXECUTE_FLOW_TRIGGER", "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        "FLOW_EXCEPTION", "TXN_SECURITY_APEX_ERROR", "PROCESSING_HALTED",
    ), RefusalReason.AUTOMATION),
    **dict.fromkeys((
        "ENTITY_IS_LOCKED", "CANNOT_UPDATE_CONVERTED_LEAD", "ALREADY_IN_PROCESS",
    ), RefusalReason.LOCKED),
    **dict.fromkeys((
        "ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY", "DELETE_FAILED",
        "UNDELETE_FAILED",
    ), RefusalReason.DELETED),
    **dict.fromkeys((
        "STORAGE_LIMIT_EXCEEDED", "LIMIT_EXCEEDED", "FILTERED_LOOKUP_LIMIT_EXCEEDED",
        "TXN_SECURITY_METERING_ERROR", "DEPENDENCY_EXISTS",
    ), RefusalReason.LIMIT),
}  # fmt: skip
OWNER, STAGES = "OwnerId", ("StageName",)
_COLUMN = re.compile(
    r"No such column '(\w{1,100})'|fields: (\w{1,100})|Cannot deserialize (\w{1,100}) as|"
    r"value found: (\w{1,100}) duplicates|^(\w{1,100}__c): "
)
_VALUE = re.compile(
    r"restricted picklist field: (?P<pick>.+)$|data value too large: (?P<long>.*?) \(max length|"
    r"invalid email address: (?P<email>.+)$|numeric field: (?P<number>.+)$|"
    r"VALUE_\w+ value (?P<json>.+?) or request may be",
    re.DOTALL,
)
_RECORD = re.compile(r"\bid: (\w{15,18})\b")
_KIND = re.compile(r"deserialize (?:instance of (\w+)|\w+ as (\w+))")


def refusal_in(
    entries: Sequence[Json], code: str, fields: Sequence[str], in_the_way: str | None = None
) -> Refusal:
    """Return why Salesforce refuses a record; `fields`: those that the first entry names."""
    first = entries[0] if entries else {}
    told = unescaped(some_text(first, "message") or some_text(first, "error_description"))
    column, value, record = _COLUMN.search(told), _VALUE.search(told), _RECORD.search(told)
    named = next((name for name in column.groups() if name), "") if column else ""
    field = next(iter(fields), named)
    reason = _reason(code, field, told)
    if reason is RefusalReason.OWNER:
        field = field or OWNER
    each = ((some_text(one, "errorCode"), some_text(one, "message")) for one in entries[:10])
    raw = "; ".join(f"{name[:80]}: {shorten(unescaped(words), MOST_RAW)}" for name, words in each)
    return Refusal(
        reason,
        crm="Salesforce",
        field=field,
        value=next((text for text in value.groups() if text), "").strip() if value else "",
        limit=limit_in(told),
        expected=_expected(code, told) if reason is RefusalReason.TYPE else "",
        record_id=in_the_way or (record[1] if record else ""),
        words=shorten(told),
        also=tuple(name for name in fields if name != field),
        raw=clipped(raw or shorten(told), MOST_RAW),
    )


def _reason(code: str, field: str, told: str) -> RefusalReason:
    reason = CODES.get(code)
    if field in STAGES and reason in (RefusalReason.OPTION, RefusalReason.DELETED):
        return RefusalReason.STAGE
    if field == OWNER and reason in (RefusalReason.DELETED, RefusalReason.PERMISSION):
        return RefusalReason.OWNER
    return reason or reason_in(told)


def _expected(code: str, told: str) -> str:
    if code == "INVALID_EMAIL_ADDRESS":
        return "an e-mail address"
    if code == "NUMBER_OUTSIDE_VALID_RANGE":
        return "a number that the field has room for"
    kind = _KIND.search(told)
    return expected_in((kind[1] or kind[2]) if kind else told)
