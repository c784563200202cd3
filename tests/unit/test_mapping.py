"""Mapping files: errors name file, line and key; plans are correct and the same every time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.crm.lookup import CrmRecord, LookupResults
from app.crm.objects import FieldValue, ObjectName, Ref
from app.crm.schema import CrmField, CrmShape, Directory, FieldKind, FieldOption, Pipeline, Stage
from app.domain.booking import Booking
from app.domain.errors import InvalidRecord, MappingError
from app.domain.events import read_booking, read_event
from app.domain.text import cut, measure
from app.mapping.load import load_mapping, mapping_of
from app.mapping.plan import Planner
from app.mapping.plan_context import PlanContext
from app.mapping.transforms import apply_transforms
from app.sync.desired import DesiredRecord, WriteRule
from app.sync.diff import diff_records
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import known_after, written
from app.sync.merge import MergedRecord, merge
from config.providers import load_providers
from config.settings import CONFIG_DIR
from crm_adapters.base import load_adapter
from tests.bridge import PROVIDERS, sample

NOW = datetime(2026, 11, 24, tzinfo=UTC)
STAGES = (Stage("s1", "New"), Stage("s2", "Demo booked"), Stage("s3", "Lost"))
DIRECTORY = Directory(
    owners={"john@acme.example": "7", "sales@acme.example": "9"},
    pipelines=(Pipeline("p1", "Sales", STAGES),),
    booking_fields={ObjectName.DEAL: "bid"},
)
SHAPE = CrmShape(
    owner_fields=dict.fromkeys(ObjectName, "owner"),
    pipeline_field="pipe",
    stage_field="stage",
    stage_by_label=False,
    text_limits={"meeting.title": 20, "meeting.link": 20, "meeting.body": 5000},
    html_fields=frozenset({"meeting.body"}),
)
BASE = """version: 1
crm: test
owner: {rule: host_email, fallback: sales@acme.example}
contact:
  fields:
    mail: attendee.email
    first: attendee.first_name
    last: attendee.last_name
deal:
  fields:
    name: {template: "{{ meeting_type.name }}: {{ attendee.full_name }}"}
meeting:
  fields:
    title: {template: "{{ meeting_type.name }} {{ attendee.full_name }}"}
    link: {from: booking.link, write: always}
    body: {summary: all}
"""


def build_plan(wanted: Any, ledger: Any, shape: CrmShape) -> Any:
    return diff_records(wanted, ledger, shape, DIRECTORY).plan


def write(folder: Path, text: str) -> Path:
    path = folder / "test.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def plan(folder: Path, text: str, name: str = "booking_created", **changes: Any) -> Any:
    made = read_booking(read_event("default", sample(name, **changes), NOW))
    planner = Planner(load_mapping(write(folder, text), "test"), SHAPE, DIRECTORY)
    return {record.ref.object.value: record for record in planner.plan(made).records}


def test_every_provider_has_a_good_mapping_file() -> None:
    """Every provider's default file loads without a mistake."""
    for name in PROVIDERS:
        assert load_mapping(CONFIG_DIR / "mappings" / f"{name}.yaml", name).crm == name


MISTAKES = [
    ("    mail: attendee.email", "    mail: attendee.emial", "test.yaml:6", "attendee.email"),
    ("version: 1", "version: 2", "test.yaml:1", "version"),
    ("crm: test", "crm: other", "test.yaml:2", "crm"),
    ("  fields:\n    name:", "  feilds:\n    name:", "test.yaml:10", "feilds"),
    ("{{ meeting_type.name }}:", "{{ meeting_type.name }:", "test.yaml:11", "template"),
    ("{summary: all}", "{summary: some}", "test.yaml:16", "summary"),
    ("{from: booking.link, write: always}", "{from: booking.link, write: never}", ":15", "write"),
    ("{from: booking.link, write: always}", "{from: booking.link, as: upper}", ":15", "upper"),
    ("{summary: all}", "{summary: all, value: 3}", "test.yaml:16", "exactly one"),
]


@pytest.mark.parametrize(("old", "new", "place", "words"), MISTAKES)
def test_mistakes_name_file_line_and_key(
    tmp_path: Path, old: str, new: str, place: str, words: str
) -> None:
    """A mistake is reported with its own line."""
    assert old in BASE
    with pytest.raises(MappingError) as caught:
        load_mapping(write(tmp_path, BASE.replace(old, new, 1)), "test")
    assert place in str(caught.value)
    assert words in str(caught.value)


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    """Two mistakes are reported at once, in two lines."""
    text = BASE.replace("attendee.email", "attendee.x").replace("booking.link", "booking.y")
    with pytest.raises(MappingError) as caught:
        load_mapping(write(tmp_path, text), "test")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "a: &b *b", "\tx: 1"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    """Broken YAML and other documents give a sentence with the file's name."""
    with pytest.raises(MappingError, match=r"test\.yaml:\d"):
        load_mapping(write(tmp_path, text), "test")


