"""Any booking with any valid mapping gives a plan or a named error, the same twice, and then no
change.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import jsonschema
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from app.crm.lookup import CrmRecord, FoundBy, Lookup, LookupResults
from app.crm.objects import Fields, ObjectName, Ref
from app.crm.schema import CrmField, CrmShape, Directory, FieldKind, FieldOption, Pipeline, Stage
from app.domain.booking import Booking
from app.domain.errors import CrmError, UnfitPayload
from app.domain.events import read_booking, read_event, read_form
from app.domain.history import History
from app.domain.text import measure
from app.mapping.check import check_against
from app.mapping.json_schema import json_schema
from app.mapping.load import MappingText
from app.mapping.mapping import Mapping as FieldMapping
from app.mapping.paths import FIXED, kind_of
from app.mapping.plan import Planner
from app.mapping.plan_context import PlanContext
from app.mapping.transforms import PLAIN
from app.sync.desired import DesiredBooking
from app.sync.diff import diff_records
from app.sync.diff_state import Diff
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import written
from app.sync.lookups import lookups_for
from app.sync.merge import merge
from config.providers import load_providers
from config.settings import CONFIG_DIR
from crm_adapters.base import load_adapter
from tests.bridge import PROVIDERS

NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
STAGES = (Stage("s1", "New"), Stage("s2", "Demo"), Stage("s3", "Won", closed=True))
OPTIONS = (
    FieldOption("A", "Option A"),
    FieldOption("B", "Option B, too"),
    FieldOption("true", "Yes"),
)
KINDS = {
    "f_text": FieldKind.TEXT, "f_short": FieldKind.TEXT, "f_number": FieldKind.NUMBER, "f_whole": FieldKind.WHOLE,
    "f_flag": FieldKind.FLAG, "f_date": FieldKind.DATE, "f_moment": FieldKind.MOMENT, "f_time": FieldKind.TIME,
    "f_choice": FieldKind.CHOICE, "f_choices": FieldKind.CHOICES, "f_other": FieldKind.OTHER,
    "f_money": FieldKind.MONEY, "f_address": FieldKind.ADDRESS, "f_dates": FieldKind.DATES, "f_times": FieldKind.TIMES,
    "f_user": FieldKind.USER, "f_reference": FieldKind.REFERENCE,
}  # fmt: skip
SCHEMA = {
    name: CrmField(
        name,
        name,
        kind,
        options=OPTIONS if kind in (FieldKind.CHOICE, FieldKind.CHOICES) else (),
        length=12 if name == "f_short" else None,
        currency="EUR" if kind is FieldKind.MONEY else "",
        form=r"\d{1,18}" if kind in (FieldKind.USER, FieldKind.REFERENCE) else "",
    )
    for name, kind in KINDS.items()
}
DIRECTORY = Directory(
    owners={"john@acme.example": "7", "mary@acme.example": "8"},
    pipelines=(
        Pipeline("p1", "Sales", STAGES),
        Pipeline("p2", "Renewals", (Stage("r1", "Due"), Stage("r2", "Talks"))),
    ),
    booking_fields={ObjectName.DEAL: "booking_id", ObjectName.MEETING: "booking_id"},
    schema=dict.fromkeys(ObjectName, SCHEMA),
)


@lru_cache
def shape_of(provider: str) -> CrmShape:
    """Return a CRM's shape from its adapter."""
    entry = load_providers(CONFIG_DIR / "providers.yaml", {})[provider]
    return load_adapter(entry.adapter).shape


# Bookings of every kind: usual ones, possible ones, and absurd ones

