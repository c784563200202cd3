"""What people do in a CRM and what they see there, in words that all CRMs share; and what tests have
to know of a CRM beside: what its fields, calls and refusals are called.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

from app.crm.objects import ObjectName
from app.crm.schema import FieldKind, NewField
from crm_adapters.codes import Sort
from sandbox.limits import Window
from tests.bridge import PROVIDERS, Bridge

Values = Mapping[str, Any]
Call = tuple[str, str]
"""A call as a fault names it: its method, and a part of its path."""
Refusal = tuple[int, Any]
"""A CRM's answer: its status and its body."""
WORDS = "the CRM's own words"
"""What a refusal says to people."""
NOBODY = "nobody writes it"
WON, LOST = "Won", "Lost"
"""How a deal ends: stages in HubSpot and Salesforce, a status in Pipedrive."""
COMMON: dict[str, tuple[str, ...]] = {
    "contact": ("name", "email", "emails", "phone", "job_title", "company", "owner"),
    "company": ("name", "domain", "owner"),
    "lead": ("name", "email", "phone", "company_name", "status", "converted", "owner"),
    "deal": ("title", "stage", "pipeline", "amount", "close_date", "contacts",
             "main_contact", "company", "owner"),
    "case": ("subject", "status", "origin", "contact", "company", "owner"),
    "meeting": ("title", "start", "minutes", "where", "body", "contacts", "deal", "case", "company",
                "owner"),
}  # fmt: skip
"""The words for what every CRM has; its own fields go by their own names beside them."""


@dataclass(frozen=True)
class Link:
    """Another record, as people name it."""

    id: str
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return self.names[0] if self.names else self.id


@dataclass
class CustomField:
    """A field that the company has added to its CRM."""

    kind: str
    options: list[str] = field(default_factory=list)


class FieldType(NamedTuple):
    """A type of field of deals: two values as a booking has them, and how each stands in the CRM."""

    name: str
    type: Any
    """What `add_typed` of the desk makes the field by; None: the CRM has the field already."""
    first: Any = NOBODY
    first_there: Any = None
    second: Any = None
    second_there: Any = None
    emptied: Any = None
    """What stands there once the booking has no value; "stays" for what cannot be emptied."""
    own: Any = None
    """What a colleague chooses instead, in the CRM's own shape."""
    transforms: Any = ()


