"""HubSpot by its own client, on the date-based API: batches, inline links, unique booking id."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from app.crm.changes import Plan
from app.crm.lookup import Lookup, LookupResults, MatchKey
from app.crm.objects import ObjectName, Ref
from app.crm.port import Access, ApiFacts, Report
from app.crm.schema import (
    CrmAccount,
    CrmField,
    CrmShape,
    Directory,
    FieldKind,
    FieldOption,
    NewField,
    Pipeline,
)
from app.domain.errors import AccountRefused, Conflict, InvalidRecord, RetryLater
from app.domain.rate_limits import RateLimit
from app.domain.zones import country_of_zone
from app.outbound.reply import an_id, some_text
from crm_adapters.base import BOOKING_FIELD, SEARCH_LAG, confirmed, read_schema
from crm_adapters.finder import id_in, read_ids
from crm_adapters.hubspot.client import CALLS, FACTS, PLURAL, SEARCHES, HubSpotClient
from crm_adapters.hubspot.finder import (
    CALCULATED,
    COUNTRIES,
    FURTHER_DOMAINS,
    PHONES,
    Portal,
    find,
)
from crm_adapters.hubspot.schema import choices_of, field_of, owners_of, pipelines_of
from crm_adapters.hubspot.writer import Writer
from crm_adapters.writing import note_lost_targets

_HOST = re.compile(r"app(?:-[a-z]{2,4}[0-9]{0,2})?\.hubspot\.com")
"""https://developers.hubspot.com/docs/getting-started/hubspot-data-hosting: app-eu1 and others"""
RECORD_TYPES = {"contact": "0-1", "company": "0-2", "deal": "0-3", "meeting": "0-47"}
KNOWN_FIELD = {
    ObjectName.COMPANY: "name", ObjectName.CONTACT: "email", ObjectName.DEAL: "dealname",
    ObjectName.MEETING: "hs_meeting_title",
}  # fmt: skip
"""A property that every portal has: new ones go into its group, since group names are not public."""
PROPERTY_TYPES = {
    # https://developers.hubspot.com/docs/api-reference/crm-properties-v3/guide
    FieldKind.TEXT: ("string", "text"),
    FieldKind.NUMBER: ("number", "number"),
    FieldKind.WHOLE: ("number", "number"),
    FieldKind.FLAG: ("bool", "booleancheckbox"),
    FieldKind.DATE: ("date", "date"),
    FieldKind.MOMENT: ("datetime", "date"),
    FieldKind.TIME: ("string", "text"),
    FieldKind.CHOICE: ("enumeration", "select"),
    FieldKind.CHOICES: ("enumeration", "checkbox"),
    FieldKind.MONEY: ("number", "number"),
}
MARKED = (ObjectName.DEAL, ObjectName.MEETING)
"""Objects that get the booking-id property."""


