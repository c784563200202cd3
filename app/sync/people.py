"""Chooses the record for an attendee, and the company that the person belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from app.crm.lookup import LookupResults
from app.crm.objects import (
    OWN_COMPANY,
    PEOPLE,
    WRITE_ORDER,
    ObjectName,
    Ref,
)
from app.sync.desired import DesiredRecord
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.lookups import (
    LedgerEntries,
    is_own_company,
)
from app.sync.merge import MergedRecord, placeholder

LookUp = Callable[[Ref], LedgerEntry | None]
"""Gives the ledger entry of a record that was not asked for before."""


def choose_people(
    wanted: Mapping[Ref, MergedRecord], ledger: LedgerEntries, findings: LookupResults
) -> dict[Ref, MergedRecord]:
    """Keep either the contact or the lead of an attendee; all links go to the one that is kept."""
    left = dict(wanted)
    swapped: dict[Ref, Ref] = {}
    for ref, item in wanted.items():
        if ref.object is not ObjectName.LEAD:
            continue
        contact = Ref(ObjectName.CONTACT, ref.key)
        twin = wanted.get(contact)
        became = [f for f in findings.found.get(ref, ()) if f.became == contact]
        if twin is None:
            if not became:
                continue
            # The mapping has no contacts: the lead's links move to the contact that it became.
            left[contact] = replace(item, record=placeholder(contact))
        elif twin.record.fill_only != item.record.fill_only and not became:
            continue  # An entry that only fills fields in does not decide between the two.
        elif not _is_contact(ref, contact, wanted, ledger, findings):
            del left[contact]
            swapped[contact] = ref
            continue
        del left[ref]
        swapped[ref] = contact
        for hit in became:
            findings.add(contact, hit)
    ordered = sorted(left.items(), key=lambda pair: WRITE_ORDER.index(pair[0].object))
    return {ref: _relinked(item, swapped) for ref, item in ordered}


def _is_contact(
    lead: Ref,
    contact: Ref,
    wanted: Mapping[Ref, MergedRecord],
    ledger: LedgerEntries,
    findings: LookupResults,
) -> bool:
    known = ledger.get(contact)
    if (known and known.live) or findings.found.get(contact):
        return True
    there = findings.found.get(lead, ())
    if any(item.became == contact for item in there):
        return True
    if there or lead in ledger:
        return False
    record = wanted[contact].record
    companies = [ref for ref in record.links if ref.object is ObjectName.COMPANY]
    return record.match.create and any(
        findings.found.get(ref) or (ref in ledger and ledger[ref].live) for ref in companies
    )


def _relinked(item: MergedRecord, swapped: Mapping[Ref, Ref]) -> MergedRecord:
    links = tuple(dict.fromkeys(swapped.get(ref, ref) for ref in item.record.links))
    return replace(item, record=replace(item.record, links=links))


def use_own_companies(
    diff: Diff, ledger: LedgerEntries, findings: LookupResults, look_up: LookUp
) -> LedgerEntries:
    """Link a person's records to the company that the person belongs to in the CRM.

    That company takes priority over one that is found or created by the domain of the e-mail
    address, unless the ledger says that it is gone. Return the ledger with these companies in it.
    """
    own: dict[Ref, Ref] = {}
    for ref, item in diff.wanted.items():
        if ref.object is ObjectName.CONTACT and item.record.with_company:
            company = _own_company(ref, item.record, ledger, findings)
            line = look_up(company) if company else None
            if company and not (line and line.lost):
                own[ref] = company
    if not own:
        return ledger
    known = dict(ledger)
    for company in own.values():
        if company not in known:
            known[company] = LedgerEntry(company.key.removeprefix(OWN_COMPANY))
        diff.companies[company] = known[company].record_id or ""
    wanted = {ref: _at_own_company(item, own) for ref, item in diff.wanted.items()}
    version = max(item.version for item in wanted.values())
    wanted |= {company: MergedRecord(placeholder(company), version) for company in diff.companies}
    linked = {link for item in wanted.values() for link in item.record.links}
    # A company that nobody belongs to any more is neither created nor filled.
    taken = {link for item in diff.wanted.values() for link in item.record.links} - linked
    ordered = sorted(wanted.items(), key=lambda pair: WRITE_ORDER.index(pair[0].object))
    diff.wanted = {ref: item for ref, item in ordered if ref not in taken}
    return known


def _own_company(
    ref: Ref, record: DesiredRecord, ledger: LedgerEntries, findings: LookupResults
) -> Ref | None:
    """Return the company that a person belongs to, if it is not the company of the domain."""
    found = next(iter(findings.found.get(ref, ())), None)
    if found is None:
        known = ledger.get(ref)
        kept = [r for r in known.links if is_own_company(r)] if known and known.live else []
        return kept[0] if kept else None
    if not found.company:
        return None
    for link in record.links:
        if link.object is ObjectName.COMPANY:
            line = ledger.get(link)
            there = line.record_id if line and line.live else findings.first(link)
            if there == found.company:
                return None
    return Ref(ObjectName.COMPANY, f"{OWN_COMPANY}{found.company}")


def _at_own_company(item: MergedRecord, own: Mapping[Ref, Ref]) -> MergedRecord:
    """Link a record to the company of its first contact, in place of the record's first company."""
    record = item.record
    people = [ref for ref in (record.ref, *record.links) if ref.object is ObjectName.CONTACT]
    company = own.get(people[0]) if people and record.ref.object is not ObjectName.COMPANY else None
    if company is None:
        return item
    others = [ref for ref in record.links if ref.object is not ObjectName.COMPANY]
    rest = [ref for ref in record.links if ref.object is ObjectName.COMPANY][1:]
    before = [ref for ref in others if ref.object in PEOPLE]
    after = [ref for ref in others if ref.object not in PEOPLE]
    links = tuple(dict.fromkeys((*before, company, *rest, *after)))
    return replace(item, record=replace(record, links=links))
