"""The source of a value in a mapping file: the keys of a source, of a field and of a record's key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from app.domain.text import cut, quoted
from app.mapping.conditions import check_condition, paths_of
from app.mapping.paths import answer_label, as_constant, check_path
from app.mapping.templates import check_template, names_in
from app.mapping.transforms import check_transform
from app.sync.desired import WriteRule

FieldRule = Literal[
    WriteRule.ALWAYS, WriteRule.NEVER_BLANK, WriteRule.ON_CREATE, WriteRule.IF_EMPTY,
    WriteRule.APPEND, WriteRule.UNTOUCHED,
]  # fmt: skip
PART = "part"
"""Marks the place of a part in a generated schema that json_schema.py writes by hand."""
Path = Annotated[str, WithJsonSchema({PART: "Path"})]
Transforms = Annotated[tuple[Any, ...], WithJsonSchema({PART: "Transforms"})]
When = Annotated[
    dict[str, Any],
    BeforeValidator(check_condition),
    WithJsonSchema({PART: "Condition"}),
]
STRICT = ConfigDict(extra="forbid", frozen=True)
"""For each part of a mapping file: unknown keys are refused, and values cannot be changed later."""


class Strict(BaseModel):
    model_config = STRICT


_SOURCES = {"path": "from"} | {
    name: name for name in ("value", "template", "first_of", "summary", "answers")
}
"""The possible source of a value -> the key for it."""
SOURCE_KEYS = frozenset(_SOURCES.values())


_CURLY = re.compile("[“”„‟‘’‚‛«»‹›](.*)[“”„‟‘’‚‛«»‹›]", re.S)
"""A constant in curly quotes: YAML takes them for letters of the text."""


def _constant(text: str) -> str:
    return f"; a constant is written {as_constant(cut(text, 60))}"


class ValueSource(Strict):
    """Where a value comes from."""

    path: Annotated[
        Path | None, Field(alias="from", description="A path, such as attendee.email")
    ] = None
    value: Annotated[
        str | int | float | bool | list[str] | None, Field(description="A constant")
    ] = None
    template: Annotated[
        str | None, Field(description="A Jinja2 template, rendered in a sandbox")
    ] = None
    first_of: Annotated[
        tuple[Path, ...], Field(description="Paths: the first one that is not empty is used")
    ] = ()
    summary: Annotated[
        Literal["all"] | None, Field(description="The whole booking as one text")
    ] = None
    answers: Annotated[
        Literal["all", "unmapped"] | None,
        Field(
            description="A list of questions and answers: all, or only those that no other field uses"
        ),
    ] = None
    transforms: Annotated[
        Transforms, Field(alias="as", description="Transforms, applied in this order")
    ] = ()
    when: Annotated[When, Field(description="Used only if every line is true")] = {}

    @field_validator("value")
    @classmethod
    def _no_curly_quotes(cls, value: Any) -> Any:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (inside := _CURLY.fullmatch(text.strip())):
                right = as_constant(cut(inside[1], 60))
                words = f"{quoted(text)} would be written with its curly quotes; write {right}"
                raise ValueError(f"{words}, or a template if you want them")
        return value

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
        words = "; a value for an empty path is written as: {default: …}"
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
            words += f"; this entry has {' and '.join(given)}"
        if {"from", "value"} <= set(given):
            words += "; a value for an empty path is written as: {default: …}"
        raise ValueError(words)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that the value is read from."""
        return ((self.path,) if self.path else ()) + self.first_of

    @property
    def late(self) -> bool:
        """Whether it repeats other fields, so that it is evaluated after them."""
        return self.summary is not None or self.answers is not None

    @property
    def personal(self) -> bool:
        """Whether it summarises all bookings of a person."""
        return "person" in self._roots

    @property
    def purely_personal(self) -> bool:
        """Whether it depends only on the bookings of a person."""
        return self._roots == {"person"} and not self.when

    @property
    def _roots(self) -> frozenset[str]:
        roots = frozenset(path.partition(".")[0] for path in self.paths)
        return roots | (names_in(self.template) if self.template else frozenset())

    def labels(self) -> Iterator[str]:
        """Give the questions whose answers it uses."""
        for path in self.paths:
            label = answer_label(path)
            if label:
                yield label
        for name in names_in(self.template) if self.template else ():
            if name.startswith("answers:"):
                yield name.partition(":")[2]

    @property
    def needs_answers(self) -> bool:
        """Whether it is worth reading answers from meetergo that a webhook lacks."""
        # The summary of a booking contains the answers too.
        asked = any(True for _ in self.labels()) or self.late
        return asked or any(answer_label(path) for path in paths_of(self.when))


class FieldSpec(ValueSource):
    """Where the value of one CRM field comes from and when it may be written."""

    write: Annotated[
        FieldRule, Field(description="When the field's present value may be replaced")
    ] = WriteRule.NEVER_BLANK
    on_error: Annotated[
        Literal["fail", "skip", "skip_record"],
        Field(description="If the value cannot be made: fail the booking (default), "
              "leave out the field, or leave out the record"),
    ] = "fail"  # fmt: skip


def _field(raw: Any) -> Any:
    return {"from": raw} if isinstance(raw, str) else raw


class RecordId(ValueSource):
    """The source of a record's id or URL, and whose record it may be."""

    of: Annotated[
        Literal["anybody", "attendee"],
        Field(description="Whether any named record may be used, or only the attendee's own"),
    ] = "anybody"


SourceEntry = Annotated[
    ValueSource, BeforeValidator(_field, json_schema_input_type=Path | ValueSource)
]
RecordIdEntry = Annotated[RecordId, BeforeValidator(_field, json_schema_input_type=Path | RecordId)]
FieldEntry = Annotated[FieldSpec, BeforeValidator(_field, json_schema_input_type=Path | FieldSpec)]
FieldMap = dict[str, FieldEntry]


class FieldKey(Strict):
    """A field of the CRM that identifies a record, and the source of its value."""

    field: str
    source: Annotated[SourceEntry, Field(alias="from")]