WORDS = st.sampled_from(
    ["Ann", "van der Berg", "Ø", "{{ 7*7 }}", "<b>x</b>", "\u202eevil", "\x00", "\ud800", "=1+1", "İ",
     "a" * 300, " ", "5", "yes", "Option A", "2026-12-01", "1.234,50 €", "x@y.example", "https://x.example/?a=b"]
)  # fmt: skip
TEXT = WORDS | st.text(max_size=12)
WEIRD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ODD = st.sampled_from(
    ["\x00a\u202e", "\ud800", "b\x07", float("inf"), float("nan"), 10**30, 10**400, "9" * 400, "a" * 500,
     {"a": {"b": "\x07"}}, ["\x07x", 5, True, None], "{{ 1 }}", True, 0, -0.0, "12"]
)  # fmt: skip
NASTY = st.integers(0, 3).flatmap(lambda dice: ODD if dice else WEIRD)
TIMES = st.sampled_from(
    ["2026-12-01T09:00:00+01:00", "2026-12-01T08:30:00Z", "2026-11-01T00:00:00", "2027-03-28T01:30:00Z",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1000-01-01T00:00:00Z", "soon"]
)  # fmt: skip
MAILS = st.sampled_from(
    ["ann@globex.example", "ANN@globex.example ", "bob@globex.example", "cy@gmail.com",
     "dee@acme.example", "no address", "a" * 250 + "@x.example", "e@sub.initech.example"]
)  # fmt: skip
HOSTS = st.sampled_from(["john@acme.example", "MARY@acme.example", "nobody@acme.example"])
PHONES = st.sampled_from(["+49 151 23456789", "0151 23456789", "123", "call me", "+1 415 555 2671"])
ZONES = st.sampled_from(["Europe/Berlin", "Pacific/Apia", "America/New_York", "Mars/Base", ""])
LABELS = st.sampled_from(["Budget", " BUDGET ", "Ziel?", "Topics", "items", "copy", "Nr"]) | TEXT


def rarely(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw the first nearly always."""
    return st.integers(0, 11).flatmap(lambda dice: odd if dice == 7 else good)


def table(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a table in which every key may be missing or may hold anything."""
    return st.fixed_dictionaries({}, optional={k: v | WEIRD for k, v in keys.items()})


def usual(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a table with all keys; one or two may be missing or hold anything."""
    whole = st.fixed_dictionaries(keys)
    odd = st.dictionaries(st.sampled_from(sorted(keys)), st.just(...) | WEIRD, max_size=2)
    return whole | st.tuples(whole, odd).map(
        lambda pair: {k: v for k, v in (pair[0] | pair[1]).items() if v is not ...}
    )


NOTES = st.dictionaries(LABELS, TEXT | st.lists(TEXT, max_size=3) | NASTY, min_size=1, max_size=4)
ATTENDEE = usual(
    id=TEXT, email=MAILS, firstname=TEXT, lastname=TEXT, fullname=TEXT, phone=PHONES, timezone=ZONES,
    language=st.sampled_from(["de", "en-US", "xx"]), notes=NOTES,
)  # fmt: skip
KIND = usual(
    id=TEXT, slug=st.sampled_from(["demo", "support"]), name=TEXT,
    metadata=st.dictionaries(st.sampled_from(["price", "deal"]), TEXT | WEIRD, max_size=2),
    meetingInfo=table(name=TEXT),
)  # fmt: skip
STARTS = st.sampled_from(
    ["2026-12-01T09:00:00+01:00", "2026-12-01T08:30:00Z", "2026-11-01T00:00:00", "1000-01-02T00:00:00Z"]
)  # fmt: skip
PAYLOAD = st.builds(
    lambda rest, start, number: {**rest, "id": number, "start": start},
    usual(
        end=TIMES, location=TEXT, isCancelled=st.booleans(), rescheduledAt=TIMES, updatedAt=TIMES,
        createdAt=TIMES, companyId=TEXT, custom=NASTY, secret=st.just("cancel-token"),
        attendees=st.lists(ATTENDEE, min_size=1, max_size=4) | ATTENDEE.map(lambda one: [one] * 30),
        hosts=st.lists(usual(id=TEXT, email=HOSTS, givenName=TEXT, familyName=TEXT), max_size=3),
        meetingType=KIND,
        meetingInfo=usual(channel=st.sampled_from(["zoom", "phone"]), meetingLink=TEXT),
        cancel=table(reason=TEXT, actionBy=TEXT, actionAt=TIMES),
    ),
    rarely(STARTS, TIMES | WEIRD),
    rarely(st.sampled_from(["b1", "b1", "b2", 4711]), WEIRD),
)  # fmt: skip
EVENTS = st.sampled_from(["booking_created", "booking_rescheduled", "booking_cancelled"])


@st.composite
def bookings(draw: st.DrawFn) -> Booking:
    """Draw a booking as read from a webhook; payloads that the service refuses are skipped."""
    payload = {"webhookType": draw(EVENTS), **draw(PAYLOAD)}
    try:
        payload = json.loads(json.dumps(payload))
    except ValueError:
        assume(False)
    received = read_event("default", payload, NOW)
    try:
        made = read_booking(received)
        if draw(st.integers(0, 9)) == 0:
            made = read_form(received) or made
    except UnfitPayload as error:
        event("unfit")
        assert str(error)
        assume(False)
    earlier = draw(st.lists(st.integers(1, 5), max_size=2, unique=True))
    return replaced(
        made, previous_starts=tuple(made.start - timedelta(days=n) for n in sorted(earlier))
    )


def replaced(booking: Booking, **changes: Any) -> Booking:
    """Return the booking with other values."""
    return Booking(**{**vars(booking), **changes})


# Mapping files, composed from the language

REACHED = [
    "answers.Budget", 'answers["Ziel?"]', "answers['Topics']", "link.a", "payload.custom",
    "payload.custom", "payload.custom.a", "payload.attendees.0.notes", "payload.meetingType",
    "meeting_type.metadata.price",
]  # fmt: skip
PATHS = st.sampled_from(sorted(FIXED)) | st.sampled_from(REACHED)
TEMPLATES = st.sampled_from(
    ["{{ attendee.full_name }}", "{{ meeting_type.name or 'x' }}: {{ attendee.display_name }}",
     "{% for q, a in answers.items() %}{{ q }}={{ a }};{% endfor %}", "{{ answers['budget']|int + 1 }}",
     "{{ booking.start|date('Europe/Berlin') }}", "{{ payload.custom }}", "{{ payload.custom }}!", "{{ payload.custom.a.b }}",
     "{{ booking.attendee_names|join(', ') }}", "{% if booking.cancelled %}off{% endif %}", "{{ 1 / 0 }}",
     "{{ person.booked }} {{ person.next_meeting }}", "{{ answers.Nr ~ answers.Topics }}"]
)  # fmt: skip
TRANSFORMS = st.lists(
    st.sampled_from(
        [*PLAIN, {"truncate": 5}, {"add_days": 3}, {"default": "A"},
         {"map": {"a": "A", "yes": "B", "scheduled": "A"}}, {"tz": "booking"}, {"tz": "Pacific/Apia"},
         {"date": "%d.%m.%Y"}, {"join": "; "}]
    ),
    max_size=3,
)  # fmt: skip
TESTS = st.one_of(
    st.sampled_from(["", "demo", "ann@globex.example", True, 30, None]),
    st.sampled_from([["a", "b"], {"not": "x"}, {"contains": "a"}, {"contains": ["a", 5]}, {"empty": True},
                     {"starts_with": "A"}, {"not": ["", "x"]}, {"not": {"empty": False}}]),
)  # fmt: skip
OPEN = st.sampled_from(
    ["attendee.email", "attendee.email_domain", "answers.Budget", "meeting_type.slug", "booking.channel",
     "host.email", "payload.custom", "booking.attendee_emails", "attendee.is_booker"]
)  # fmt: skip
LINES = st.one_of(
    st.dictionaries(OPEN, TESTS, max_size=2),
    st.sampled_from(
        [{"booking.state": "cancelled"}, {"booking.state": {"not": "created"}}, {"booking.cancelled": True},
         {"booking.minutes": {"above": 20}}, {"answers.Budget": {"below": 5000}},
         {"booking.outcome": ["held", "no_show"]}]
    ),
)  # fmt: skip
WHEN = st.one_of(
    LINES,
    st.lists(LINES, min_size=1, max_size=2).map(lambda lines: {"any": lines}),
    st.tuples(LINES, LINES).map(lambda pair: {"all": [pair[0], {"any": [pair[1]]}]}),
)
SOURCE = st.one_of(
    PATHS.map(lambda path: {"from": path}),
    PATHS.map(lambda path: {"from": path}),
    st.sampled_from(["A", 5, 1.5, True, ["A", "B"], "2026-12-01", None]).map(
        lambda v: {"value": v}
    ),
    TEMPLATES.map(lambda template: {"template": template}),
    TEMPLATES.map(lambda template: {"template": template}),
    st.lists(PATHS, min_size=1, max_size=3).map(lambda paths: {"first_of": paths}),
    st.sampled_from([{"summary": "all"}, {"answers": "all"}, {"answers": "unmapped"}]),
)


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a table with some of the keys."""
    return st.fixed_dictionaries({}, optional=keys)


RULES = some(
    **{"as": st.just([]) | TRANSFORMS, "when": rarely(st.just({}), WHEN)},
    write=st.sampled_from(
        ["always", "if_empty", "on_create", "never_blank", "append", "untouched"]
    ),
    on_error=st.sampled_from(["fail", "skip", "skip_record", "skip"]),
)
FIELD = st.integers(0, 4).flatmap(
    lambda dice: st.tuples(SOURCE, RULES).map(lambda p: p[0] | p[1]) if dice else PATHS
)
NAMES = {
    name: [
        *KINDS, "free", "other",
        *(place.partition(".")[2] for provider in PROVIDERS for place in shape_of(provider).text_limits
          if place.startswith(f"{name}.")),
    ]
    for name in ObjectName
}  # fmt: skip


def fields(name: ObjectName) -> st.SearchStrategy[dict[str, Any]]:
    """Draw fields of an object, also fields with a limit."""
    return st.dictionaries(st.sampled_from(NAMES[name]), FIELD, min_size=1, max_size=5)


KEY = st.builds(
    lambda name, source: {"field": name, "from": source},
    st.sampled_from(["f_text", "free"]),
    PATHS | st.tuples(SOURCE, some(**{"as": TRANSFORMS})).map(lambda pair: pair[0] | pair[1]),
)


def section(name: ObjectName, *keys: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw the rules of one object."""
    if name is not ObjectName.MEETING:
        more["match"] = st.lists(st.sampled_from(keys or ("record_id",)) | KEY, max_size=3)
    base = some(
        when=rarely(st.just({}), WHEN), several=st.sampled_from(["newest", "oldest", "flag"]),
        create=rarely(st.just(True), st.just(False)),
        when_deleted=st.sampled_from(["recreate", "leave"]), **more,
    )  # fmt: skip
    return st.builds(
        lambda rules, inner, place: {**rules, "fields": inner, "record_id": place},
        base, fields(name), PATHS,
    )  # fmt: skip


DEALS = st.builds(
    lambda rules, pipeline, state, stage: {
        **rules, "pipeline": pipeline,
        "stage": {state: stage if pipeline != "Renewals" else "Talks", "created": "first"},
    },
    section(ObjectName.DEAL, per=st.sampled_from(["booking", "open_deal_of_contact", "none", "booking"]),
            backwards=st.booleans()),
    st.sampled_from(["first", "Sales", "Renewals"]),
    st.sampled_from(["created", "rescheduled", "cancelled"]), st.sampled_from(["first", "Demo", "keep"]),
)  # fmt: skip
OWNER = st.one_of(
    some(write=st.sampled_from(["always", "if_empty", "untouched"]), fallback=HOSTS),
    st.sampled_from(
        [{"rule": "keep"}, {"rule": "fixed", "user": "mary@acme.example"},
         {"rule": "table", "table": {"John@acme.example": "mary@acme.example"}},
         {"rule": "round_robin", "users": ["john@acme.example", "gone@acme.example"]}]
    ),
)  # fmt: skip
PERSON = ("record_id", "email", "secondary_email", "phone")


def rules(leads: bool, override: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Draw the rules for all bookings, or an override for some."""
    kinds = ["contact", "contact"]
    kinds += ["lead", "contact_then_lead", "contact_under_account_else_lead"] if leads else []
    parts = {
        "contact": section(ObjectName.CONTACT, *PERSON, **{"as": st.sampled_from(kinds)}),
        "company": rarely(section(ObjectName.COMPANY, "record_id", "domain"), st.just("none")),
        "deal": rarely(DEALS, st.lists(DEALS, max_size=2) | st.just("none")),
        "meeting": section(
            ObjectName.MEETING,
            on_reschedule=st.sampled_from(["move", "keep_history"]),
            on_cancel=st.sampled_from(["mark", "delete"]),
        ),
    }
    if leads:
        parts |= {"lead": section(ObjectName.LEAD, *PERSON), "case": section(ObjectName.CASE)}
    common = {
        "attendees": rarely(st.sampled_from(["all", "booker"]), WHEN.map(lambda w: {"when": w})),
        "skip": rarely(st.just([]), st.builds(lambda w: [{"when": w, "because": "so"}], WHEN)),
        "owner": OWNER,
    }
    if override:
        return some(**parts, **common)
    return st.tuples(st.fixed_dictionaries(parts), some(**common)).map(lambda p: p[0] | p[1])


def lenient(node: Any) -> Any:
    """Return the same rules, but every field that fails is skipped."""
    if isinstance(node, list):
        return [lenient(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: lenient(value) for key, value in node.items()}
    if isinstance(made.get("fields"), dict):
        made["fields"] = {
            key: ({"from": spec} if isinstance(spec, str) else spec) | {"on_error": "skip"}
            for key, spec in made["fields"].items()
        }
    return made


@st.composite
def mappings(draw: st.DrawFn, provider: str) -> FieldMapping:
    """Draw a mapping file that is valid for schema and loader, with overrides."""
    leads = ObjectName.LEAD in shape_of(provider).objects
    plain = draw(rules(leads)) | draw(
        some(
            meeting_types=st.dictionaries(
                st.sampled_from(["demo", "support"]), rules(leads, True), max_size=1
            ),
            hosts=st.dictionaries(HOSTS, rules(leads, True), max_size=1),
            recheck_links_after=st.integers(1, 10_080),
            assignment_rules=st.booleans(),
            form_submission=some(
                after_hours=st.integers(1, 720), fields=fields(ObjectName.CONTACT)
            ),
        )
    )
    plain = lenient(plain) if draw(st.integers(0, 5)) else plain
    text = json.dumps({"version": 1, "crm": provider, **plain}, indent=1)
    read = MappingText(f"{provider}.yaml", text, provider)
    assert read.lines() == [], text
    assert [error.message for error in VALIDATOR.iter_errors(json.loads(text))] == []
    assert read.mapping
    return read.mapping


AROUND = st.builds(
    lambda hours, turn, booked, told: PlanContext(
        NOW + timedelta(hours=hours),
        dict.fromkeys(["email:ann@globex.example", "phone:+4915123456789"], told),
        turn,
        booked,
    ),
    st.integers(0, 2000), st.integers(0, 5), st.booleans(),
    st.builds(History, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9),
              st.none() | st.just(NOW), st.none() | st.just(NOW), st.none() | st.just("created")),
)  # fmt: skip
cases = st.sampled_from(PROVIDERS).flatmap(
    lambda provider: st.tuples(st.just(provider), mappings(provider), bookings(), AROUND)
)
quick = settings(
    max_examples=60,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)


@quick
@given(cases)
def test_any_booking_gives_a_plan_or_a_named_error(case: Any) -> None:
    """A plan is the same twice, and its values are clean, short enough and valid JSON; no traceback
    occurs.
    """
    provider, mapping, booking, around = case
    shape = shape_of(provider)
    check_against(mapping, shape, DIRECTORY)
    planner = Planner(mapping, shape, DIRECTORY)
    try:
        plan = planner.plan(booking, around)
    except CrmError as error:
        event(f"error: {type(error).__name__}")
        assert error.message
        with_error = error
    else:
        event("skipped" if plan.skipped else f"{len(plan.records)} records")
        assert plan == Planner(mapping, shape, DIRECTORY).plan(booking, around)
        fit_to_be_sent(plan, shape)
        return
    try:
        planner.plan(booking, around)
    except CrmError as error:
        assert error.message == with_error.message


def fit_to_be_sent(plan: DesiredBooking, shape: CrmShape) -> None:
    """Check that every value can be sent unchanged."""
    refs = {record.ref for record in plan.records}
    assert len(refs) == len(plan.records)
    for record in plan.records:
        json.dumps(dict(record.fields), allow_nan=False)
        assert set(record.links) <= refs
        for name, value in record.fields.items():
            assert name in record.rules
            place = f"{record.ref.object}.{name}"
            limit = 12 if name == "f_short" else shape.text_limits.get(place)
            for text in value if isinstance(value, list) else [value]:
                assert isinstance(text, (str, int, float, bool)) or text is None
                if isinstance(text, str):
                    assert all(
                        unicodedata.category(c) not in ("Cc", "Cs") or c in "\n\t" for c in text
                    )
                    assert "\u202e" not in text
                    assert limit is None or measure(text) <= limit
                    assert "cancel-token" not in text


@dataclass
class Crm:
    """The parts of a CRM that writing and finding need."""

    rows: dict[tuple[ObjectName, str], dict[str, Any]] = field(default_factory=dict)
    keys: dict[tuple[ObjectName, str], frozenset[Any]] = field(default_factory=dict)
    ledger: dict[Ref, LedgerEntry] = field(default_factory=dict)
    number: int = 0

    def find(self, questions: Iterable[Lookup]) -> LookupResults:
        """Answer by id, otherwise by the first key that finds a record."""
        findings = LookupResults(asked=frozenset(question.ref for question in questions))
        for question in questions:
            name = question.ref.object
            row = self.rows.get((name, question.record_id or ""))
            if row is not None:
                findings.add(
                    question.ref, CrmRecord(question.record_id or "", dict(row), FoundBy.RECORD_ID)
                )
                continue
            for key in question.keys:
                there = [i for (kind, i) in self.rows if kind is name and key in self.keys[kind, i]]
                for record_id in there:
                    findings.add(
                        question.ref,
                        CrmRecord(
                            record_id, dict(self.rows[name, record_id]), FoundBy.of(key.kind)
                        ),
                    )
                if there:
                    break
        return findings

    def settle(self, plans: Iterable[DesiredBooking], shape: CrmShape) -> Diff:
        """Run the needed lookups and return the diff."""
        wanted = merge(plans)
        questions = lookups_for(wanted, self.ledger, shape, DIRECTORY)
        return diff_records(wanted, self.ledger, shape, DIRECTORY, self.find(questions))

    def apply(self, settled: Diff) -> None:
        """Apply the diff, and update the ledger as the service does."""
        ids: dict[Ref, str] = {}
        for change in settled.plan.changes:
            name = change.ref.object
            if change.delete:
                self.rows.pop((name, change.record_id or ""), None)
                self.ledger.pop(change.ref, None)
                continue
            record_id = change.record_id
            if record_id is None:
                self.number += 1
                record_id = str(self.number)
            self.rows.setdefault((name, record_id), {}).update(stored(change.fields))
            self.keys[name, record_id] = frozenset(change.match.keys) | self.keys.get(
                (name, record_id), frozenset()
            )
            ids[change.ref] = record_id
        for ref, item in settled.wanted.items():
            known = self.ledger.get(ref)
            record_id = ids.get(ref) or (known.record_id if known else None)
            if record_id and ref not in settled.problems and not item.record.delete:
                hashes = written(item.record, known)
                self.ledger[ref] = LedgerEntry(record_id, hashes, item.record.links, item.version)


def stored(values: Fields | Mapping[str, Any]) -> dict[str, Any]:
    """Return values in the form in which a CRM returns them: text and lists of text."""
    return {
        name: [str(item) for item in value] if isinstance(value, list)
        else str(value).lower() if isinstance(value, bool) else str(value) if value is not None else ""
        for name, value in values.items()
    }  # fmt: skip


@quick
@given(cases, st.lists(bookings(), max_size=2), st.data())
def test_applied_twice_nothing_changes(case: Any, others: list[Booking], data: Any) -> None:
    """After one booking, several bookings or a new state are written, nothing is left to do."""
    provider, mapping, first, around = case
    shape, crm = shape_of(provider), Crm()
    planner = Planner(mapping, shape, DIRECTORY)

    def planned(booking: Booking) -> list[DesiredBooking]:
        try:
            return [planner.plan(booking, around)]
        except CrmError:
            return []

    moved = replaced(first, start=first.start + timedelta(days=1), end=first.end + timedelta(days=1),
                     previous_starts=(*first.previous_starts, first.start), rescheduled=True,
                     updated_at=first.version + timedelta(days=1))  # fmt: skip
    for batch in ([first], [first, *others], [moved]):
        plans = [plan for booking in batch for plan in planned(booking)]
        settled = crm.settle(plans, shape)
        event(f"{min(len(settled.plan.changes), 9)} changes")
        crm.apply(settled)
        again = crm.settle(plans, shape)
        assert again.plan.changes == (), again.plan.changes


TYPED = sorted(path for path in FIXED if kind_of(path) is not FieldKind.TEXT)
"""Paths with a known kind of value other than text."""
LENGTHS = st.none() | st.integers(1, 60)
OPTION_LISTS = st.sampled_from(
    [
        (FieldOption("true", "Ja"), FieldOption("false", "Nein")),
        (FieldOption("1", "Yes"), FieldOption("2", "No")),
        (FieldOption("A", "A"), FieldOption("B", "B")),
        (),
    ]
)


@st.composite
def described(draw: st.DrawFn) -> dict[str, CrmField]:
    """Draw a field of each kind, as the `describe` of some CRM may return it."""
    found = {}
    for number, kind in enumerate(FieldKind):
        listed = kind in (FieldKind.CHOICE, FieldKind.CHOICES, FieldKind.USER)
        found[f"f{number}"] = CrmField(
            f"f{number}",
            "F",
            kind,
            options=draw(OPTION_LISTS) if listed else (),
            currency=draw(st.sampled_from(["", "EUR"])) if kind is FieldKind.MONEY else "",
            form=r"\d{1,18}" if kind in (FieldKind.USER, FieldKind.REFERENCE) else "",
            length=draw(LENGTHS) if kind is FieldKind.TEXT else None,
            empties=draw(st.booleans()),
        )
    return found


typed_sources = st.one_of(
    st.sampled_from(TYPED).map(lambda path: {"from": path}),
    st.sampled_from([p for p in TYPED if kind_of(p) is FieldKind.MOMENT]).flatmap(
        lambda path: st.sampled_from(["date", "time", "iso", {"add_days": 2}]).map(
            lambda transform: {"from": path, "as": transform}
        )
    ),
    st.sampled_from([True, False, 5, 2.5, ["A"], ["A", "B"], "A", "500 EUR", "2027-01-14", "9:30"]).map(
        lambda value: {"value": value}
    ),
    st.sampled_from([{"x": "A"}, {"x": True}, {"x": 5}]).map(
        lambda table: {"value": "x", "as": {"map": table}}
    ),
)  # fmt: skip


@quick
@given(described(), typed_sources, bookings(), st.sampled_from(sorted(PROVIDERS)))
def test_what_check_calls_good_never_fails_for_its_type(
    schema: dict[str, CrmField], source: Any, booking: Booking, provider: str
) -> None:
    """A value of a known kind other than text fits each field that the check allows, and no booking
    fails on it. For a number or names in a list, only the booking shows whether they are
    options.
    """
    directory = replace(DIRECTORY, schema=dict.fromkeys(ObjectName, schema))

    def whole(names: Iterable[str]) -> FieldMapping:
        fields = dict.fromkeys(names, source)
        text = json.dumps({"version": 1, "crm": provider, "contact": {"fields": fields}})
        mapping = MappingText("x.yaml", text, provider).mapping
        assert mapping is not None
        return mapping

    shape = shape_of(provider)
    found = check_against(whole(schema), shape, directory)
    refused = {str(complaint.location[-1]) for complaint in found}
    kind = kind_of(source["from"]) if "from" in source else None
    listed = {
        FieldKind.CHOICE: (FieldKind.WHOLE, FieldKind.NUMBER),
        FieldKind.CHOICES: (FieldKind.CHOICES,),
    }
    good = [
        name
        for name, known in schema.items()
        if name not in refused and kind not in listed.get(known.kind, ())
    ]
    event(f"{len(good)} of {len(schema)} fields take it")
    assert good, source
    plan = Planner(whole(good), shape, directory).plan(booking, PlanContext(now=NOW))
    assert not plan.problems
    assert not [note for note in plan.notes if note.startswith("contact.")]
