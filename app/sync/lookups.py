"""What has to be read of a CRM before anything is written to it: pure."""

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
    """What has to be read of the CRM before anything is written; nothing that a write tells anyway.

    `thorough` asks for what a write would tell as well, and for all present values: for a preview.
    """
    questions = []
    through = set(_found_through(wanted, ledger))
    for ref, item in wanted.items():
        record, known = item.record, ledger.get(ref)
        if (record.delete or record.fill_only) and known is None:
            continue
        if record.fill_only and known and known.lost:
            continue  # Who wants all of it looks what became of it.
        if known and known.live:
            changed = {} if record.delete else changed_fields(record, known)
            reading = {name for name in changed if rule_of(record, name, known, shape) in READING}
            looks = ref.object is ObjectName.LEAD or _has_new_company(record, known)
            # A lead may have been converted into a deal, which then is what the booking goes by.
            looks = looks or (
                not record.delete
                and not record.fill_only
                and shape.is_in_inbox(ref.object, known.record_id)
            )
            # Of a record that may have been merged with another one's nothing is written unseen.
            looks = looks or (bool(changed) and (record.fill_only or is_unfilled(record, known)))
            if reading or looks or (thorough and changed):
                # All of them: the record that is there may turn out to be another one.
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
                # It may hang on what the booking called for when it was begun.
                anchors = tuple(dict.fromkeys((*question.anchors, *known.links)))
                inbox = record.inbox or _was_lead(ref, known, shape)
                question = replace(
                    question, anchors=anchors, lost_create=known.fingerprints, inbox=inbox
                )
            questions.append(question)
    return questions + list(_left_behind(wanted, ledger, shape, directory))


def links_of_lost_create(known: LedgerEntry, ledger: LedgerEntries) -> list[Ref]:
    """What a record may hang on whose own create never got an answer: its id is not known."""
    if known.record_id is not None and not known.links_in_doubt:
        return []
    return [ref for ref in known.links if ref in ledger and ledger[ref].record_id is None]


def _was_lead(ref: Ref, known: LedgerEntry, shape: CrmShape) -> bool:
    """Whether a deal was begun as a lead of the inbox, whatever the file says by now: it has no place
    in a pipeline."""
    place = {shape.stage_field, shape.pipeline_field}
    return (
        bool(shape.inbox_ids)
        and ref.object is ObjectName.DEAL
        and not place & set(known.fingerprints)
    )


def _left_behind(
    wanted: Mapping[Ref, MergedRecord], ledger: LedgerEntries, shape: CrmShape, directory: Directory
) -> Iterator[Lookup]:
    """Who was begun together with a record and is not wanted with it any more: a link to him can
    only be taken away, and the record only be found through him, once it is known who he is.
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
    """By what a record can be recognised of which nothing but its name is known."""
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
    """The people through which a deal is to be found, or told to be theirs: they are looked for first."""
    for ref, item in wanted.items():
        known = ledger.get(ref)
        if known is None or not known.live:
            person = item.record.match.value(MatchKey.OPEN_DEAL)
            yield from (Ref(name, person) for name in PEOPLE if person)
            if _has_to_hang_on(item.record):
                yield from (link for link in item.record.links if link.object in PEOPLE)


def _has_to_hang_on(record: DesiredRecord) -> bool:
    """Whether the one that is named by hand counts only where it hangs on the booking's people or
    companies."""
    return record.ref.object not in SHARED and any(key.of for key in record.match.keys)


def is_own_company(ref: Ref) -> bool:
    """Whether a company is known by its id alone: a found person belongs to it."""
    return ref.object is ObjectName.COMPANY and ref.key.startswith(OWN_COMPANY)


def _own_companies(refs: Iterable[Ref], ledger: LedgerEntries) -> Iterator[Ref]:
    """The companies that known people belong to."""
    for ref in refs:
        known = ledger.get(ref)
        if known and known.live and ref.object is ObjectName.CONTACT:
            yield from filter(is_own_company, known.links)


def is_unfilled(record: DesiredRecord, known: LedgerEntry) -> bool:
    """Whether a record of others is filled for the first time: their values come first."""
    return known.unfilled and record.ref.object in SHARED and not record.fill_only


def rule_of(
    record: DesiredRecord, name: str, known: LedgerEntry | None, shape: CrmShape
) -> WriteRule:
    """When a field may be written. The ledger does not tell who made a record, but whether what
    stands there is ours: whom a colleague made the owner stays that, and all of a borrowed record.
    """
    rule = record.rules.get(name, WriteRule.NEVER_BLANK)
    if rule is not WriteRule.NEVER_BLANK:
        return rule
    if record.not_ours and known is None:
        return WriteRule.IF_EMPTY
    owner = name == shape.owner_fields.get(record.ref.object)
    return WriteRule.UNTOUCHED if known and (owner or record.not_ours) else rule


def _has_new_company(record: DesiredRecord, known: LedgerEntry) -> bool:
    """Whether a company is to be linked only now: a colleague may have linked another one before."""
    if record.delete or record.ref.object not in (ObjectName.CONTACT, ObjectName.DEAL):
        return False
    if any(map(is_own_company, known.links)):
        return False  # where it belongs was read when it was found
    return any(r.object is ObjectName.COMPANY and r not in known.links for r in record.links)


def _may_belong_elsewhere(record: DesiredRecord, ledger: LedgerEntries) -> bool:
    """Whether a company is about to be looked for or made that the person may not belong to."""
    companies = [ref for ref in record.links if ref.object is ObjectName.COMPANY]
    lacking = any(ref not in ledger or not ledger[ref].live for ref in companies)
    return record.with_company and lacking


def _must_look(record: DesiredRecord) -> bool:
    return record.ref.object in SHARED or record.match.asked


def _must_read(record: DesiredRecord) -> bool:
    """Whether it has to be known beforehand if a record is there.

    Else it is made by a key that no two records share: where it is there, the CRM says so.
    """
    return record.match.asked or not record.match.create


def is_unique(name: ObjectName, match: Match, shape: CrmShape, directory: Directory) -> bool:
    """Whether the CRM itself refuses a second record with this one's key."""
    kind = shape.native_keys.get(name)
    if kind is None or not match.value(kind):
        return False
    if kind is not MatchKey.BOOKING:
        return True
    spec = directory.field(name, directory.booking_fields.get(name, ""))
    return bool(spec and spec.unique)
