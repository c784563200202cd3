"""The lookup procedure of every adapter: first by id, then key by key, in rounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from app.crm.lookup import CrmRecord, FoundBy, Lookup, LookupKey, LookupResults, MatchKey, Whose
from app.crm.objects import BOOKING_LINE, WRITE_ORDER, Fields, ObjectName, Ref, content_hash

Hit = tuple[Lookup, CrmRecord]
Claim = tuple[Lookup, Whose, CrmRecord]
"""A lookup of a record named by hand, the attendee it must belong to, and the record found."""
# Tags that a CRM's editor adds around a text are ignored.
_NUMBER = re.compile(re.escape(BOOKING_LINE) + r"([^\s<]+)(?:\s|<[^<>]*>)*\Z")
_ADDRESS = re.compile(
    r"(?i:https?)://(?P<host>[^/?#\s]+)(?P<path>/[^?#\s]*)?(?:\?[^#\s]*)?(?:#(?P<fragment>\S*))?"
)
LONGEST_ADDRESS = 2_000
"""Most characters of a record's URL; browsers cut longer query strings off."""


class KeyFinder:
    """Looks up all records of an object together; a key is used only if no earlier key had a hit."""

    def __init__(self, questions: Sequence[Lookup], ids: Mapping[Ref, str]) -> None:
        self._questions = questions
        self._ids = ids
        self.findings = LookupResults(asked=frozenset(question.ref for question in questions))

    def run(self) -> LookupResults:
        """Run all lookups."""
        for name in WRITE_ORDER:
            mine = [question for question in self._questions if question.ref.object is name]
            known = {q.record_id: q for q in mine if q.record_id}
            self._take(self.by_id(name, known) if known else iter(()))
            # A record that is not found by its id may be found by its keys.
            open_ = [q for q in mine if q.ref not in self.findings.found and q.keys]
            for place in range(max((len(q.keys) for q in open_), default=0)):
                self._round(name, [q for q in open_ if len(q.keys) > place], place)
            self.after(name)
        oldest_first(self.findings)
        return self.findings

    def _round(self, name: ObjectName, questions: list[Lookup], place: int) -> None:
        asked = [(q, q.keys[place]) for q in questions if q.ref not in self.findings.found]
        for kind in dict.fromkeys(key.kind for _, key in asked):
            part = [(q, key) for q, key in asked if key.kind is kind]
            if kind is MatchKey.RECORD_ID:
                self._take(self._named(name, part))
            else:
                self._take(self.by_key(name, kind, part))

    def _named(self, name: ObjectName, asked: list[tuple[Lookup, LookupKey]]) -> Iterator[Hit]:
        """Read records named by hand; one that must be the attendee's but is not counts as no hit."""
        asked = [
            (replace(q, fields=q.fields | self.telling(name)) if key.of else q, key)
            for q, key in asked
        ]
        first = {key.value: q for q, key in reversed(asked)}
        read = {q.ref: found for q, found in self.by_id(name, first)}
        hits = [
            (q, key, read[first[key.value].ref]) for q, key in asked if first[key.value].ref in read
        ]
        theirs = self.theirs(name, [(q, key.of, hit) for q, key, hit in hits if key.of])
        for question, key, hit in hits:
            if key.of is None or question.ref in theirs:
                yield question, hit
            else:
                self.findings.refuse(question.ref, hit.record_id)

    def _take(self, hits: Iterator[Hit]) -> None:
        for question, found in hits:
            self.findings.add(question.ref, found)

    def id_of(self, ref: Ref) -> str | None:
        """Return the id of a record that is known or was found a moment ago."""
        return self._ids.get(ref) or self.findings.first(ref)

    def ids_of(self, refs: Sequence[Ref]) -> dict[str, Ref]:
        """Return id -> ref for every known or found record; one ref may have several ids."""
        return ids_of(refs, self._ids, self.findings)

    def booked(self, question: Lookup, *names: ObjectName) -> set[str]:
        """Return the ids of the booking's own records among a lookup's anchors, for some objects."""
        return booked_ids(question.anchors, names, self._ids, self.findings)

    def after(self, name: ObjectName) -> None:
        """Read what else is needed of an object's records before the next object is looked up."""

    def telling(self, name: ObjectName) -> frozenset[str]:
        """Return the fields that show who a record belongs to."""
        raise NotImplementedError

    def theirs(self, name: ObjectName, named: list[Claim]) -> set[Ref]:
        """Return the records named by hand that belong to the attendee, in as few calls as possible.

        A person is recognised by an e-mail address, or by its domain or the company's; a company by
        its domain; a deal by a link to a person or a company of the booking.
        """
        raise NotImplementedError

    def by_id(self, name: ObjectName, wanted: Mapping[str, Lookup]) -> Iterator[Hit]:
        """Read records of an object by their ids."""
        raise NotImplementedError

    def by_key(
        self, name: ObjectName, kind: MatchKey, asked: list[tuple[Lookup, LookupKey]]
    ) -> Iterator[Hit]:
        """Search records of an object by one kind of key; this service compares each hit again."""
        raise NotImplementedError


