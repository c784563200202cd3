"""The sections of a mapping file, checked by pydantic; errors become file, line and key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from app.crm.lookup import OnLost, OnSeveral
from app.crm.objects import ObjectName
from app.mapping.conditions import paths_of
from app.mapping.paths import answer_label
from app.mapping.value_source import (
    STRICT,
    FieldKey,
    FieldMap,
    FieldRule,
    FieldSpec,
    RecordId,
    RecordIdEntry,
    ValueSource,
    When,
)

OFF = "none"
"""Written in a file in place of an object that is not needed."""
KEEP = "keep"
"""A stage that this event does not change."""
FIRST = "first"
"""The first pipeline or the first stage."""


class StrictRules(BaseModel):
    """Rules that refuse unknown keys."""

    model_config = STRICT


class RecordRules(StrictRules):
    """The keys that all objects share."""

    when: Annotated[When, Field(description="Used only if every line is true")] = {}
    record_id: Annotated[
        RecordIdEntry | None, Field(description="The path that may give a record's id or URL")
    ] = None
    several: Annotated[OnSeveral, Field(description="Which record to use if several match")] = (
        OnSeveral.OLDEST
    )
    create: Annotated[bool, Field(description="Whether to create a record if none is found")] = True
    when_deleted: Annotated[
        OnLost,
        Field(description="If a person deleted the record: create it again, or leave it deleted"),
    ] = OnLost.RECREATE
    fields: FieldMap = {}

    @model_validator(mode="after")
    def _id_has_a_place(self) -> RecordRules:
        if "record_id" in getattr(self, "match", ()) and self.record_id is None:
            raise ValueError("match by record_id needs the key record_id with the path of the id")
        return self


PersonKey = Literal["record_id", "email", "secondary_email", "phone"]


class ContactRules(RecordRules):
    """How an attendee becomes a contact."""

    kind: Annotated[
        Literal["contact", "lead", "contact_then_lead", "contact_under_account_else_lead"],
        Field(alias="as", description="Which record an attendee becomes, in CRMs that have leads"),
    ] = "contact"
    match: Annotated[
        tuple[PersonKey | FieldKey, ...],
        Field(description="The keys by which to find a contact, in this order"),
    ] = ()


class LeadRules(RecordRules):
    """How an attendee becomes a lead."""

    match: tuple[PersonKey | FieldKey, ...] = ()


class CompanyRules(RecordRules):
    """How the attendee's e-mail domain becomes a company; free mail gives no company."""

    source: Annotated[Literal["attendee.company_domain"], Field(alias="from")] = (
        "attendee.company_domain"
    )
    match: tuple[Literal["record_id", "domain"] | FieldKey, ...] = ()


class StageRules(StrictRules):
    """The stage for each state of the booking: a label, an id, or `first` for the first stage."""

    created: str = FIRST
    rescheduled: str = KEEP
    cancelled: str = KEEP


class DealRules(RecordRules):
    """How a booking becomes a deal."""

    kind: Annotated[
        Literal["deal", "lead"],
        Field(alias="as", description="A deal, or a lead in the Leads inbox (Pipedrive)"),
    ] = "deal"
    per: Annotated[
        Literal["booking", "open_deal_of_contact", "none"],
        Field(
            description="One deal for each booking, or the contact's open deal if there is one, or none"
        ),
    ] = "booking"
    pipeline: str = FIRST
    stage: StageRules = StageRules()
    backwards: Annotated[
        bool,
        Field(
            description="Whether to move back a stage that a person set, and reopen a closed deal"
        ),
    ] = False
    match: tuple[Literal["record_id"] | FieldKey, ...] = ()


class CaseRules(RecordRules):
    """How a booking becomes a case."""

    match: tuple[Literal["record_id"] | FieldKey, ...] = ()


class MeetingRules(RecordRules):
    """How a booking becomes a meeting."""

    on_reschedule: Annotated[
        Literal["move", "keep_history"],
        Field(description="Move the meeting, or mark it as moved and create another"),
    ] = "move"
    on_cancel: Annotated[
        Literal["mark", "delete"],
        Field(description="Mark the meeting as cancelled, or delete it from the CRM"),
    ] = "mark"

    @model_validator(mode="after")
    def _is_nobodys(self) -> MeetingRules:
        if self.record_id and self.record_id.of == "attendee":
            raise ValueError("of: attendee works only in contact, lead, company, deal and case")
        return self


class OwnerRules(StrictRules):
    """Who owns the records."""

    rule: Annotated[
        Literal["host_email", "table", "fixed", "keep", "round_robin"],
        Field(
            description="The host, by a table of hosts, always one user, leave the owner, or in turn"
        ),
    ] = "host_email"
    table: Annotated[
        dict[str, str], Field(description="The host's e-mail -> the owner's e-mail")
    ] = {}
    user: Annotated[str | None, Field(description="E-mail of the user who owns every record")] = (
        None
    )
    users: Annotated[tuple[str, ...], Field(description="E-mails of the users who take turns")] = ()
    fallback: Annotated[
        str | None, Field(description="E-mail of the owner if the rule finds no user")
    ] = None
    write: Annotated[
        FieldRule | None, Field(description="When a new owner may replace the present one")
    ] = None

    @model_validator(mode="after")
    def _complete(self) -> OwnerRules:
        needed = {"table": self.table, "fixed": self.user, "round_robin": self.users}
        key = {"table": "table", "fixed": "user", "round_robin": "users"}.get(self.rule)
        if key and not needed[self.rule]:
            raise ValueError(f"the rule {self.rule} needs {key}")
        return self

    @property
    def emails(self) -> tuple[str, ...]:
        """Return all addresses that are given."""
        named = (*self.table.values(), self.user, *self.users, self.fallback)
        return tuple(dict.fromkeys(name for name in named if name))


