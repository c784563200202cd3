"""What people do and see in a CRM, in words that all CRMs share; also the facts that tests need
about a CRM: the names of its fields, calls and refusals.
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
"""A call in the form that a fault uses: its method and a part of its path."""
Refusal = tuple[int, Any]
"""A CRM's answer: its status and its body."""
WORDS = "the CRM's own words"
"""The text of a refusal that people read."""
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
"""The words that work for every CRM; a CRM's other fields keep their own names."""


@dataclass(frozen=True)
class Link:
    """Another record, by the names that people use for it."""

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
    """A type of deal field: two values as a booking has them, and their form in the CRM."""

    name: str
    type: Any
    """The definition that `add_typed` creates the field from; None: the CRM has the field already."""
    first: Any = NOBODY
    first_there: Any = None
    second: Any = None
    second_there: Any = None
    emptied: Any = None
    """The CRM's value after the booking lost its value; "stays" if the field cannot be emptied."""
    own: Any = None
    """The value that a colleague chooses instead, in the CRM's own form."""
    transforms: Any = ()


class Desk:
    """A person who works in a CRM without its API: none of these actions counts as a call.

    The desk of a new CRM must define the attributes without a default; it overrides the others only
    where the CRM differs.
    """

    # Objects and fields

    kinds: ClassVar[dict[str, str]]
    """Our word for an object -> the CRM's."""
    names: ClassVar[dict[str, dict[str, str]]]
    """Object -> our word for a field -> the CRM's, if the field only has another name."""
    in_files: ClassVar[dict[str, dict[str, str]]]
    """Object -> our word -> the field's name in a mapping file, if `names` lacks it. Contacts need
    email, last, phone and job_title; deals need title; meetings need title, where and start (the
    field whose value begins with the day).
    """
    stores: ClassVar[tuple[str, ...]] = ("records",)
    """Attributes of the sandbox that hold records, links and fields."""
    link_fields: ClassVar[frozenset[str]] = frozenset()
    """Keys of `raw` that hold the ids of other records."""
    unused_fields: ClassVar[tuple[str, ...]]
    """An object of the CRM, followed by fields of it that the default mapping does not use."""
    no_field: ClassVar[tuple[str, str]] = ("contact", "Not Usable")
    """An object, and a name that no custom field of this object can have."""
    demands: ClassVar[tuple[tuple[str, tuple[str, ...], str], ...]] = ()
    """Required fields: an object, the fields to remove from the default mapping, and the fields
    that the check then reports as required.
    """
    field_types: ClassVar[tuple[FieldType, ...]] = ()
    """Every field type in the CRM's documentation."""
    new_field: ClassVar[NewField] = NewField(ObjectName.DEAL, "seats__c", FieldKind.NUMBER, "Seats")
    """A custom field that the adapter can create."""

    # Mapping files

    remakes_meetings: ClassVar[bool] = False
    """Whether a meeting that changes is another record from then on: the CRM's API can change none."""
    a_stage: ClassVar[str]
    """A stage of the sandbox's first pipeline, as people write it."""
    own_rules: ClassVar[dict[str, Values]] = {}
    """Name -> mapping changes for the test that compares preview and sync; `rules` has write rules
    of contacts.
    """

    # Calls

    called_at: ClassVar[str | None] = None
    """The host that an account's calls go to, if it is not the `api_base` of providers.yaml."""
    first_write: ClassVar[str]
    """Part of the path of the first write for a new person."""
    first_read: ClassVar[str]
    """Part of the path of the first read for a person with a company."""
    update_contact: ClassVar[Call]
    """The call that updates a known contact."""
    delete_meeting: ClassVar[Call]
    """The call that deletes a meeting."""
    create_deal: ClassVar[Call]
    """The call that creates a deal."""
    after_deal: ClassVar[Call]
    """The call that follows after the answer to a deal's create was lost."""
    make_field: ClassVar[str]
    """A pattern of the calls that create a custom field."""
    searches: ClassVar[tuple[str, ...]] = ("/search", "/query")
    """The ends of the paths that search for records."""
    batch_reads: ClassVar[tuple[str, ...]] = ()
    """The ends of the paths that read contacts for a whole batch; empty: they are read one by one."""
    most_calls: ClassVar[tuple[int, int, int] | None] = None
    """The promised maximum of calls for a new attendee: created, moved, cancelled."""
    most_for_numbers: ClassVar[int | None] = None
    """The number of calls for sixty phone numbers, if one call takes several."""
    most_at_a_meeting: ClassVar[int | None] = None
    """The number of contacts that a meeting can link; the meeting's text names the others."""

    # Refusals

    refusals: ClassVar[dict[Sort, tuple[Refusal, ...]]] = {}
    """Sort of refusal -> the CRM's documented answers of this sort; each contains WORDS."""
    blocked: ClassVar[Refusal]
    """The CRM's answer when it rejects every call of an account."""
    needed_scope: ClassVar[str]
    """A scope that every booking needs."""

    # Time

    seconds_a_call: ClassVar[float] = 0.3
    """The seconds that a call takes, on a simulated clock."""
    backlog: ClassVar[int] = 10
    """A number of bookings whose calls take longer than a live booking may wait."""
    clocks: ClassVar[tuple[str, ...]] = ()
    """The names by which the adapter reads the clock; tests replace them."""
    counts_days: ClassVar[bool] = False
    """Whether the CRM limits the calls per day; `use_up_day` then uses them up."""

    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox
        self.aliases: dict[str, str] = {}
        """The case's name for a record -> the record's current id."""

    @classmethod
    def field(cls, name: str, word: str) -> str:
        """Return the name of a field in a mapping file."""
        return cls.in_files.get(name, {}).get(word) or cls.names[name][word]

    @classmethod
    def made_up_id(cls, name: str, number: int) -> str:
        """Return the id for a record with this number."""
        return str(number)

    @classmethod
    def is_id(cls, name: str, text: str) -> bool:
        """Whether a text looks like an id of this object."""
        return re.fullmatch("[1-9][0-9]{0,17}", text) is not None

    @classmethod
    def has_first_names(cls) -> bool:
        """Whether a contact has a field for the first name."""
        return "first" in cls.names["contact"]

    @classmethod
    def custom_name(cls, label: str) -> str:
        """Return the mapping-file name of a custom field with this label."""
        return label

    @classmethod
    def known_company(cls, domain: str) -> Values:
        """Return a company that a booking with this domain matches."""
        return {"name": "Globex", "domain": domain}

    def address(self, name: str, record_id: str) -> str:
        """Return the address in the browser's address bar while a person views a record."""
        raise NotImplementedError

    def lift_limits(self) -> None:
        """Raise the CRM's rate limits so far that no test reaches them."""
        for name, value in vars(self.sandbox).items():
            if isinstance(value, Window):
                setattr(self.sandbox, name, Window(1_000_000, value.seconds))

    def add_users(self, emails: Iterable[str]) -> None:
        """Add users to the CRM."""
        for email in emails:
            self.sandbox.users.setdefault(email, email.partition("@")[0].title())

    def set_pipelines(self, pipelines: Mapping[str, list[str]]) -> None:
        """Set up the deal pipelines; each ends in won and lost."""
        raise NotImplementedError

    def assign_to(self, email: str) -> None:
        """Set up a CRM rule that assigns new leads and cases to a user."""
        raise NotImplementedError(f"{type(self).__name__} has no assignment rules")

    def add_field(self, name: str, field: str, spec: CustomField) -> None:
        """Add a custom field to an object."""
        raise NotImplementedError

    def make(self, name: str, values: Values) -> str:
        """Create a record; return its id."""
        raise NotImplementedError

    def change(self, name: str, record_id: str, values: Values) -> None:
        """Change a record."""
        raise NotImplementedError

    def delete(self, name: str, record_id: str) -> None:
        """Delete a record."""
        raise NotImplementedError

    def merge(self, name: str, loser: str, winner: str) -> str:
        """Merge one record into another; return the id of the remaining record."""
        raise NotImplementedError

    def convert(self, lead_id: str) -> str:
        """Convert a lead; return the id of the contact, or in Pipedrive of the deal."""
        raise NotImplementedError(f"{type(self).__name__} has no leads")

    def add_stage(self) -> None:
        """Add one more stage at the end of the first pipeline."""
        raise NotImplementedError

    def drop_stage(self) -> None:
        """Remove the stage of `add_stage`."""
        raise NotImplementedError

    def block(self) -> None:
        """Make the CRM reject every call of the account, until `clears_answers`."""
        status, body = self.blocked
        self.sandbox.account.every_call_answers(status, body)

    def use_up_day(self) -> Callable[[], None]:
        """Use up nearly all calls of the day; return a function that starts the next day."""
        raise NotImplementedError(f"{type(self).__name__} has no calls a day")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return every record of an object, by our words and by the CRM's own field names."""
        raise NotImplementedError

    def raw(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return (object, id) -> all fields of an existing record, by their mapping-file names."""
        raise NotImplementedError

    def user_id(self, email: str) -> Any:
        """Return the id of a user."""
        raise NotImplementedError

    def add_typed(self, spec: FieldType) -> None:
        """Add a field of `field_types` to deals."""
        raise NotImplementedError

    def make_others(self) -> dict[str, Any]:
        """Create the records that `field_types` values name with an @; return their ids."""
        return {}

    def holder(self, name: str) -> tuple[dict[str, Any], str]:
        """Return the part of the single deal that holds a field of `field_types`, and the key in it."""
        raise NotImplementedError

    def own_fields(self, name: str) -> set[str]:
        """Return the CRM's own field names of an object."""
        raise NotImplementedError

    def records(self, name: str) -> list[dict[str, Any]]:
        """Return every record of an object; empty if the CRM has no such object."""
        if name not in self.kinds:
            return []
        with self.sandbox.lock:
            return self.rows(name)

    def words(self, name: str) -> set[str]:
        """Return every word that a case may use for records of an object."""
        return {"id", *COMMON[name], *(self.own_fields(name) if name in self.kinds else ())}

    def id_of(self, name: str, text: str) -> str:
        """Return the id of the only record with this name: the case's own name for it, or its title."""
        if text in self.aliases:
            return self.aliases[text]
        shown = {"contact": "email", "lead": "email", "company": "name", "case": "subject"}
        key = shown.get(name, "title")
        # A lead in Pipedrive's inbox represents a deal, so cases call it a deal.
        ids = [row["id"] for row in self.records(name) if row.get(key, row.get("title")) == text]
        assert len(ids) == 1, f"{len(ids)} records are meant by {name} {text!r}"
        return str(ids[0])

    def link(self, name: str, record_id: Any) -> Link | None:
        """Return another record, with the names that people use for it."""
        return Link(str(record_id), self.shown(name, str(record_id))) if record_id else None

    def shown(self, name: str, record_id: str) -> tuple[str, ...]:
        """Return the names that people use for a record."""
        raise NotImplementedError


def split_name(values: Values) -> dict[str, Any]:
    """Split `name` into first and last name at the last blank."""
    parts = dict(values)
    if "name" in parts:
        first, _, last = parts.pop("name").rpartition(" ")
        parts |= {"first": first or None, "last": last}
    return parts


@functools.cache
def load_desks() -> dict[str, type[Desk]]:
    """Return the desk of every CRM, from tests/contract/desk_<provider>.py."""
    found = {}
    for crm in PROVIDERS:
        kinds = vars(import_module(f"tests.contract.desk_{crm}")).values()
        found[crm] = next(k for k in kinds if isinstance(k, type) and Desk in k.__bases__)
    return found


def desk_in(bridge: Bridge, crm: str = "") -> Desk:
    """Return the desk of a CRM of a service; without a name, of the only CRM."""
    name = crm or next(iter(bridge.served))
    return load_desks()[name](bridge.sandbox(name))