def ids_of(
    refs: Sequence[Ref], known: Mapping[Ref, str], findings: LookupResults
) -> dict[str, Ref]:
    """Return id -> ref; for a ref without a known id, the ids of all records that were found."""
    found = {ref: [hit.record_id for hit in findings.found.get(ref, ())] for ref in refs}
    return {i: ref for ref in refs for i in ([known[ref]] if ref in known else found[ref])}


def booked_ids(
    refs: Sequence[Ref],
    names: Sequence[ObjectName],
    known: Mapping[Ref, str],
    findings: LookupResults,
) -> set[str]:
    """Return the ids of a booking's records of some objects, with the companies of people found."""
    there = {*ids_of([ref for ref in refs if ref.object in names], known, findings)}
    if ObjectName.COMPANY in names:
        there |= {hit.company for ref in refs for hit in findings.found.get(ref, ())}
    return there - {""}


def recognise_lost_create(
    question: Lookup, key: LookupKey, values: Fields, marker: str, body: str, title: str
) -> FoundBy | None:
    """Return what identifies a record as the one whose create got no answer; None if it is another.

    The booking-id field decides if there is one. Otherwise the booking's number at the end of the
    text decides, and the title only if there is no number. `marker`, `body` and `title` name these
    fields.
    """
    if marker in question.content:
        return FoundBy.BOOKING_NUMBER if values.get(marker) == key.value else None
    ending = number_at_end(values.get(body))
    if ending:
        number = key.value.partition(":")[2].partition("@")[0]
        return FoundBy.BOOKING_NUMBER if ending == number else None
    same = content_hash(values.get(title)) in question.lost_create.get(title, ())
    return FoundBy.TITLE if same else None


def number_at_end(text: object) -> str:
    """Return the booking's number at the end of a record's text; empty if there is none."""
    ending = _NUMBER.search(str(text or ""))
    return ending[1] if ending else ""


def oldest_first(findings: LookupResults) -> None:
    """Sort the records that match one lookup by the time when they were created."""
    for there in findings.found.values():
        there.sort(key=lambda found: (found.made_at, len(found.record_id), found.record_id))


def read_ids(questions: Sequence[Lookup], read: Callable[[ObjectName, str], str]) -> list[Lookup]:
    """Replace texts that people typed by the ids in them; a text without an id is dropped as a key."""

    def bare(question: Lookup) -> Lookup:
        name, named = question.ref.object, MatchKey.RECORD_ID
        keys = (
            key._replace(value=read(name, key.value)) if key.kind is named else key
            for key in question.keys
        )
        return replace(question, keys=tuple(key for key in keys if key.value))

    return [bare(question) for question in questions]


def address_in(text: str) -> tuple[str, str, str] | None:
    """Return host, path and fragment of a web address; None for any other text.

    The host is in lower case, with the port if one is given. A user name and an @ in front of it
    make it a different host.
    """
    found = _ADDRESS.fullmatch(text.strip()) if len(text) <= LONGEST_ADDRESS else None
    return (found["host"].lower(), found["path"] or "", found["fragment"] or "") if found else None


LAST_PART = "/(?:.*/)?{id}/?"
"""A page whose URL ends in the id."""
NUMBER = "[1-9][0-9]{0,17}"
"""A record number fits in 64 bits; with a leading zero it would come back as another text."""


def id_in(
    text: str,
    is_own: Callable[[str], object],
    pages: Sequence[str] = (LAST_PART,),
    form: str = NUMBER,
) -> str:
    """Return the id that a person typed, or the id in the URL of a record's page; empty if none.

    `is_own`: whether a host belongs to this account. `pages`: the form of its pages' paths, with
    `{id}` for the id, and with the part after `#` if that identifies the record. `form`: the form
    of the ids. Both forms are regular expressions.
    """
    address = address_in(text)
    if address is None:
        bare = text.strip()
        return bare if re.fullmatch(form, bare) else ""
    host, path, fragment = address
    for page in pages if is_own(host) else ():
        place = f"{path}#{fragment}" if "#" in page else path
        found = re.fullmatch(page.replace("{id}", f"({form})"), place)
        if found:
            return found[1]
    return ""