def test_override_mistake_has_its_line(tmp_path: Path) -> None:
    """A mistake in a meeting type's override is reported with its own line."""
    text = BASE + "meeting_types:\n  demo:\n    deal: {stage: {createt: x}}\n"
    with pytest.raises(MappingError, match=r"test\.yaml:19: meeting_types\.demo\.deal\.stage"):
        load_mapping(write(tmp_path, text), "test")


def test_plan_of_a_created_booking(tmp_path: Path) -> None:
    """The plan of a new booking has contact, deal and meeting, with owner, stage, booking id and
    links.
    """
    made = plan(tmp_path, BASE)
    assert made["contact"].fields["mail"] == "jane.van.der.berg@example.com"
    assert made["deal"].fields["stage"] == "s1"
    assert made["deal"].fields["bid"] == "default:6f0f7c1e-3a55-4c0e-9d58-0d2f7f0a11c1"
    assert all(record.fields["owner"] == "7" for record in made.values())
    assert made["meeting"].links == (made["contact"].ref, made["deal"].ref)


@pytest.mark.parametrize("known", ["eva@müller.example", "eva@xn--mller-kva.example"])
@pytest.mark.parametrize("told", ["Eva@Müller.example", "eva@XN--mller-kva.example"])
def test_an_owner_is_known_by_both_spellings(tmp_path: Path, known: str, told: str) -> None:
    """An owner is found if host, mapping file and CRM spell the domain differently."""
    directory = replace(DIRECTORY, owners={known: "5", "sales@acme.example": "9"})
    table = f"owner: {{rule: table, table: {{eva@müller.example: {told}}}, fallback: sales@acme.example}}"
    rule = "owner: {rule: host_email, fallback: sales@acme.example}"
    for text in (BASE, BASE.replace(rule, table)):
        made = read_booking(
            read_event("default", sample("booking_created", hosts=[{"email": told}]), NOW)
        )
        planned = Planner(load_mapping(write(tmp_path, text), "test"), SHAPE, directory).plan(made)
        assert {record.fields["owner"] for record in planned.records} == {"5"}


def test_an_option_that_looks_like_a_formula_is_that_option(tmp_path: Path) -> None:
    """Only free text gets the apostrophe: an option that looks like a formula is written unchanged."""
    label = "+Plus(premium)"
    field = CrmField("first", "Plan", FieldKind.CHOICE, options=(FieldOption("plus", label),))
    directory = replace(DIRECTORY, schema={ObjectName.CONTACT: {"first": field}})
    people = [{"email": "a@x.example", "firstname": label, "lastname": label}]
    made = read_booking(read_event("default", sample("booking_created", attendees=people), NOW))
    contact = next(
        record for record in Planner(load_mapping(write(tmp_path, BASE), "test"), SHAPE, directory)
        .plan(made).records if record.ref.object is ObjectName.CONTACT
    )  # fmt: skip
    assert (contact.fields["first"], contact.fields["last"]) == ("plus", f"'{label}")


def test_owner_falls_back(tmp_path: Path) -> None:
    """If no host is a user of the CRM, the mapping's fallback becomes the owner."""
    assert plan(tmp_path, BASE, hosts=[])["deal"].fields["owner"] == "9"


