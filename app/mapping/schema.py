"""The shape of a mapping file, checked by pydantic; errors are turned into file, line and key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from app.crm.lookup import OnLost, OnSeveral
from app.crm.objects import ObjectName
from app.domain.text import cut
from app.mapping.conditions import check_condition, paths_of
from app.mapping.paths import FIXED, PATTERNS, answer_label, as_constant, check_path
from app.mapping.templates import check_template, names_in
from app.mapping.transforms import PLAIN, WITH_ARGUMENT, check_transform
from app.sync.desired import WriteRule

OFF = "none"
"""What stands in a file in place of an object that is not wanted."""
KEEP = "keep"
"""A stage that is not changed by this event."""
FIRST = "first"
"""The pipeline's, or the stage's, that comes first."""
FieldRule = Literal[
    WriteRule.ALWAYS, WriteRule.NEVER_BLANK, WriteRule.ON_CREATE, WriteRule.IF_EMPTY,
    WriteRule.APPEND, WriteRule.UNTOUCHED,
]  # fmt: skip
_PART = "part"
"""In a generated schema: here belongs one of the parts that are written by hand, in _words."""
Path = Annotated[str, WithJsonSchema({_PART: "Path"})]
Transforms = Annotated[tuple[Any, ...], WithJsonSchema({_PART: "Transforms"})]
When = Annotated[
    dict[str, Any],
    BeforeValidator(check_condition),
    WithJsonSchema({_PART: "Condition"}),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_SOURCES = {"path": "from"} | {
    name: name for name in ("value", "template", "first_of", "summary", "answers")
}
"""Where a value may come from -> the key for it."""
SOURCE_KEYS = frozenset(_SOURCES.values())


def _constant(text: str) -> str:
    return f"; a constant is written {as_constant(cut(text, 60))}"


class ValueSource(_Strict):
    """Where a value comes from."""

    path: Annotated[Path | None, Field(alias="from", description="A path, as attendee.email")] = (
        None
    )
    value: Annotated[
        str | int | float | bool | list[str] | None, Field(description="A constant")
    ] = None
    template: Annotated[str | None, Field(description="A Jinja2 template in a sandbox")] = None
    first_of: Annotated[
        tuple[Path, ...], Field(description="Paths; the first that holds something counts")
    ] = ()
    summary: Annotated[
        Literal["all"] | None, Field(description="The whole booking as text, nothing cut")
    ] = None
    answers: Annotated[
        Literal["all", "unmapped"] | None,
        Field(description="Questions and answers as a list: all, or those no other field takes"),
    ] = None
    transforms: Annotated[
        Transforms, Field(alias="as", description="Transforms, applied in order")
    ] = ()
    when: Annotated[When, Field(description="Only where every line holds")] = {}

    @field_validator("transforms", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else [value]

    @field_validator("transforms")
    @classmethod
    def _known_transforms(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for item in value:
            check_transform(item)
        return value

    @field_validator("path")
    @classmethod
    def _known_path(cls, value: str | None) -> str | None:
        return check_path(value, _constant(value)) if value else value

    @field_validator("first_of")
    @classmethod
    def _known_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        words = "; a value where nothing stands is written as: {default: …}"
        return tuple(check_path(path, words) for path in value)

    @field_validator("template")
    @classmethod
    def _template_compiles(cls, value: str | None) -> str | None:
        return check_template(value) if value is not None else None

    @model_validator(mode="after")
    def _one_source(self) -> ValueSource:
        given = [name for key, name in _SOURCES.items() if key in self.model_fields_set]
        if len(given) == 1:
            return self
        words = f"give exactly one of: {', '.join(_SOURCES.values())}"
        if given:
            words += f"; here stand {' and '.join(given)}"
        if {"from", "value"} <= set(given):
            words += "; a value where nothing stands is written as: {default: …}"
        raise ValueError(words)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that the value is read from."""
        return ((self.path,) if self.path else ()) + self.first_of

    @property
    def late(self) -> bool:
        """Whether it tells of other fields, and so comes after them."""
        return self.summary is not None or self.answers is not None

    @property
    def personal(self) -> bool:
        """Whether it sums up all bookings of a person."""
        return "person" in self._roots

    @property
    def purely_personal(self) -> bool:
        """Whether it tells of nothing else than all bookings of a person."""
        return self._roots == {"person"} and not self.when

    @property
    def _roots(self) -> frozenset[str]:
        roots = frozenset(path.partition(".")[0] for path in self.paths)
        return roots | (names_in(self.template) if self.template else frozenset())

    def labels(self) -> Iterator[str]:
        """The questions whose answers it takes."""
        for path in self.paths:
            label = answer_label(path)
            if label:
                yield label
        for name in names_in(self.template) if self.template else ():
            if name.startswith("answers:"):
                yield name.partition(":")[2]

    @property
    def needs_answers(self) -> bool:
        """Whether it is worth asking meetergo for answers that a webhook lacks."""
        # The sum of a booking names the answers too.
        asked = any(True for _ in self.labels()) or self.late
        return asked or any(answer_label(path) for path in paths_of(self.when))


