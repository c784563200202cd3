"""The shape of a mapping file, checked by pydantic; errors are turned into file, line and key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from app.domain.records import ObjectName, WriteRule
from app.mapping.paths import check_path
from app.mapping.templates import check_template
from app.mapping.transforms import check_transform

OFF = "none"
"""What stands in a file in place of an object that is not wanted."""
KEEP = "keep"
"""A stage that is not changed by this event."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FieldSpec(_Strict):
    """Where the value of one CRM field comes from and when it may be written."""

    path: Annotated[str | None, Field(alias="from")] = None
    value: str | int | float | bool | None = None
    template: str | None = None
    first_of: tuple[str, ...] = ()
    summary: Literal["all"] | None = None
    transforms: Annotated[tuple[Any, ...], Field(alias="as")] = ()
    when: dict[str, Any] = Field(default_factory=dict)
    write: WriteRule = WriteRule.NEVER_BLANK

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
        return check_path(value) if value else value

    @field_validator("first_of")
    @classmethod
    def _known_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_path(path) for path in value)

    @field_validator("when")
    @classmethod
    def _known_condition(cls, value: dict[str, Any]) -> dict[str, Any]:
        for path in value:
            check_path(path)
        return value

    @field_validator("template")
    @classmethod
    def _template_compiles(cls, value: str | None) -> str | None:
        return check_template(value) if value is not None else None

    @model_validator(mode="after")
    def _one_source(self) -> FieldSpec:
        given = self.model_fields_set & {"path", "value", "template", "first_of", "summary"}
        if len(given) != 1:
            raise ValueError("give exactly one of: from, value, template, first_of, summary")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that the value is read from."""
        return ((self.path,) if self.path else ()) + self.first_of


def _field(raw: Any) -> Any:
    return {"from": raw} if isinstance(raw, str) else raw


FieldEntry = Annotated[FieldSpec, BeforeValidator(_field)]
FieldMap = dict[str, FieldEntry]


class ContactRules(_Strict):
    """How an attendee becomes a contact."""

    fields: FieldMap


class CompanyRules(_Strict):
    """How the attendee's e-mail domain becomes a company; none for free mail."""

    source: Annotated[Literal["attendee.company_domain"], Field(alias="from")]
    fields: FieldMap


class StageRules(_Strict):
    """The stage for each state of the booking: a label or an id; `first` is the pipeline's first."""

    created: str = "first"
    rescheduled: str = KEEP
    cancelled: str = KEEP


class DealRules(_Strict):
    """How a booking becomes a deal."""

    per: Literal["booking"] = "booking"
    pipeline: str = "first"
    stage: StageRules = StageRules()
    fields: FieldMap


class MeetingRules(_Strict):
    """How a booking becomes a meeting."""

    fields: FieldMap


class OwnerRules(_Strict):
    """Who owns the records: the first host who is a user of the CRM, else the fallback."""

    rule: Literal["host_email"] = "host_email"
    fallback: str | None = None


def _off(raw: Any) -> Any:
    return None if raw == OFF else raw


class Rules(_Strict):
    """What applies to one meeting type, overrides laid over the file's own."""

    owner: OwnerRules = OwnerRules()
    contact: Annotated[ContactRules | None, BeforeValidator(_off)] = None
    company: Annotated[CompanyRules | None, BeforeValidator(_off)] = None
    deal: Annotated[DealRules | None, BeforeValidator(_off)] = None
    meeting: Annotated[MeetingRules | None, BeforeValidator(_off)] = None


class MappingFile(Rules):
    """A whole mapping file."""

    version: Literal[1]
    crm: str
    meeting_types: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Mapping:
    """A checked mapping file: the rules for each meeting-type slug."""

    def __init__(self, crm: str, base: Rules, by_slug: dict[str, Rules]) -> None:
        self.crm = crm
        self._base = base
        self._by_slug = by_slug

    def rules_for(self, slug: str | None) -> Rules:
        """The rules for a meeting type; those of the file where it has none of its own."""
        return self._by_slug.get(slug or "", self._base)

    def objects(self) -> list[ObjectName]:
        """The objects that the file writes, for some meeting type at least."""
        every = (self._base, *self._by_slug.values())
        return [name for name in ObjectName if any(getattr(rules, name) for rules in every)]

    def field_names(self, name: ObjectName) -> set[str]:
        """Every CRM field that the file writes on an object, over all meeting types."""
        sections = [getattr(rules, name) for rules in (self._base, *self._by_slug.values())]
        return {field for section in sections if section for field in section.fields}
