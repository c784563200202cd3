"""The way in which every adapter answers questions: by id first, then key by key, in rounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from app.domain.errors import Gone, InvalidRecord
from app.domain.records import (
    BY_NUMBER,
    BY_TITLE,
    WRITE_ORDER,
    Fields,
    Findings,
    Found,
    Key,
    MatchKey,
    ObjectName,
    Plan,
    Question,
    Ref,
    content_hash,
)
from crm_adapters.base import Report, unblocked

Hit = tuple[Question, Found]
# What a CRM's editor puts around a text says nothing.
_NUMBER = re.compile(r"meetergo booking ([^\s<]+)(?:\s|<[^<>]*>)*\Z")
_ADDRESS = re.compile(r"https?://\S+")


class KeyFinder:
    """Asks for all records of an object together; a key is asked only where none before it hit."""

    def __init__(self, questions: Sequence[Question], ids: Mapping[Ref, str]) -> None:
        self._questions = questions
        self._ids = ids
        self.findings = Findings(asked=frozenset(question.ref for question in questions))

    def run(self) -> Findings:
        """Answer everything."""
        for name in WRITE_ORDER:
            mine = [question for question in self._questions if question.ref.object is name]
            known = {q.record_id: q for q in mine if q.record_id}
            self._take(self.by_id(name, known) if known else iter(()))
            # What is no longer there under its id may be there under its keys.
            open_ = [q for q in mine if q.ref not in self.findings.found and q.keys]
            for place in range(max((len(q.keys) for q in open_), default=0)):
                self._round(name, [q for q in open_ if len(q.keys) > place], place)
        oldest_first(self.findings)
        return self.findings

    def _round(self, name: ObjectName, questions: list[Question], place: int) -> None:
        asked = [(q, q.keys[place]) for q in questions if q.ref not in self.findings.found]
        for kind in dict.fromkeys(key.kind for _, key in asked):
            part = [(q, key) for q, key in asked if key.kind is kind]
            if kind is MatchKey.RECORD_ID:
                ids = {record_id_in(key.value): q for q, key in part}
                self._take(self.by_id(name, {i: q for i, q in ids.items() if i}))
            else:
                self._take(self.by_key(name, kind, part))

    def _take(self, hits: Iterator[Hit]) -> None:
        for question, found in hits:
            self.findings.add(question.ref, found)

    def id_of(self, ref: Ref) -> str | None:
        """The id of a record that is known or was found a moment ago."""
        return self._ids.get(ref) or self.findings.first(ref)

    def ids_of(self, refs: Sequence[Ref]) -> dict[str, Ref]:
        """Every id that records are known or were found by: which of several is meant is not said."""
        return ids_of(refs, self._ids, self.findings)

    def by_id(self, name: ObjectName, wanted: Mapping[str, Question]) -> Iterator[Hit]:
        """Read records of an object by their ids."""
        raise NotImplementedError

    def by_key(
        self, name: ObjectName, kind: MatchKey, asked: list[tuple[Question, Key]]
    ) -> Iterator[Hit]:
        """Look for records of an object by one kind of key; each hit compared again by us."""
        raise NotImplementedError


def ids_of(refs: Sequence[Ref], known: Mapping[Ref, str], findings: Findings) -> dict[str, Ref]:
    """Ids of records -> whose they are; all that were found where none is known."""
    found = {ref: [hit.record_id for hit in findings.found.get(ref, ())] for ref in refs}
    return {i: ref for ref in refs for i in ([known[ref]] if ref in known else found[ref])}


def told_begun(
    question: Question, key: Key, values: Fields, marker: str, body: str, title: str
) -> str:
    """By what a record is the one whose create was begun; empty where it is not.

    It is told by the booking-id field where there is one, else by the booking's number at the end of
    its text, and only where there is no number by its title; `marker`, `body` and `title` name these
    fields.
    """
    if marker in question.content:
        return BY_NUMBER if values.get(marker) == key.value else ""
    ending = number_at_end(values.get(body))
    if ending:
        number = key.value.partition(":")[2].partition("@")[0]
        return BY_NUMBER if ending == number else ""
    same = content_hash(values.get(title)) in question.begun.get(title, "").split("|")
    return BY_TITLE if same else ""


def number_at_end(text: object) -> str:
    """The booking's number at the end of a record's text; empty where there is none."""
    ending = _NUMBER.search(str(text or ""))
    return ending[1] if ending else ""


def note_lost_targets(
    find: Callable[[Sequence[Question], Mapping[Ref, str]], Findings], plan: Plan, report: Report
) -> None:
    """Where a write failed, look whether what it was to be linked to is still there.

    A person may have merged or deleted it: then that is what is noted as gone, to be followed or
    made again, and the record that hangs on it waits. Whatever words the CRM has for it. So it is
    with a record that was found before it was written.
    """
    failed = [
        change
        for change in plan.changes
        if isinstance(report.problems.get(change.ref), (InvalidRecord, Gone))
    ]
    suspects = {
        ref: plan.ids[ref]
        for change in failed
        for ref in change.targets
        if ref in plan.ids and ref not in report.results and ref not in report.problems
    }
    suspects |= {c.ref: c.record_id for c in failed if c.adopted and c.record_id}
    if not suspects:
        return
    there = find([Question(ref, record_id) for ref, record_id in suspects.items()], {}).found
    for ref, record_id in suspects.items():
        if not any(found.record_id == record_id for found in there.get(ref, ())):
            words = f"The {ref.object} {record_id} was deleted, or merged into another one."
            report.problems[ref] = Gone(words, record_id)
    for change in failed:
        if report.blocked_by(change.targets):
            del report.problems[change.ref]
            unblocked([change], report, plan.known_ids())


def oldest_first(findings: Findings) -> None:
    """Put the records that match one question in the order in which they were made."""
    for there in findings.found.values():
        there.sort(key=lambda found: (found.made_at, len(found.record_id), found.record_id))


def record_id_in(text: str) -> str:
    """The record id in what a person typed or pasted: the id itself, or the record's address."""
    text = text.strip()
    if not _ADDRESS.fullmatch(text):
        return text
    parts = [part for part in re.split(r"[/?#&=]", text) if re.search(r"\d", part)]
    ids = [part for part in parts if re.fullmatch(r"\d+|[a-zA-Z0-9]{15}(?:[a-zA-Z0-9]{3})?", part)]
    return ids[-1] if ids else ""