class FieldSpec(ValueSource):
    """Where the value of one CRM field comes from and when it may be written."""

    write: Annotated[FieldRule, Field(description="When it may be overwritten")] = (
        WriteRule.NEVER_BLANK
    )
    on_error: Annotated[
        Literal["fail", "skip", "skip_record"],
        Field(description="What a value that cannot be made does: fail the booking (default), "
              "leave out the field, or leave out the record"),
    ] = "fail"  # fmt: skip


def _field(raw: Any) -> Any:
    return {"from": raw} if isinstance(raw, str) else raw


class RecordId(ValueSource):
    """Where a record's id or address may stand, and whose record it may be."""

    of: Annotated[
        Literal["anybody", "attendee"],
        Field(description="Whether any record counts that is named, or the attendee's own alone"),
    ] = "anybody"


SourceEntry = Annotated[
    ValueSource, BeforeValidator(_field, json_schema_input_type=Path | ValueSource)
]
RecordIdEntry = Annotated[RecordId, BeforeValidator(_field, json_schema_input_type=Path | RecordId)]
FieldEntry = Annotated[FieldSpec, BeforeValidator(_field, json_schema_input_type=Path | FieldSpec)]
FieldMap = dict[str, FieldEntry]


class FieldKey(_Strict):
    """A field of the CRM by which a record is recognised, and what stands in it."""

    field: str
    source: Annotated[SourceEntry, Field(alias="from")]


class RecordRules(_Strict):
    """What is common to all objects."""

    when: Annotated[When, Field(description="Only where every line holds")] = {}
    record_id: Annotated[
        RecordIdEntry | None, Field(description="Where a record's id or address may stand")
    ] = None
    several: Annotated[OnSeveral, Field(description="Which one is taken where several match")] = (
        OnSeveral.OLDEST
    )
    create: Annotated[bool, Field(description="Whether one is made where none is found")] = True
    when_deleted: Annotated[
        OnLost,
        Field(description="What is done when a person deleted it: make it again, or leave it"),
    ] = OnLost.RECREATE
    fields: FieldMap = {}

    @model_validator(mode="after")
    def _id_has_a_place(self) -> RecordRules:
        if "record_id" in getattr(self, "match", ()) and self.record_id is None:
            raise ValueError("match by record_id needs the key record_id: where the id stands")
        return self


PersonKey = Literal["record_id", "email", "secondary_email", "phone"]


class ContactRules(RecordRules):
    """How an attendee becomes a contact."""

    kind: Annotated[
        Literal["contact", "lead", "contact_then_lead", "contact_under_account_else_lead"],
        Field(alias="as", description="What the attendee becomes, in CRMs that have leads"),
    ] = "contact"
    match: Annotated[
        tuple[PersonKey | FieldKey, ...],
        Field(description="By what a contact is recognised, in order"),
    ] = ()


class LeadRules(RecordRules):
    """How an attendee becomes a lead."""

    match: tuple[PersonKey | FieldKey, ...] = ()


class CompanyRules(RecordRules):
    """How the attendee's e-mail domain becomes a company; none for free mail."""

    source: Annotated[Literal["attendee.company_domain"], Field(alias="from")] = (
        "attendee.company_domain"
    )
    match: tuple[Literal["record_id", "domain"] | FieldKey, ...] = ()


