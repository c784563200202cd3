"""Salesforce by simple-salesforce: one composite query, then one composite graph, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar
from urllib.parse import urlsplit

from simple_salesforce.format import format_soql

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
)
from app.domain.countries import read_country
from app.domain.errors import (
    AccountRefused,
    Gone,
    InvalidRecord,
    RetryLater,
    Unreadable,
)
from app.domain.rate_limits import RateLimit
from app.domain.zones import country_of_zone
from app.outbound.reply import Json, a_text, an_id, some_text
from crm_adapters.base import confirmed, read_schema
from crm_adapters.finder import read_ids
from crm_adapters.salesforce.client import (
    CALLS,
    FACTS,
    KEY,
    SOBJECTS,
    SalesforceClient,
)
from crm_adapters.salesforce.columns import Columns
from crm_adapters.salesforce.finder import Finder
from crm_adapters.salesforce.graph import ONE_PERSON, Links
from crm_adapters.salesforce.ids import record_id_in
from crm_adapters.salesforce.packing import (
    MAX_GRAPHS,
    MAX_PARTS,
    Pace,
    by_headers,
    connected,
    packed,
    small_enough,
)
from crm_adapters.salesforce.schema import field_of, owners_of, stages_of, users_of
from crm_adapters.salesforce.sending import Sender
from crm_adapters.writing import note_lost_targets, unblocked

MARKED = (ObjectName.DEAL, ObjectName.MEETING)
"""Objects that get the booking-id field."""
SEVERAL = {"IsParent", "IsWhat"}
"""Fields of EventRelation that exist only if the org relates several people to one event."""
KEYS = {ObjectName.COMPANY: "Website", ObjectName.CONTACT: "Email", ObjectName.LEAD: "Email"}
"""Fields by which records are found."""
METADATA: dict[FieldKind, dict[str, Any]] = {
    FieldKind.TEXT: {"type": "Text", "length": 255},
    FieldKind.NUMBER: {"type": "Number", "precision": 18, "scale": 2},
    FieldKind.WHOLE: {"type": "Number", "precision": 18, "scale": 0},
    FieldKind.FLAG: {"type": "Checkbox", "defaultValue": False},
    FieldKind.DATE: {"type": "Date"},
    FieldKind.MOMENT: {"type": "DateTime"},
    FieldKind.TIME: {"type": "Time"},
    FieldKind.CHOICE: {"type": "Picklist"},
    FieldKind.CHOICES: {"type": "MultiselectPicklist", "visibleLines": 4},
    FieldKind.MONEY: {"type": "Currency", "precision": 18, "scale": 2},
}
"""The description of a custom field of each kind for the Tooling API."""


class SalesforceAdapter:
    """One Salesforce org."""

    batch_size: ClassVar[int] = MAX_GRAPHS
    asks_ahead: ClassVar[bool] = False
    allowances: ClassVar[Sequence[RateLimit]] = (CALLS,)
    api_facts: ClassVar[ApiFacts] = FACTS
    shape: ClassVar[CrmShape] = CrmShape(
        objects=tuple(ObjectName),
        native_keys={ObjectName.DEAL: MatchKey.BOOKING},
        match_keys={
            ObjectName.CONTACT: (MatchKey.EMAIL, MatchKey.PHONE),
            ObjectName.LEAD: (MatchKey.EMAIL, MatchKey.PHONE),
            ObjectName.COMPANY: (MatchKey.DOMAIN,),
            ObjectName.DEAL: (MatchKey.OPEN_DEAL,),
        },
        needs={
            # These are nillable in describe, but required except for an all-day event:
            # https://developer.salesforce.com/docs/platform/object-reference/references/standard-objects/object-event.html
            ObjectName.MEETING: (
                ("StartDateTime", "ActivityDateTime", "ActivityDate"),
                ("EndDateTime", "DurationInMinutes", "IsAllDayEvent"),
            ),
        },
        new_fields=dict.fromkeys(SOBJECTS, r"[A-Za-z]\w*__c"),
        owner_fields=dict.fromkeys(ObjectName, "OwnerId"),
        pipeline_field=None,
        stage_field="StageName",
        stage_by_label=True,
        text_limits={
            "contact.FirstName": 40,
            "contact.LastName": 80,
            "contact.Phone": 40,
            "company.Name": 255,
            "company.Website": 255,
            "deal.Name": 120,
            "meeting.Subject": 255,
            "meeting.Location": 255,
            "meeting.Description": 32_000,
        },
    )

    def __init__(self, access: Access) -> None:
        self.access = access
        self._api = SalesforceClient(access)
        self._columns = Columns()
        self._country: str | None = None
        self._pace = Pace()
        self._named: tuple[FieldOption, ...] = ()
        """The users that a user field may hold."""
        self._shares_events = True
        self._hidden: set[ObjectName] = set()
        """Objects whose link rows the org does not show."""

    def whoami(self) -> CrmAccount:
        """Return the organization's id and name."""
        found = self._api.query("SELECT Id, Name FROM Organization LIMIT 1")
        if not found:
            raise Unreadable("Salesforce's answer does not name the org.")
        number, name = an_id(found[0], "Id"), some_text(found[0], "Name")
        return CrmAccount(number, f"{name}, org {number}")

    def check(self, name: ObjectName) -> None:
        """Read one record of an object."""
        self._api.query(f"SELECT Id FROM {SOBJECTS[name]} LIMIT 1")  # noqa: S608 - names are ours

    def directory(self, needed: frozenset[ObjectName] | None = None) -> Directory:
        """Return active users, the opportunity's stages, and objects that have the booking-id field."""
        notes: list[str] = []
        users = self._users()
        self._named = users_of(users)
        owners = owners_of(users, notes)
        deals = needed is None or ObjectName.DEAL in needed
        schema, lacking = read_schema(
            lambda name: {field.name: field for field in self.describe(name)},
            self.shape.objects,
            needed,
            called=SOBJECTS,
        )
        for name, fields in schema.items():
            self._columns.show(name, fields)
        self._country = self._org_country()
        self._hidden = set()
        self._shares_events = self._relates_several()
        if not self._shares_events and ObjectName.MEETING in schema:
            notes.append(ONE_PERSON)
        for name, column in KEYS.items():
            if name in schema and column not in schema[name]:
                words = f"The connected user does not see {column} of {SOBJECTS[name]} records"
                notes.append(f"{words}: existing records cannot be found by it.")
        return Directory(
            owners=owners,
            own_user=self._own_user(),
            pipelines=stages_of(self._stages()) if deals else (),
            booking_fields={
                name: KEY for name in (*MARKED, ObjectName.CASE) if KEY in schema.get(name, {})
            },
            schema=schema,
            notes=(*notes, *lacking),
        )

    def _probe(self) -> None:
        """Check that the org answers at all. Raises RetryLater if it refuses everything."""
        try:
            self.whoami()
        except AccountRefused as error:
            raise RetryLater(error.message) from None

    def _own_user(self) -> str | None:
        """Return the user that the connection acts as; None if Salesforce does not say."""
        try:
            return an_id(self._api.call(lambda sf: sf.oauth2("userinfo", method="GET")), "user_id")
        except (Gone, AccountRefused, InvalidRecord):
            return None

    def _org_country(self) -> str | None:
        """Return the country of the org, by its address or else by its time zone."""
        try:
            found = self._api.query("SELECT Country, TimeZoneSidKey FROM Organization LIMIT 1")
        except (Gone, AccountRefused, InvalidRecord):
            return None
        org = found[0] if found else {}
        own = read_country(some_text(org, "Country"))
        return own or country_of_zone(some_text(org, "TimeZoneSidKey"))

    def _users(self) -> list[Json]:
        text = "SELECT Id, Email, UserType FROM User WHERE IsActive = true"
        try:
            return self._api.query(text)
        except InvalidRecord:
            # The connected user may not see the type of other users.
            return self._api.query(text.replace(", UserType", ""))

    def _stages(self) -> list[Json]:
        return self._api.query(
            "SELECT ApiName, MasterLabel, IsClosed FROM OpportunityStage"
            " WHERE IsActive = true ORDER BY SortOrder"
        )

    def _relates_several(self) -> bool:
        """Whether the org relates several people to one event: a setting that some editions lack."""
        try:
            fields = confirmed(lambda: self._api.describe("EventRelation"), self._probe)
        except (Gone, AccountRefused):
            self._hidden.add(ObjectName.MEETING)
            return False
        return {a_text(item, "name") for item in fields} >= SEVERAL

    def describe(self, name: ObjectName) -> list[CrmField]:
        """Return the fields of an object that the connected user may see."""
        return [field_of(item, self._named) for item in self._api.describe(SOBJECTS[name])]

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Create the booking-id fields and make them visible to the connected user.

        Fields made by API are invisible until field-level security grants them:
        https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_fieldpermissions.htm
        """
        done = []
        for name in MARKED:
            if any(field.name == KEY for field in self.describe(name)):
                continue
            metadata = {"type": "Text", "length": 255, "label": "meetergo booking"}
            if name is ObjectName.DEAL:
                metadata |= {"externalId": True, "unique": True, "caseSensitive": True}
            done.append(self._make_field(name, KEY, metadata))
        for field in fields:
            label = field.label or field.name.removesuffix("__c").replace("_", " ")
            metadata = {"label": label, **METADATA[field.kind]}
            if field.options:
                # Not restricted: an answer that is not in the list must not make a booking fail.
                values = [{"fullName": o, "label": o, "default": False} for o in field.options]
                definition = {"sorted": False, "value": values}
                metadata["valueSet"] = {"restricted": False, "valueSetDefinition": definition}
            done.append(self._make_field(field.object, field.name, metadata))
        return done

    def _make_field(self, name: ObjectName, field: str, metadata: Json) -> str:
        # Custom fields of events are created on Activity.
        owner = "Activity" if name is ObjectName.MEETING else SOBJECTS[name]
        body = {"FullName": f"{owner}.{field}", "Metadata": metadata}
        an_id(self._api.post("tooling/sobjects/CustomField", body))
        self._grant(SOBJECTS[name], field)
        return f"Salesforce: field {field} created on {owner} and shown to the connected user"

    def _grant(self, sobject: str, field: str) -> None:
        label = "meetergo_bridge"
        found = self._api.query(format_soql("SELECT Id FROM PermissionSet WHERE Name = {}", label))
        if found:
            grant = an_id(found[0], "Id")
        else:
            body: Json = {"Name": label, "Label": "meetergo bridge"}
            grant = an_id(self._api.post("sobjects/PermissionSet", body))
            user = an_id(self._api.call(lambda sf: sf.oauth2("userinfo", method="GET")), "user_id")
            body = {"PermissionSetId": grant, "AssigneeId": user}
            an_id(self._api.post("sobjects/PermissionSetAssignment", body))
        row: Json = {
            "ParentId": grant,
            "SobjectType": sobject,
            "Field": f"{sobject}.{field}",
            "PermissionsRead": True,
            "PermissionsEdit": True,
        }
        an_id(self._api.post("sobjects/FieldPermissions", row))

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Return the URL of a record in Lightning."""
        web = self.access.web_base or self.access.api_base
        return f"{web}/lightning/r/{SOBJECTS[name]}/{record_id}/view"

    def record_id_in(self, name: ObjectName, text: str) -> str:
        """Return the id itself, or the id in a URL of Lightning or of the classic pages."""
        own = (urlsplit(self.access.api_base).netloc.lower(), self.access.web_host)
        return record_id_in(name, text, own)

    def apply(self, plan: Plan, report: Report) -> None:
        """Write connected changes together, all or nothing, in as few calls as possible."""
        links = Links(self._api, plan, self._hidden, self._columns.times)
        sender = Sender(self._api, self._pace, self._shares_events)
        waiting = list(plan.changes)
        place = {change.ref: number for number, change in enumerate(waiting)}
        # A refused record is set aside, and the others are sent again without links to it.
        while waiting:
            waiting = unblocked(small_enough(waiting, report), report, links.ids)
            groups = [
                by_headers(group, links.needs_headers)
                for group in connected(waiting, set(links.ids))
            ]
            # Changes that do not fit into one call wait for the ids of the records that they link
            # to.
            waiting = [change for _, _, rest in groups for change in rest]
            plain = [now for headers, now, _ in groups if not headers]
            for batch in packed(plain, lambda: self._pace.nodes):
                waiting += sender.send(batch, links, report)
            ruled = [now for headers, now, _ in groups if headers]
            for batch in packed(ruled, lambda: MAX_PARTS):
                waiting += sender.send_with_headers(list(chain(*batch)), links, report)
            # Records that others link to come first, in the order of the plan.
            waiting.sort(key=lambda change: place[change.ref])
        note_lost_targets(self.find, plan, report)

    def find(self, questions: Sequence[Lookup], ids: Mapping[Ref, str]) -> LookupResults:
        """Run all lookups for all objects in one call, and again for those whose key found nothing."""
        asked = read_ids(questions, self.record_id_in)
        return Finder(self._api, self._columns, asked, ids, self._country).run()