def test_stages_follow_the_booking(tmp_path: Path) -> None:
    """The stage follows the booking, by label or id; keep means a new booking's stage; overrides
    inherit.
    """
    stages = "  stage: {cancelled: lost}\n"
    text = BASE.replace("deal:\n", "deal:\n" + stages)
    assert plan(tmp_path, text, "booking_cancelled")["deal"].fields["stage"] == "s3"
    assert plan(tmp_path, text, "booking_rescheduled")["deal"].fields["stage"] == "s1"
    slug = "meeting_types:\n  discovery-call:\n    deal: {stage: {created: Demo booked}}\n"
    made = plan(tmp_path, text + slug)
    assert made["deal"].fields["stage"] == "s2"
    assert made["deal"].fields["name"] == "Discovery Call: Jane van der Berg"
    assert "deal" not in plan(tmp_path, text + "meeting_types:\n  discovery-call: {deal: none}\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stage: {created: Nope}", "New, Demo booked, Lost"),
        ("pipeline: Nope", "there is no pipeline 'Nope' in the account; there are: "),
    ],
)
def test_what_the_account_lacks_costs_the_deal_alone(tmp_path: Path, line: str, words: str) -> None:
    """If a stage or pipeline is gone, only the deal is refused, and the error lists the existing ones."""
    text = BASE.replace("deal:\n", f"deal:\n  {line}\n")
    planner = Planner(load_mapping(write(tmp_path, text), "test"), SHAPE, DIRECTORY)
    made = read_booking(read_event("default", sample("booking_created"), NOW))
    deal = Ref(ObjectName.DEAL, made.record_key)
    planned = planner.plan(made)
    assert [name for name, _ in planned.problems] == [ObjectName.DEAL]
    assert words in planned.problems[deal].message
    there = {record.ref.object: record for record in planned.records}
    assert set(there) == {ObjectName.CONTACT, ObjectName.MEETING}
    assert deal not in there[ObjectName.MEETING].links
    # A deal created earlier keeps its links.
    planned = planner.plan(made, PlanContext(existing=frozenset({deal})))
    there = {record.ref.object: record for record in planned.records}
    assert deal in planned.problems and there[ObjectName.DEAL].fill_only
    assert deal in there[ObjectName.MEETING].links


@pytest.mark.parametrize("name", ["Max Lang", ""])
def test_an_address_that_is_too_long_never_costs_the_meeting(tmp_path: Path, name: str) -> None:
    """A person with a name becomes a contact without the overlong address; one without is refused
    alone.
    """
    shape = replace(SHAPE, text_limits={"contact.mail": 80})
    address = f"{'a' * 60}@{'b' * 30}.example"
    people = [{"email": address, "fullname": name}]
    made = read_booking(read_event("default", sample("booking_created", attendees=people), NOW))
    planned = Planner(load_mapping(write(tmp_path, BASE), "test"), shape, DIRECTORY).plan(made)
    there = {record.ref.object: record for record in planned.records}
    assert address in str(there[ObjectName.MEETING].fields["body"])
    if name:
        assert not planned.problems
        assert "mail" not in there[ObjectName.CONTACT].fields
        assert any("contact.mail: the address is longer" in note for note in planned.notes)
    else:
        assert [problem.fields.keys() for problem in planned.problems.values()] == [{"mail"}]
        assert set(there) == {ObjectName.DEAL, ObjectName.MEETING}


def test_long_text_is_cut_with_a_mark_and_stands_whole_in_the_body(tmp_path: Path) -> None:
    """Cut text has a mark and is whole in the meeting's body; a link is never cut."""
    made = plan(tmp_path, BASE)["meeting"].fields
    assert made["title"] == "Discovery Call Jane…"
    assert "Discovery Call Jane van der Berg" in made["body"]
    assert made["link"] is None
    assert "https://zoom.us/j/99900011122" in made["body"]


def test_html_is_made_harmless_and_braces_are_text(tmp_path: Path) -> None:
    """Text of strangers is neither markup nor a template."""
    person = {"email": "a@b.example", "fullname": "<b>{{ 7*7 }}</b>\x00", "notes": {"Q": "<i>"}}
    made = plan(tmp_path, BASE, attendees=[person])
    assert made["contact"].fields["last"] == "<b>{{ 7*7 }}</b>"
    assert "&lt;b&gt;{{ 7*7 }}&lt;/b&gt;" in made["meeting"].fields["body"]
    assert "<i>" not in made["meeting"].fields["body"]
    assert "49" not in made["deal"].fields["name"]


def test_templates_cannot_reach_python(tmp_path: Path) -> None:
    """A template that tries to reach Python's attributes gives an error of that field."""
    text = BASE.replace("{{ meeting_type.name }}:", "{{ ''.__class__.__mro__ }}")
    with pytest.raises(InvalidRecord, match="name"):
        plan(tmp_path, text)


def test_nobody_to_contact(tmp_path: Path) -> None:
    """An attendee without e-mail and phone still gets a deal and a meeting."""
    made = plan(tmp_path, BASE, attendees=[{"fullname": "X Y"}])
    assert set(made) == {"deal", "meeting"}


def after(desired: Any, wanted: Any) -> dict[Ref, LedgerEntry]:
    return {
        ref: LedgerEntry(f"id{n}", written(item.record, None), item.record.links, item.version)
        for n, (ref, item) in enumerate(wanted.items())
    }