class Desk:
    """Somebody who works in a CRM, without its API: nothing here is counted as a call.

    What has no default here, a new CRM's desk has to say; what has one, it says where it differs.
    """

    # Objects and fields

    kinds: ClassVar[dict[str, str]]
    """Our word for an object -> the CRM's."""
    names: ClassVar[dict[str, dict[str, str]]]
    """Object -> our word for a field -> the CRM's, where a field is just renamed."""
    in_files: ClassVar[dict[str, dict[str, str]]]
    """Object -> our word -> the field's name in a mapping file, where `names` does not have it: of
    contacts email, last, phone and job_title are needed, of deals title, of meetings title, where and
    start (the field whose value begins with the day)."""
    stores: ClassVar[tuple[str, ...]] = ("records",)
    """Attributes of the sandbox that hold records, links and fields."""
    link_fields: ClassVar[frozenset[str]] = frozenset()
    """Keys of `raw` that hold the ids of other records."""
    unused_fields: ClassVar[tuple[str, ...]]
    """An object of the CRM, then fields of it that the default mapping does not name."""
    no_field: ClassVar[tuple[str, str]] = ("contact", "Not Usable")
    """An object, and a name that no custom field of it can have."""
    demands: ClassVar[tuple[tuple[str, tuple[str, ...], str], ...]] = ()
    """What every record needs: an object, fields that the default mapping loses, and what the check
    then says that the CRM demands."""
    field_types: ClassVar[tuple[FieldType, ...]] = ()
    """Every type of field that the CRM documents."""
    new_field: ClassVar[NewField] = NewField(ObjectName.DEAL, "seats__c", FieldKind.NUMBER, "Seats")
    """A custom field that the adapter can make."""

    # Mapping files

    a_stage: ClassVar[str]
    """A stage of the sandbox's first pipeline as people write it."""
    own_rules: ClassVar[dict[str, Values]] = {}
    """Name -> changes of the mapping with which this CRM's preview is held to what happens; `rules`
    has write rules of contacts."""

    # Calls

    called_at: ClassVar[str | None] = None
    """The host that is called for an account, where it is not the `api_base` of providers.yaml."""
    first_write: ClassVar[str]
    """Part of the path of the first write for a new person."""
    first_read: ClassVar[str]
    """Part of the path of the first read for a person with a company."""
    update_contact: ClassVar[Call]
    """How a known contact is written to."""
    delete_meeting: ClassVar[Call]
    """How a meeting is deleted."""
    create_deal: ClassVar[Call]
    """How a deal is made."""
    after_deal: ClassVar[Call]
    """What is called once a deal was made whose answer was lost."""
    make_field: ClassVar[str]
    """A pattern of the calls that make a custom field."""
    searches: ClassVar[tuple[str, ...]] = ("/search", "/query")
    """Ends of the paths that look for something."""
    batch_reads: ClassVar[tuple[str, ...]] = ()
    """Ends of the paths that read contacts for a whole batch; none: they are read one by one."""
    most_calls: ClassVar[tuple[int, int, int] | None] = None
    """Calls that are promised at most for a new attendee: created, moved, cancelled."""
    most_for_numbers: ClassVar[int | None] = None
    """Calls for sixty numbers, where one call takes several."""
    most_at_a_meeting: ClassVar[int | None] = None
    """Contacts that a meeting takes; the others stand in its text."""

    # Refusals

    refusals: ClassVar[dict[Sort, tuple[Refusal, ...]]] = {}
    """How the CRM says it, for each sort of refusal that it documents; WORDS are in each."""
    blocked: ClassVar[Refusal]
    """How the CRM says that it takes nothing of an account."""
    needed_scope: ClassVar[str]
    """A scope without which no booking can be written."""

    # Time

    seconds_a_call: ClassVar[float] = 0.3
    """Seconds that a call takes, on a clock that nobody waits for."""
    backlog: ClassVar[int] = 10
    """Bookings whose calls take longer than a live one may wait."""
    clocks: ClassVar[tuple[str, ...]] = ()
    """Names by which the adapter reads the clock, for tests that have one of their own."""
    counts_days: ClassVar[bool] = False
    """Whether the CRM gives so many calls a day: `use_up_day` then uses them up."""

    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox
        self.aliases: dict[str, str] = {}
        """What a case calls a record -> its id now."""

    @classmethod
    def field(cls, name: str, word: str) -> str:
        """How a mapping file calls a field."""
        return cls.in_files.get(name, {}).get(word) or cls.names[name][word]

    @classmethod
    def made_up_id(cls, name: str, number: int) -> str:
        """The id of the record of that number."""
        return str(number)

    @classmethod
    def is_id(cls, name: str, text: str) -> bool:
        """Whether a text has the form of an object's ids."""
        return re.fullmatch("[1-9][0-9]{0,17}", text) is not None

    @classmethod
    def has_first_names(cls) -> bool:
        """Whether a contact has a field for the first name."""
        return "first" in cls.names["contact"]

    @classmethod
    def custom_name(cls, label: str) -> str:
        """How a mapping file calls a custom field that people call so."""
        return label

    @classmethod
    def known_company(cls, domain: str) -> Values:
        """A company that a booking from a domain finds."""
        return {"name": "Globex", "domain": domain}

    def address(self, name: str, record_id: str) -> str:
        """What stands in a browser's address bar while somebody looks at a record."""
        raise NotImplementedError

    def lift_limits(self) -> None:
        """Let the CRM take as many calls as there are."""
        for name, value in vars(self.sandbox).items():
            if isinstance(value, Window):
                setattr(self.sandbox, name, Window(1_000_000, value.seconds))

    def add_users(self, emails: Iterable[str]) -> None:
        """Let more people work with the CRM."""
        for email in emails:
            self.sandbox.users.setdefault(email, email.partition("@")[0].title())

    def set_pipelines(self, pipelines: Mapping[str, list[str]]) -> None:
        """Set up the deal pipelines; each ends in won and lost."""
        raise NotImplementedError

    def assign_to(self, email: str) -> None:
        """Set up a rule of the CRM's own that gives new leads and cases to a user."""
        raise NotImplementedError(f"{type(self).__name__} has no assignment rules")

    def add_field(self, name: str, field: str, spec: CustomField) -> None:
        """Add a custom field to an object."""
        raise NotImplementedError

    def make(self, name: str, values: Values) -> str:
        """Make a record; give its id."""
        raise NotImplementedError

    def change(self, name: str, record_id: str, values: Values) -> None:
        """Change a record."""
        raise NotImplementedError

    def delete(self, name: str, record_id: str) -> None:
        """Delete a record."""
        raise NotImplementedError

    def merge(self, name: str, loser: str, winner: str) -> str:
        """Merge one record into another; give the id of what is left."""
        raise NotImplementedError

    def convert(self, lead_id: str) -> str:
        """Convert a lead; give the id of the contact, or in Pipedrive of the deal."""
        raise NotImplementedError(f"{type(self).__name__} has no leads")

    def add_stage(self) -> None:
        """Let the first pipeline have one more stage at its end."""
        raise NotImplementedError

    def drop_stage(self) -> None:
        """Take the stage of `add_stage` away again."""
        raise NotImplementedError

    def block(self) -> None:
        """Let the CRM take nothing of the account, until `clears_answers`."""
        status, body = self.blocked
        self.sandbox.account.every_call_answers(status, body)

    def use_up_day(self) -> Callable[[], None]:
        """Use up nearly all calls of the day; give what brings the next day."""
        raise NotImplementedError(f"{type(self).__name__} has no calls a day")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Every record of an object, in our words and under the CRM's own field names."""
        raise NotImplementedError

    def raw(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(object, id) -> every field of a record that is there, under the names of mapping files."""
        raise NotImplementedError

    def user_id(self, email: str) -> Any:
        """The id of a user."""
        raise NotImplementedError

    def add_typed(self, spec: FieldType) -> None:
        """Let deals have a field of `field_types`."""
        raise NotImplementedError

    def make_others(self) -> dict[str, Any]:
        """Make the records that values of `field_types` name by an @; give their ids."""
        return {}

    def holder(self, name: str) -> tuple[dict[str, Any], str]:
        """The part of the one deal in which a field of `field_types` stands, and its key there."""
        raise NotImplementedError

    def own_fields(self, name: str) -> set[str]:
        """The CRM's own names of an object's fields."""
        raise NotImplementedError

    def records(self, name: str) -> list[dict[str, Any]]:
        """Every record of an object that the CRM has; none where it has no such object."""
        if name not in self.kinds:
            return []
        with self.sandbox.lock:
            return self.rows(name)

    def words(self, name: str) -> set[str]:
        """Everything that may be said of an object's records."""
        return {"id", *COMMON[name], *(self.own_fields(name) if name in self.kinds else ())}

    def id_of(self, name: str, text: str) -> str:
        """The one record that is called so: by the case's own name for it, or by what it shows."""
        if text in self.aliases:
            return self.aliases[text]
        shown = {"contact": "email", "lead": "email", "company": "name", "case": "subject"}
        key = shown.get(name, "title")
        # A lead of Pipedrive's inbox stands for a deal, and is called as one.
        ids = [row["id"] for row in self.records(name) if row.get(key, row.get("title")) == text]
        assert len(ids) == 1, f"{len(ids)} records are meant by {name} {text!r}"
        return str(ids[0])

    def link(self, name: str, record_id: Any) -> Link | None:
        """Another record as people name it."""
        return Link(str(record_id), self.shown(name, str(record_id))) if record_id else None

    def shown(self, name: str, record_id: str) -> tuple[str, ...]:
        """What people call a record."""
        raise NotImplementedError


def split_name(values: Values) -> dict[str, Any]:
    """`name` as first and last name, at the last blank."""
    parts = dict(values)
    if "name" in parts:
        first, _, last = parts.pop("name").rpartition(" ")
        parts |= {"first": first or None, "last": last}
    return parts


@functools.cache
def load_desks() -> dict[str, type[Desk]]:
    """The desk of every CRM, in tests/contract/desk_<provider>.py."""
    found = {}
    for crm in PROVIDERS:
        kinds = vars(import_module(f"tests.contract.desk_{crm}")).values()
        found[crm] = next(k for k in kinds if isinstance(k, type) and Desk in k.__bases__)
    return found


def desk_in(bridge: Bridge, crm: str = "") -> Desk:
    """Somebody who works in a CRM of a service; without a name in the only one."""
    name = crm or next(iter(bridge.served))
    return load_desks()[name](bridge.sandbox(name))