class StageRules(_Strict):
    """The stage for each state of the booking: a label or an id; `first` is the pipeline's first."""

    created: str = FIRST
    rescheduled: str = KEEP
    cancelled: str = KEEP


class DealRules(RecordRules):
    """How a booking becomes a deal."""

    kind: Annotated[
        Literal["deal", "lead"],
        Field(alias="as", description="A deal, or a lead of the inbox (Pipedrive)"),
    ] = "deal"
    per: Annotated[
        Literal["booking", "open_deal_of_contact", "none"],
        Field(description="One for each booking, the contact's open deal where there is one, none"),
    ] = "booking"
    pipeline: str = FIRST
    stage: StageRules = StageRules()
    backwards: Annotated[
        bool, Field(description="Whether a stage that a person set may be moved back")
    ] = False
    match: tuple[Literal["record_id"] | FieldKey, ...] = ()


class CaseRules(RecordRules):
    """How a booking becomes a case."""

    match: tuple[Literal["record_id"] | FieldKey, ...] = ()


class MeetingRules(RecordRules):
    """How a booking becomes a meeting."""

    on_reschedule: Annotated[
        Literal["move", "keep_history"],
        Field(description="Move the meeting, or leave it marked as moved and make another"),
    ] = "move"
    on_cancel: Annotated[
        Literal["mark", "delete"], Field(description="Mark the meeting, or take it out of the CRM")
    ] = "mark"

    @model_validator(mode="after")
    def _is_nobodys(self) -> MeetingRules:
        if self.record_id and self.record_id.of == "attendee":
            raise ValueError("of: attendee is for contact, lead, company, deal and case alone")
        return self


class OwnerRules(_Strict):
    """Who owns the records."""

    rule: Annotated[
        Literal["host_email", "table", "fixed", "keep", "round_robin"],
        Field(description="The host; by a table of hosts; always one; whoever it is; in turn"),
    ] = "host_email"
    table: Annotated[dict[str, str], Field(description="Host's e-mail -> the owner's")] = {}
    user: Annotated[str | None, Field(description="E-mail of the one owner")] = None
    users: Annotated[tuple[str, ...], Field(description="E-mails of those whose turn it is")] = ()
    fallback: Annotated[
        str | None, Field(description="E-mail of the owner where the rule finds no user")
    ] = None
    write: Annotated[FieldRule | None, Field(description="When an owner is overwritten")] = None

    @model_validator(mode="after")
    def _complete(self) -> OwnerRules:
        needed = {"table": self.table, "fixed": self.user, "round_robin": self.users}
        key = {"table": "table", "fixed": "user", "round_robin": "users"}.get(self.rule)
        if key and not needed[self.rule]:
            raise ValueError(f"the rule {self.rule} needs {key}")
        return self

    @property
    def emails(self) -> tuple[str, ...]:
        """Everybody who is named."""
        named = (*self.table.values(), self.user, *self.users, self.fallback)
        return tuple(dict.fromkeys(name for name in named if name))


class Skip(_Strict):
    """Bookings that never reach this CRM."""

    when: When
    because: str = "the mapping skips it"


class Chosen(_Strict):
    """Which attendees count."""

    when: When


def _off(raw: Any) -> Any:
    return None if raw == OFF else raw


def _deals(raw: Any) -> Any:
    raw = _off(raw)
    if raw is None:
        return ()
    return raw if isinstance(raw, (list, tuple)) else (raw,)


class Rules(_Strict):
    """What applies to one meeting type and host, overrides laid over the file's own."""

    attendees: Annotated[
        Literal["all", "booker"] | Chosen, Field(description="Who becomes a contact")
    ] = "all"
    skip: Annotated[tuple[Skip, ...], Field(description="Bookings that are left out")] = ()
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
        Field(description="One rule, or several of which the first that fits counts"),
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
        """The sections of an object: several for deals, one or none for the others."""
        section = getattr(self, name)
        return section if isinstance(section, tuple) else (section,) if section else ()

    def sources(self) -> Iterator[ValueSource]:
        """Every value that these rules make."""
        for name in ObjectName:
            for section in self.sections(name):
                yield from section.fields.values()

    @property
    def needs_answers(self) -> bool:
        """Whether answers are written, looked for by, or decide on anything."""
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