class HubSpotAdapter:
    """One HubSpot account."""

    batch_size: ClassVar[int] = 500
    asks_ahead: ClassVar[bool] = False
    allowances: ClassVar[Sequence[RateLimit]] = (CALLS, SEARCHES)
    api_facts: ClassVar[ApiFacts] = FACTS
    shape: ClassVar[CrmShape] = CrmShape(
        owner_fields=dict.fromkeys(ObjectName, "hubspot_owner_id"),
        pipeline_field="pipeline",
        stage_field="dealstage",
        stage_by_label=False,
        text_limits={
            "meeting.hs_meeting_body": 65_535,
            "meeting.hs_meeting_title": 255,
            "meeting.hs_meeting_location": 255,
            "deal.dealname": 255,
            "contact.firstname": 255,
            "contact.lastname": 255,
        },
        html_fields=frozenset({"meeting.hs_meeting_body"}),
        native_keys={
            ObjectName.CONTACT: MatchKey.EMAIL,
            ObjectName.DEAL: MatchKey.BOOKING,
        },
        match_keys={
            ObjectName.CONTACT: (MatchKey.SECONDARY_EMAIL, MatchKey.PHONE),
            ObjectName.COMPANY: (MatchKey.DOMAIN,),
            ObjectName.DEAL: (MatchKey.OPEN_DEAL,),
        },
        lag=dict.fromkeys((ObjectName.COMPANY, ObjectName.CONTACT), SEARCH_LAG),
        needs={
            # https://developers.hubspot.com/docs/api-reference/crm-contacts-v3/guide, and the same
            # for crm-companies-v3 and crm-meetings-v3 (without hs_timestamp the start counts);
            # https://developers.hubspot.com/docs/api-reference/2026-03/crm/objects/deals/guide: the
            # pipeline is always written.
            ObjectName.CONTACT: (("email", "firstname", "lastname"),),
            ObjectName.COMPANY: (("name", "domain"),),
            ObjectName.DEAL: (("dealname",), ("dealstage",)),
            ObjectName.MEETING: (("hs_timestamp", "hs_meeting_start_time"),),
        },
        new_fields=dict.fromkeys(PLURAL, "[a-z][a-z0-9_]*"),
    )

    def __init__(self, access: Access) -> None:
        self.access = access
        self._api = HubSpotClient(access)
        self._number = ""
        self._country: str | None = None
        self._portal = Portal()
        self._users: tuple[FieldOption, ...] = ()

    def whoami(self) -> CrmAccount:
        """Return the portal's number from /account-info, which has no name."""
        details = self._api.details()
        self._number = an_id(details, "portalId")
        self._country = country_of_zone(some_text(details, "timeZone"))
        return CrmAccount(self._number, f"portal {self._number}")

    def check(self, name: ObjectName) -> None:
        """Read one record of an object."""
        self._api.page(name)

    def directory(self, needed: frozenset[ObjectName] | None = None) -> Directory:
        """Return owners, deal pipelines, and the objects that have the booking-id field."""
        self.whoami()
        notes: list[str] = []
        owners = self._owners(notes)
        schema, lacking = read_schema(
            lambda name: {field.name: field for field in self.describe(name)},
            self.shape.objects,
            needed,
        )
        notes[:0] = lacking
        deals = needed is None or ObjectName.DEAL in needed
        shown = {*schema.get(ObjectName.CONTACT, {})}
        self._portal = Portal(
            further=FURTHER_DOMAINS in schema.get(ObjectName.COMPANY, {}),
            phones=frozenset(shown & {*PHONES, *CALCULATED, *COUNTRIES}),
            country=self._country,
        )
        return Directory(
            owners=owners,
            pipelines=self._pipelines() if deals else (),
            booking_fields={
                name: BOOKING_FIELD for name in MARKED if BOOKING_FIELD in schema.get(name, {})
            },
            schema=schema,
            notes=tuple(notes),
        )

    def _pipelines(self) -> tuple[Pipeline, ...]:
        try:
            return pipelines_of(self._api.pipelines())
        except AccountRefused as error:
            error.message = f"The portal does not show its deal pipelines: {error.message}"
            raise

    def _owners(self, notes: list[str]) -> dict[str, str]:
        self._users = ()
        try:
            owners = confirmed(lambda: list(self._api.owners()), self._probe)
            self._users = choices_of(owners)
            return owners_of(owners)
        except AccountRefused as error:
            notes.append(f"The portal's users cannot be read, so records get no owner: {error}")
            return {}

    def _probe(self) -> None:
        """Check that the portal answers at all. Raises RetryLater if it refuses everything."""
        try:
            self.whoami()
        except AccountRefused as error:
            raise RetryLater(error.message) from None

    def describe(self, name: ObjectName) -> list[CrmField]:
        """Return the properties of an object."""
        return [field_of(item, self._users) for item in self._api.properties(name)]

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Create the booking-id property: unique on deals; on meetings unique if HubSpot allows it."""
        done = []
        for name in MARKED:
            if any(field.name == BOOKING_FIELD for field in self.describe(name)):
                continue
            field = NewField(name, BOOKING_FIELD, label="meetergo booking")
            try:
                self._make_property(field, unique=True)
            except InvalidRecord:
                # Unique values are documented for contacts, companies, deals and tickets only.
                self._make_property(field, unique=False)
            done.append(f"HubSpot: property {BOOKING_FIELD} created on {PLURAL[name]}")
        for field in fields:
            self._make_property(field, unique=False)
            done.append(f"HubSpot: property {field.name} created on {PLURAL[field.object]}")
        return done

    def _make_property(self, field: NewField, unique: bool) -> None:
        kind, shown = PROPERTY_TYPES[field.kind]
        body: dict[str, Any] = {
            "name": field.name,
            "label": field.label or field.name.replace("_", " ").capitalize(),
            "type": kind,
            "fieldType": shown,
            "groupName": self._group(field.object),
            "hasUniqueValue": unique,
        }
        yes_or_no = (("Yes", "true"), ("No", "false")) if field.kind is FieldKind.FLAG else ()
        options = yes_or_no or tuple((label, label) for label in field.options)
        if options:
            body["options"] = [
                {"label": word, "value": value, "displayOrder": number, "hidden": False}
                for number, (word, value) in enumerate(options)
            ]
        try:
            self._api.make_property(field.object, body)
        except Conflict as error:
            # An archived property keeps its name.
            raise InvalidRecord(f"{field.name}: {error.message}") from None

    def _group(self, name: ObjectName) -> str:
        """Return the group of an existing property: new properties go into it."""
        for item in self._api.properties(name):
            if item.get("name") == KNOWN_FIELD[name] and some_text(item, "groupName"):
                return some_text(item, "groupName")
        raise InvalidRecord(f"HubSpot does not list the groups of its {name} properties.")

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Return the URL of a record in the portal."""
        web = self.access.web_base or "https://app.hubspot.com"
        return f"{web}/contacts/{self._number}/record/{RECORD_TYPES[name]}/{record_id}"

    def record_id_in(self, name: ObjectName, text: str) -> str:
        """Return the id itself, or the id in a URL of this portal, in any of HubSpot's regions.

        https://knowledge.hubspot.com/records/find-record-ids; the older form names the object.
        """
        kinds = f"(?:record/{RECORD_TYPES[name]}|{name})"
        page = f"/contacts/{re.escape(self._number)}/{kinds}/{{id}}(?:/.*)?"
        return id_in(text, self._is_own, (page,))

    def _is_own(self, host: str) -> bool:
        return host == self.access.web_host or bool(_HOST.fullmatch(host))

    def apply(self, plan: Plan, report: Report) -> None:
        """Write companies, contacts, deals and meetings, each in as few batches as possible."""
        writer = Writer(self._api, plan, report)
        for name in self.shape.objects:
            writer.write(name, plan.of(name))
        note_lost_targets(self.find, plan, report)

    def find(self, questions: Sequence[Lookup], ids: Mapping[Ref, str]) -> LookupResults:
        """Read and search, object by object: the contacts decide which deals are possible."""
        asked = read_ids(questions, self.record_id_in)
        return find(self._api, asked, ids, self._portal)
