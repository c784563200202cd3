"""Decides what to read from a CRM before anything is written to it: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from app.crm.lookup import Lookup, LookupKey, Match, MatchKey
from app.crm.objects import OWN_COMPANY, PEOPLE, SHARED, FieldValue, ObjectName, Ref
from app.crm.schema import CrmShape, Directory
from app.sync.desired import READING, DesiredRecord, WriteRule
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import changed_fields
from app.sync.merge import MergedRecord

LedgerEntries = Mapping[Ref, LedgerEntry]


def lookups_for(
    wanted: Mapping[Ref, MergedRecord],
    ledger: LedgerEntries,
    shape: CrmShape,
    directory: Directory,
    thorough: bool = False,
) -> list[Lookup]:
    """Return what to read from the CRM before a write, except what the write itself reports.

    `thorough` also reads what a write would report, and all present values: for a preview.
    """
    questions = []
    through = set(_found_through(wanted, ledger))
    for ref, item in wanted.items():
        record, known = item.record, ledger.get(ref)
        if (record.delete or record.fill_only) and known is None:
            continue
        if record.fill_only and known and known.lost:
            continue  # A booking that wants all of the record looks it up.
        if known and known.live:
            changed = {} if record.delete else changed_fields(record, known)
            reading = {name for name in changed if rule_of(record, name, known, shape) in READING}
            looks = ref.object is ObjectName.LEAD or _has_new_company(record, known)
            # A lead may have been converted into a deal: then the booking is written to that deal.
            looks = looks or (
                not record.delete
                and not record.fill_only
                and shape.is_in_inbox(ref.object, known.record_id)
            )
            # A record that may have been merged with another one is read before it is written.
            looks = looks or (bool(changed) and (record.fill_only or is_unfilled(record, known)))
            if reading or looks or (thorough and changed):
                # All fields are read: the record may turn out to be another one.
                questions.append(_question(item, known.record_id, frozenset(record.fields)))
            continue
        unique = is_unique(ref.object, record.match, shape, directory)
        if known is not None or _must_look(record) or (thorough and unique):
            told = known is None and not thorough and not _must_read(record)
            told = told and not _may_belong_elsewhere(record, ledger)
            if told and ref not in through and unique:
                continue
            lost = known.record_id if known and known.lost else None
            question = _question(item, lost, frozenset(record.fields))
            if _has_to_hang_on(record):
                anchors = (*record.links, *_own_companies(record.links, ledger))
                question = replace(question, anchors=tuple(dict.fromkeys(anchors)))
            if known is not None and known.record_id is None:
                # It may be linked to records that the booking called for when the create was sent.
                anchors = tuple(dict.fromkeys((*question.anchors, *known.links)))
                inbox = record.inbox or _was_lead(ref, known, shape)
                question = replace(
                    question, anchors=anchors, lost_create=known.fingerprints, inbox=inbox
                )
            questions.append(question)
    return questions + list(_left_behind(wanted, ledger, shape, directory))


def links_of_lost_create(known: LedgerEntry, ledger: LedgerEntries) -> list[Ref]:
    """Return a record's links to records whose own create got no answer: their ids are unknown."""
    if known.record_id is not None and not known.links_in_doubt:
        return []
    return [ref for ref in known.links if ref in ledger and ledger[ref].record_id is None]


def _was_lead(ref: Ref, known: LedgerEntry, shape: CrmShape) -> bool:
    """Whether a deal was sent as a lead of the inbox, whatever the mapping says now: a lead has no
    stage and no pipeline."""
    place = {shape.stage_field, shape.pipeline_field}
    return (
        bool(shape.inbox_ids)
        and ref.object is ObjectName.DEAL
        and not place & set(known.fingerprints)
    )


def _left_behind(
    wanted: Mapping[Ref, MergedRecord], ledger: LedgerEntries, shape: CrmShape, directory: Directory
) -> Iterator[Lookup]:
    """Look up link targets whose create was sent with a wanted record and that have left since.

    Their ids are unknown. They are needed to remove the links, and to find the record through them.
    """
    lines = [ledger[ref] for ref in wanted if ref in ledger]
    refs = dict.fromkeys(link for known in lines for link in links_of_lost_create(known, ledger))
    for ref in refs:
        if ref not in wanted:
            marker = directory.booking_fields.get(ref.object)
            content: dict[str, FieldValue] = {marker: ref.key} if marker else {}
            lost, inbox = ledger[ref].fingerprints, _was_lead(ref, ledger[ref], shape)
            keys = match_of(ref).keys
            yield Lookup(ref, None, keys, content=content, lost_create=lost, inbox=inbox)