class Skip(StrictRules):
    """Bookings that create no records in this CRM; records that exist are kept current."""

    when: When
    because: str = "the mapping skips it"


class Chosen(StrictRules):
    """Which attendees become contacts."""

    when: When


def _off(raw: Any) -> Any:
    return None if raw == OFF else raw


def _deals(raw: Any) -> Any:
    raw = _off(raw)
    if raw is None:
        return ()
    return raw if isinstance(raw, (list, tuple)) else (raw,)


class Rules(StrictRules):
    """The rules for one meeting type and host: the file's own rules with the overrides applied."""

    attendees: Annotated[
        Literal["all", "booker"] | Chosen, Field(description="Which attendees become contacts")
    ] = "all"
    skip: Annotated[
        tuple[Skip, ...], Field(description="Bookings that create no records in this CRM")
    ] = ()
    owner: OwnerRules = OwnerRules()
    contact: Annotated[
        ContactRules | None,
        BeforeValidator(_off, json_schema_input_type=ContactRules | Literal["none"]),
    ] = None
    company: Annotated[
        CompanyRules | None,
        BeforeValidator(_off, json_schema_input_type=CompanyRules | Literal["none"]),
    ] = None
    lead: Annotated[
        LeadRules | None,
        BeforeValidator(_off, json_schema_input_type=LeadRules | Literal["none"]),
    ] = None
    deal: Annotated[
        tuple[DealRules, ...],
        BeforeValidator(
            _deals, json_schema_input_type=DealRules | list[DealRules] | Literal["none"]
        ),
        Field(description="One rule, or a list: the first rule whose `when` is true is used"),
    ] = ()
    case: Annotated[
        CaseRules | None,
        BeforeValidator(_off, json_schema_input_type=CaseRules | Literal["none"]),
    ] = None
    meeting: Annotated[
        MeetingRules | None,
        BeforeValidator(_off, json_schema_input_type=MeetingRules | Literal["none"]),
    ] = None

    @model_validator(mode="after")
    def _leads_have_rules(self) -> Rules:
        if self.contact and self.contact.kind != "contact" and self.lead is None:
            raise ValueError(f"contact as {self.contact.kind} needs a section `lead`")
        return self

    def sections(self, name: ObjectName) -> tuple[RecordRules, ...]:
        """Return the sections of an object: several for deals, one or none for the others."""
        section = getattr(self, name)
        return section if isinstance(section, tuple) else (section,) if section else ()

    def sources(self) -> Iterator[ValueSource]:
        """Give the source of every field value in these rules."""
        for name in ObjectName:
            for section in self.sections(name):
                yield from section.fields.values()

    @property
    def needs_answers(self) -> bool:
        """Whether answers are written, used as a lookup key, or used in a condition."""
        sections = [section for name in ObjectName for section in self.sections(name)]
        keys = [
            key.source
            for s in sections
            for key in getattr(s, "match", ())
            if isinstance(key, FieldKey)
        ]
        named = [section.record_id for section in sections if section.record_id]
        chosen = [] if isinstance(self.attendees, str) else [self.attendees.when]
        conditions = [s.when for s in sections] + [s.when for s in self.skip] + chosen
        decide = any(answer_label(path) for when in conditions for path in paths_of(when))
        return decide or any(source.needs_answers for source in (*self.sources(), *keys, *named))


class FormRules(StrictRules):
    """How a form becomes a record if no booking follows it."""

    after_hours: Annotated[float, Field(gt=0, le=720)] = 24
    kind: Annotated[Literal["contact", "lead"], Field(alias="as")] = "contact"
    fields: Annotated[
        FieldMap,
        Field(description="Fields to add to those of `contact` or `lead`, or to replace them"),
    ] = {}


class MappingFile(Rules):
    """A whole mapping file."""

    version: Literal[1]
    crm: str
    meeting_types: Annotated[
        dict[str, dict[str, Any] | None], Field(description="Overrides by meeting-type slug")
    ] = {}
    hosts: Annotated[
        dict[str, dict[str, Any] | None], Field(description="Overrides by the host's e-mail")
    ] = {}
    recheck_links_after: Annotated[
        float | None,
        Field(gt=0, le=10_080, description="Minutes until missing companies are looked up again"),
    ] = None
    assignment_rules: Annotated[
        bool,
        Field(
            description="Whether Salesforce's assignment rules may set the owner of new leads and cases"
        ),
    ] = False
    form_submission: Annotated[
        FormRules | None,
        BeforeValidator(_off, json_schema_input_type=FormRules | Literal["none"]),
    ] = None


_MODELS: tuple[type[BaseModel], ...] = (
    FieldSpec, FieldKey, RecordId, ContactRules, CompanyRules, DealRules, MeetingRules, StageRules,
    OwnerRules, Skip, FormRules, MappingFile,
)  # fmt: skip


def keys_of(model: type[BaseModel]) -> set[str]:
    """Return the keys of one part of a file."""
    return {field.alias or name for name, field in model.model_fields.items()}


KEYS = sorted(set().union(*map(keys_of, _MODELS)))
"""Every key of the language, to suggest the nearest."""
SECTIONS: dict[str, type[RecordRules]] = {
    "contact": ContactRules, "lead": LeadRules, "company": CompanyRules, "deal": DealRules,
    "case": CaseRules, "meeting": MeetingRules,
}  # fmt: skip
"""The sections that have fields."""