@given(
    st.sampled_from(PROVIDERS),
    st.sampled_from(["booking_created", "group_booking_created", "phone_only_created"]),
    st.lists(st.fixed_dictionaries({"fullname": st.text(), "phone": st.text(), "email": st.text(),
                                    "notes": st.dictionaries(st.text(), st.text())}), max_size=4),
)  # fmt: skip
def test_planning_is_stable(crm: str, name: str, people: list[Any]) -> None:
    """Any booking gives the same plan twice, and a second application changes nothing."""
    provider = load_providers(CONFIG_DIR / "providers.yaml", {})[crm]
    shape = load_adapter(provider.adapter).shape
    mapping = load_mapping(CONFIG_DIR / "mappings" / f"{crm}.yaml", crm)
    made = read_booking(read_event("default", sample(name, attendees=people), NOW))
    planner = Planner(mapping, shape, DIRECTORY)
    desired = planner.plan(made)
    assert desired == planner.plan(made)
    wanted = merge([desired])
    assert len(build_plan(wanted, {}, shape).changes) == len(wanted)
    assert build_plan(wanted, after(desired, wanted), shape).changes == ()
    for record in desired.records:
        for field, value in record.fields.items():
            limit = shape.text_limits.get(f"{record.ref.object}.{field}")
            assert limit is None or not isinstance(value, str) or measure(value) <= limit


def test_what_is_left_out_later_goes_by_its_own_section_wherever_that_stands(
    tmp_path: Path,
) -> None:
    """A record follows the section that made it, even if that moves or gets new fields; if the
    section disappears, no other one takes over.
    """
    head, meeting = BASE.split("meeting:\n")
    head, meeting = head.partition("deal:")[0], f"meeting:\n{meeting}"
    by_slug = "  - when: {{meeting_type.slug: {slug}}}\n    fields: {{name: {{value: {name}}}}}\n"
    renewal = by_slug.format(slug="renewal", name="Renewal")
    demo = by_slug.format(slug="discovery-call", name="Demo")
    made = read_booking(read_event("default", sample("booking_created"), NOW))
    moved = replace(made, meeting_type=replace(made.meeting_type, slug="onboarding"))
    there = frozenset({Ref(ObjectName.DEAL, made.key)})

    def planned(deals: str, booking: Booking, context: PlanContext) -> Any:
        text = f"{head}deal:\n{deals}{meeting}"
        return Planner(load_mapping(write(tmp_path, text), "test"), SHAPE, DIRECTORY).plan(
            booking, context
        )

    first = planned(renewal + demo, made, PlanContext())
    kept = PlanContext(existing=there, mapping_section=first.mapping_section)

    def name(deals: str) -> Any:
        desired = planned(deals, moved, kept)
        (deal,) = (r for r in desired.records if r.ref.object is ObjectName.DEAL)
        return deal.fields.get("name"), len(desired.notes)

    assert name(renewal + demo) == name(demo + renewal) == ("Demo", 0)
    assert name(demo.replace("Demo", "Demo 2") + renewal) == ("Demo 2", 0)
    other = by_slug.format(slug="webinar", name="Webinar")
    assert name(renewal + other) == (None, 1)


def test_a_record_to_which_nothing_is_to_be_written_stays_known() -> None:
    """A person whose only value is a stand-in for the name is written once, and later runs change
    nothing.
    """
    ref = Ref(ObjectName.CONTACT, "email:jane@globex.example")
    rules = {"last": WriteRule.ON_CREATE}
    record = DesiredRecord(ref, {"last": "jane"}, rules, atomic_fields=frozenset({"last"}))
    known = known_after(MergedRecord(record, NOW), None, "1", "")
    assert known.unfilled
    seen = LookupResults({ref: [CrmRecord("1", {"last": "Berg"})]}, frozenset({ref}))
    assert (
        diff_records(
            {ref: MergedRecord(record, NOW)}, {ref: known}, SHAPE, DIRECTORY, seen
        ).plan.changes
        == ()
    )


def test_names_never_mix(tmp_path: Path) -> None:
    """A new name is written whole, with its empty parts; an older booking changes nothing."""
    old = plan(tmp_path, BASE)["contact"]
    single = [{"email": "jane.van.der.berg@example.com", "firstname": "Bob"}]
    new = plan(tmp_path, BASE, attendees=single)["contact"]
    known = {old.ref: LedgerEntry("1", written(old, None), (), NOW)}
    wanted = {new.ref: MergedRecord(new, NOW)}
    (change,) = build_plan(wanted, known, SHAPE).changes
    assert change.fields == {"first": "Bob", "last": None}
    late = {old.ref: LedgerEntry("1", written(old, None), (), datetime(2030, 1, 1, tzinfo=UTC))}
    assert build_plan(wanted, late, SHAPE).changes == ()