def match_of(ref: Ref) -> Match:
    """Return the keys that recognise a record if nothing but its ref is known."""
    if ref.object in PEOPLE:
        kind, _, value = ref.key.partition(":")
        return Match((LookupKey(MatchKey(kind), value),))
    kind = MatchKey.DOMAIN if ref.object is ObjectName.COMPANY else MatchKey.BOOKING
    return Match((LookupKey(kind, ref.key),))


def _question(item: MergedRecord, record_id: str | None, fields: frozenset[str]) -> Lookup:
    record = item.record
    keys = record.match.keys
    return Lookup(
        record.ref, record_id, keys, fields, record.links, record.fields, inbox=record.inbox
    )


def _found_through(wanted: Mapping[Ref, MergedRecord], ledger: LedgerEntries) -> Iterable[Ref]:
    """Give the people through which a deal is found or recognised: they are looked up first."""
    for ref, item in wanted.items():
        known = ledger.get(ref)
        if known is None or not known.live:
            person = item.record.match.value(MatchKey.OPEN_DEAL)
            yield from (Ref(name, person) for name in PEOPLE if person)
            if _has_to_hang_on(item.record):
                yield from (link for link in item.record.links if link.object in PEOPLE)


def _has_to_hang_on(record: DesiredRecord) -> bool:
    """Whether a record named by hand has to be linked to the people or companies of the booking."""
    return record.ref.object not in SHARED and any(key.of for key in record.match.keys)


def is_own_company(ref: Ref) -> bool:
    """Whether a company is known by its id only: a person who was found belongs to it."""
    return ref.object is ObjectName.COMPANY and ref.key.startswith(OWN_COMPANY)


def _own_companies(refs: Iterable[Ref], ledger: LedgerEntries) -> Iterator[Ref]:
    """Give the companies that known people belong to."""
    for ref in refs:
        known = ledger.get(ref)
        if known and known.live and ref.object is ObjectName.CONTACT:
            yield from filter(is_own_company, known.links)


def is_unfilled(record: DesiredRecord, known: LedgerEntry) -> bool:
    """Whether a shared record is filled for the first time: values from others take priority."""
    return known.unfilled and record.ref.object in SHARED and not record.fill_only


def rule_of(
    record: DesiredRecord, name: str, known: LedgerEntry | None, shape: CrmShape
) -> WriteRule:
    """Return the rule under which a field may be written.

    The ledger does not say who created a record, but whether a value in it is this service's own.
    So an owner that a colleague chose stays, and so do others' values in a deal or case that is not
    ours.
    """
    rule = record.rules.get(name, WriteRule.NEVER_BLANK)
    if rule is not WriteRule.NEVER_BLANK:
        return rule
    if record.not_ours and known is None:
        return WriteRule.IF_EMPTY
    owner = name == shape.owner_fields.get(record.ref.object)
    return WriteRule.UNTOUCHED if known and (owner or record.not_ours) else rule


def _has_new_company(record: DesiredRecord, known: LedgerEntry) -> bool:
    """Whether a company link is new: a colleague may have linked another company before."""
    if record.delete or record.ref.object not in (ObjectName.CONTACT, ObjectName.DEAL):
        return False
    if any(map(is_own_company, known.links)):
        return False  # its company was read when it was found
    return any(r.object is ObjectName.COMPANY and r not in known.links for r in record.links)


def _may_belong_elsewhere(record: DesiredRecord, ledger: LedgerEntries) -> bool:
    """Whether a company would be searched or created that the person may not belong to."""
    companies = [ref for ref in record.links if ref.object is ObjectName.COMPANY]
    lacking = any(ref not in ledger or not ledger[ref].live for ref in companies)
    return record.with_company and lacking


def _must_look(record: DesiredRecord) -> bool:
    return record.ref.object in SHARED or record.match.asked


def _must_read(record: DesiredRecord) -> bool:
    """Whether a lookup must find out beforehand if the record exists.

    Otherwise it is created by a key that no two records share: if it exists, the CRM says so.
    """
    return record.match.asked or not record.match.create


def is_unique(name: ObjectName, match: Match, shape: CrmShape, directory: Directory) -> bool:
    """Whether the CRM itself refuses a second record with the same key."""
    kind = shape.native_keys.get(name)
    if kind is None or not match.value(kind):
        return False
    if kind is not MatchKey.BOOKING:
        return True
    spec = directory.field(name, directory.booking_fields.get(name, ""))
    return bool(spec and spec.unique)
