"""Pipedrive on API v2: no batches and no upsert, so the ledger and a lookup before a doubtful create."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar
from urllib.parse import urlsplit

from app.crm.changes import Plan
from app.crm.lookup import Lookup, LookupResults, MatchKey
from app.crm.objects import ObjectName, Ref
from app.crm.port import Access, ApiFacts, Report
from app.crm.schema import CrmAccount, CrmField, CrmShape, Directory, FieldKind, NewField
from app.domain.countries import read_country
from app.domain.errors import AccountRefused, Gone, InvalidRecord, RetryLater
from app.domain.rate_limits import RateLimit
from app.domain.zones import country_of_zone
from app.outbound.reply import Json, some_text
from crm_adapters.base import BOOKING_FIELD, SEARCH_LAG, confirmed, read_schema
from crm_adapters.finder import id_in, read_ids
from crm_adapters.pipedrive.client import (
    AT_ONCE,
    CALLS,
    FACTS,
    FIELD_PATHS,
    LEAD_ID,
    SEARCHES,
    V2,
    PipedriveClient,
    is_lead,
)
from crm_adapters.pipedrive.finder import Finder
from crm_adapters.pipedrive.schema import (
    NOT_OF_LEADS,
    AboutAccount,
    CustomFields,
    fields_of,
    owners_of,
    pipelines_of,
    schema_of,
    users_of,
)
from crm_adapters.pipedrive.writer import Writer
from crm_adapters.writing import note_lost_targets

ID = "[1-9][0-9]{0,14}"
"""A record number that JSON can hold exactly; with a leading zero it would be another text."""
PAGES = {
    ObjectName.COMPANY: "organization",
    ObjectName.CONTACT: "person",
    ObjectName.DEAL: "deal",
    ObjectName.MEETING: "activities/list/user/everyone#dialog/activity/edit",
}
LEAD_PAGE = "leads/inbox"
FIELD_TYPES = {
    FieldKind.TEXT: "varchar", FieldKind.NUMBER: "double", FieldKind.WHOLE: "double",
    FieldKind.FLAG: "enum",
    FieldKind.DATE: "date", FieldKind.MOMENT: "varchar", FieldKind.TIME: "time", FieldKind.CHOICE: "enum",
    FieldKind.CHOICES: "set", FieldKind.MONEY: "monetary",
}  # fmt: skip
YES_OR_NO = ("Yes", "No")
"""Pipedrive has no custom check boxes: a list with two options replaces them."""
WITH_CUSTOM = (ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.DEAL)
"""Objects that take custom fields."""


class PipedriveAdapter:
    """One Pipedrive company account."""

    batch_size: ClassVar[int] = 20
    asks_ahead: ClassVar[bool] = True
    allowances: ClassVar[Sequence[RateLimit]] = (CALLS, SEARCHES)
    api_facts: ClassVar[ApiFacts] = FACTS
    shape: ClassVar[CrmShape] = CrmShape(
        listed=frozenset({"meeting.type"}),
        owner_fields=dict.fromkeys(ObjectName, "owner_id"),
        pipeline_field="pipeline_id",
        stage_field="stage_id",
        stage_by_label=False,
        text_limits={
            "contact.name": 255,
            "company.name": 255,
            "deal.title": 255,
            "meeting.subject": 255,
            "meeting.location": 255,
            "meeting.note": 65_000,
        },
        html_fields=frozenset({"meeting.note"}),
        match_keys={
            ObjectName.CONTACT: (MatchKey.EMAIL, MatchKey.SECONDARY_EMAIL, MatchKey.PHONE),
            ObjectName.COMPANY: (MatchKey.DOMAIN,),
            ObjectName.DEAL: (MatchKey.OPEN_DEAL,),
        },
        lag=dict.fromkeys((ObjectName.COMPANY, ObjectName.CONTACT), SEARCH_LAG),
        needs={
            ObjectName.COMPANY: (("name",),),
            ObjectName.CONTACT: (("name",),),
            ObjectName.DEAL: (("title",),),
            ObjectName.MEETING: (("subject",),),
        },
        # Activities take no custom fields.
        new_fields=dict.fromkeys((ObjectName.COMPANY, ObjectName.CONTACT, ObjectName.DEAL), ".+"),
        # A lead stands in for a deal until somebody converts it into one. Both are records of the
        # deal object; the form of the id shows which one it is.
        inbox_ids=LEAD_ID.pattern,
        not_of_inbox=NOT_OF_LEADS,
    )

    def __init__(self, access: Access) -> None:
        self.access = access
        self._api = PipedriveClient(access)
        # Two pools, so that writes do not wait behind lookups.
        self._asking = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pipedrive-asks")
        self._writing = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pipedrive-writes")
        self._custom: CustomFields | None = None
        self._web = access.api_base
        self._own_user: str | None = None
        self._about = AboutAccount()
        self._country: str | None = None

    def whoami(self) -> CrmAccount:
        """Return the company's id, its name and its domain."""
        me = self._api.me()
        self._own_user = some_text(me, "id") or None
        self._about.currency = some_text(me, "default_currency").upper()
        own = read_country(some_text(me, "company_country"))
        self._country = own or country_of_zone(some_text(me, "timezone_name"))
        domain = some_text(me, "company_domain")
        if domain.isascii() and domain.replace("-", "").isalnum():
            self._web = f"https://{domain}.pipedrive.com"
        number = some_text(me, "company_id") or domain
        if not number:
            raise RetryLater("Pipedrive's answer does not name the account.")
        return CrmAccount(
            number, f"{some_text(me, 'company_name') or 'company'} ({domain or number})"
        )

    def check(self, name: ObjectName) -> None:
        """Read one record of an object."""
        self._api.one_of(name)

    def directory(self, needed: frozenset[ObjectName] | None = None) -> Directory:
        """Return users, pipelines with their stages, and the keys of custom fields."""
        items: dict[ObjectName, list[Json]] = {}

        def read(name: ObjectName) -> dict[str, CrmField]:
            items[name] = list(self._api.pages(FIELD_PATHS[name]))
            return schema_of(name, items[name], self._about)

        # First read from v2: a refusal of the old users API can then be ignored.
        schema, notes = read_schema(read, self.shape.objects, needed)
        owners = self._owners(notes, next(iter(schema), None))
        schema = {name: schema_of(name, items[name], self._about) for name in schema}
        custom = CustomFields()
        for name, found in items.items():
            custom.note(name, found)
        self._custom = custom
        deals = needed is None or ObjectName.DEAL in needed
        stages = list(self._api.pages(f"{V2}/stages")) if deals else []
        marked = (ObjectName.DEAL, BOOKING_FIELD) in custom.keys
        return Directory(
            owners=owners,
            own_user=self._own_user,
            pipelines=pipelines_of(self._api.pages(f"{V2}/pipelines"), stages) if deals else (),
            booking_fields={ObjectName.DEAL: BOOKING_FIELD} if marked else {},
            schema=schema,
            notes=tuple(notes),
        )

    def _owners(self, notes: list[str], shown: ObjectName | None) -> dict[str, str]:
        """Return the users; v1 is out of support, so its endpoints may vanish.

        `shown`: an object whose fields were read a moment ago. Raises RetryLater if they are
        refused now: in that case the account refuses everything, not only v1.
        """

        def probe() -> None:
            try:
                list(self._api.pages(FIELD_PATHS[shown]) if shown else ())
            except AccountRefused as error:
                raise RetryLater(error.message) from None

        self._about.users = ()
        try:
            confirmed(self.whoami, probe)
            users = confirmed(self._api.users, probe)
            self._about.users = users_of(users)
            return owners_of(users)
        except (Gone, AccountRefused, InvalidRecord) as error:
            notes.append(
                "Pipedrive does not list its users, so owners come from the mapping's table, by"
                f" their ids: {error.message}"
            )
            return {}

    def describe(self, name: ObjectName) -> list[CrmField]:
        """Return the fields of an object; custom ones have the name that mapping files use."""
        return fields_of(name, list(self._api.pages(FIELD_PATHS[name])), self._about)

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Create the booking-id field on deals; activities take no custom fields."""
        done = []
        if (ObjectName.DEAL, BOOKING_FIELD) not in self._read_custom().keys:
            fields = (NewField(ObjectName.DEAL, BOOKING_FIELD), *fields)
        for field in fields:
            if field.object is ObjectName.MEETING:
                raise InvalidRecord("Pipedrive's activities take no custom fields.")
            body: Json = {"field_name": field.name, "field_type": FIELD_TYPES[field.kind]}
            options = YES_OR_NO if field.kind is FieldKind.FLAG else field.options
            if options:
                body["options"] = [{"label": label} for label in options]
            self._api.make_field(field.object, body)
            done.append(f"Pipedrive: field {field.name} created on {field.object}s")
        self._custom = None
        return done

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Return the URL of a record in the web application."""
        lead = name is ObjectName.DEAL and is_lead(record_id)
        web = self.access.web_base or self._web
        return f"{web}/{LEAD_PAGE if lead else PAGES[name]}/{record_id}"

    def record_id_in(self, name: ObjectName, text: str) -> str:
        """Return the id itself, or the id in a URL of this company's account.

        An activity has no page of its own: its id is in the fragment of the list's URL.
        """
        bases = (self._web, self.access.api_base, self.access.web_base)
        own = {urlsplit(base).netloc.lower() for base in bases if base}
        page = f"/{PAGES[name]}/{{id}}"
        found = id_in(text, own.__contains__, (page if "#" in page else f"{page}/?",), ID)
        if found or name is not ObjectName.DEAL:
            return found
        # A deal may still be a lead.
        return id_in(text, own.__contains__, (f"/{LEAD_PAGE}/{{id}}/?",), LEAD_ID.pattern)

    def apply(self, plan: Plan, report: Report) -> None:
        """Write every change with one call each; known records need no lookup."""
        writer = Writer(self._api, self._fields(), self._writing, plan, report, self._currency)
        writer.write(self.shape.objects)
        note_lost_targets(self.find, plan, report)

    def find(self, questions: Sequence[Lookup], ids: Mapping[Ref, str]) -> LookupResults:
        """Search persons and organizations, and list the records that are linked to them."""
        asked = read_ids(questions, self.record_id_in)
        finder = Finder(self._api, self._fields(), self._asking, asked, ids, self._country)
        return finder.run()

    def _currency(self) -> str:
        """Return the currency of amounts that name none."""
        if not self._about.currency:
            self.whoami()
        return self._about.currency

    def _fields(self) -> CustomFields:
        return self._custom if self._custom is not None else self._read_custom()

    def _read_custom(self) -> CustomFields:
        custom = CustomFields()
        for name in WITH_CUSTOM:
            try:
                custom.note(name, self._api.pages(FIELD_PATHS[name]))
            except (Gone, AccountRefused):
                continue
        self._custom = custom
        return custom