def test_a_change_names_the_whole_record_too() -> None:
    """For CRMs that cannot change records, a change has all values, except a colleague's choices."""
    ref = Ref(ObjectName.DEAL, "b1")
    rules = dict.fromkeys(("title", "worth", "place", "note"), WriteRule.UNTOUCHED)
    old: dict[str, FieldValue] = {"title": "Demo", "worth": "5", "place": "Rome", "note": ""}
    known = known_after(MergedRecord(DesiredRecord(ref, old, rules), NOW), None, "1", "")
    new = DesiredRecord(ref, {**old, "title": "Call", "worth": "7"}, rules)
    stands = {"title": "Demo", "worth": "6", "place": "Rome"}
    seen = LookupResults({ref: [CrmRecord("1", stands)]}, frozenset({ref}))
    diff = diff_records({ref: MergedRecord(new, NOW)}, {ref: known}, SHAPE, DIRECTORY, seen)
    (change,) = diff.plan.changes
    assert change.fields == {"title": "Call"}
    assert change.full_fields == {"title": "Call", "place": "Rome"}
    (made,) = diff_records({ref: MergedRecord(new, NOW)}, {}, SHAPE, DIRECTORY).plan.changes
    assert made.full_fields == made.fields == {"title": "Call", "worth": "7", "place": "Rome"}


def test_a_change_names_nothing_that_is_written_at_creates_alone() -> None:
    """Of a record that nobody has read it names what was written, and not what a rule keeps back."""
    ref = Ref(ObjectName.MEETING, "b1")
    rules = {"title": WriteRule.ALWAYS, "host": WriteRule.ON_CREATE, "place": WriteRule.NEVER_BLANK}
    old: dict[str, FieldValue] = {"title": "Demo", "host": "john", "place": "Rome"}
    known = known_after(MergedRecord(DesiredRecord(ref, old, rules), NOW), None, "1", "")
    new = DesiredRecord(ref, {**old, "title": "Call", "host": "mary"}, rules)
    diff = diff_records({ref: MergedRecord(new, NOW)}, {ref: known}, SHAPE, DIRECTORY)
    (change,) = diff.plan.changes
    assert change.fields == {"title": "Call"}
    assert change.full_fields == {"title": "Call", "place": "Rome"}


@pytest.mark.parametrize(
    ("value", "specs", "result"),
    [
        (" A ", ("strip", "lower"), "a"),
        (NOW, ("date",), "2026-11-24"),
        (NOW, ({"add_days": 30}, "date"), "2026-12-24"),
        (NOW, ("time",), "00:00"),
        (90, ("hh_mm",), "01:30"),
        ("1.234,50", ("number",), 1234.5),
        ("1,234.50", ("number",), 1234.5),
        ("99", ("number",), 99),
        ("x", ({"map": {"x": "y"}},), "y"),
        (None, ({"default": "z"},), "z"),
        (None, ("lower",), None),
        ("abcdef", ({"truncate": 3},), "ab…"),
    ],
)
def test_transforms(value: Any, specs: tuple[Any, ...], result: Any) -> None:
    """A few transforms; tests/unit/test_language.py has every one of them."""
    assert apply_transforms(value, specs) == result


@given(st.text(min_size=1), st.integers(2, 50))
def test_cut_keeps_the_limit(text: str, limit: int) -> None:
    """Cut text fits its field and shows that it was cut."""
    short = cut(text, limit)
    assert len(short) <= max(limit, len(text)) and (short == text or len(short) <= limit)
    assert short == text or short.endswith("…")


@pytest.mark.parametrize(
    ("piece", "wanted"),
    [
        ("contact:\n  fields: {email: attendee.email}", False),
        ("contact:\n  fields: {x: answers.Goal}", True),
        ("deal:\n  record_id: answers.Deal\n  fields: {dealname: booking.id}", True),
        (
            "contact:\n  match: [{field: x, from: answers.Number}]\n  fields: {email: attendee.email}",
            True,
        ),
        ("deal:\n  when: {answers.Budget: {above: 5}}\n  fields: {dealname: booking.id}", True),
        ("skip: [{when: {answers.Test: yes}}]", True),
        ("attendees: {when: {answers.Role: buyer}}", True),
        ("skip: [{when: {attendee.email_domain: acme.example}}]", False),
    ],
)
def test_answers_are_fetched_for_whatever_asks_for_them(piece: str, wanted: bool) -> None:
    """Answers are fetched for every use: a written field, a lookup key or a condition."""
    mapping = mapping_of(f"version: 1\ncrm: hubspot\n{piece}\n", "hubspot")
    assert mapping.needs_answers is wanted