class FormRules(_Strict):
    """What becomes of a form that nobody followed up with a booking."""

    after_hours: Annotated[float, Field(gt=0, le=720)] = 24
    kind: Annotated[Literal["contact", "lead"], Field(alias="as")] = "contact"
    fields: Annotated[FieldMap, Field(description="Laid over the fields of contact or lead")] = {}


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
        Field(gt=0, le=10_080, description="Minutes after which missing companies are looked for"),
    ] = None
    assignment_rules: Annotated[
        bool, Field(description="Whether Salesforce's rules may assign new leads and cases")
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
    """The keys that a part of a file takes."""
    return {field.alias or name for name, field in model.model_fields.items()}


KEYS = sorted(set().union(*map(keys_of, _MODELS)))
"""Every key of the language, for naming the nearest."""
SECTIONS: dict[str, type[RecordRules]] = {
    "contact": ContactRules, "lead": LeadRules, "company": CompanyRules, "deal": DealRules,
    "case": CaseRules, "meeting": MeetingRules,
}  # fmt: skip
"""The sections that have fields."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema of mapping files: editors complete and check by it."""
    schema = TypeAdapter(MappingFile).json_schema(by_alias=True, mode="validation")
    rules = TypeAdapter(Rules).json_schema(by_alias=True, mode="validation")
    schema, rules = _pointed(schema), _pointed(rules)
    definitions = schema.pop("$defs") | rules.pop("$defs") | {"Override": rules} | _words()
    override = {"anyOf": [{"$ref": "#/$defs/Override"}, {"type": "null"}]}
    for key in ("meeting_types", "hosts"):
        schema["properties"][key]["additionalProperties"] = override
    address = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": address, **schema, "title": "meetergo mapping file", "$defs": definitions}


def _pointed(node: Any) -> Any:
    """A generated schema that refers to the parts of _words."""
    if isinstance(node, list):
        return [_pointed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        "$ref" if key == _PART else key: f"#/$defs/{value}" if key == _PART else _pointed(value)
        for key, value in node.items()
    }


def _words() -> dict[str, Any]:
    """What pydantic sees as any text or table: paths, transforms and conditions."""
    path: dict[str, Any] = {"anyOf": [{"enum": sorted(FIXED)}, *({"pattern": p} for p in PATTERNS)]}
    scalar: dict[str, Any] = {"type": ["string", "number", "boolean"]}
    texts = {"type": "array", "items": {"type": "string"}}
    arguments: dict[Any, dict[str, Any]] = {
        int: {"type": "integer"},
        str: {"type": "string"},
        Mapping: {"type": "object", "minProperties": 1},
    }
    wanted = {"$ref": "#/$defs/Wanted"}
    some = {"anyOf": [scalar, {"type": "array", "items": scalar, "minItems": 1}]}
    tests = {
        "not": wanted, "contains": some, "starts_with": some, "above": {"type": "number"},
        "below": {"type": "number"}, "empty": {"type": "boolean"},
    }  # fmt: skip
    one_of = {"minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    transform = {
        "anyOf": [
            {"enum": list(PLAIN)},
            {
                "type": "object",
                "properties": {
                    name: arguments.get(kind, {"anyOf": [scalar, texts]})
                    for name, (kind, _) in WITH_ARGUMENT.items()
                },
                **one_of,
            },
        ]
    }
    conditions = {"type": "array", "items": {"$ref": "#/$defs/Condition"}, "minItems": 1}
    return {
        "Path": {"type": "string", **path},
        "Transforms": {"anyOf": [transform, {"type": "array", "items": transform}]},
        "Condition": {
            "type": "object",
            "properties": {"any": conditions, "all": conditions},
            "additionalProperties": wanted,
            "propertyNames": {"anyOf": [{"enum": ["any", "all"]}, {"$ref": "#/$defs/Path"}]},
        },
        "Wanted": {
            "anyOf": [
                scalar,
                {"type": "null"},
                {"type": "array", "items": wanted, "minItems": 1},
                {"type": "object", "properties": tests, **one_of},
            ]
        },
    }
