"""The contents of one Pipedrive company account, and the switches that only Pipedrive has."""

from __future__ import annotations

from sandbox.account import User
from sandbox.answers import Record
from sandbox.core import Sandbox
from sandbox.limits import Window
from sandbox.pipedrive.schema import BODIES, NULLABLE, OBJECT

DAILY_BUDGET = 30_000 * 2 * 5


class PipedriveState(Sandbox):
    """The records, lists and limits of a company account, without its API."""

    def __init__(self, users: dict[str, str] | None = None) -> None:
        super().__init__(users)
        self.records: dict[str, dict[int, Record]] = {name: {} for name in BODIES}
        self.leads: dict[str, Record] = {}
        """The Leads inbox; deleted and converted leads stay here with a mark, hidden from everybody."""
        self.participants: dict[int, dict[int, int]] = {}
        """deal id -> participant row id -> person id."""
        self.custom: dict[str, dict[str, Record]] = {name: {} for name in BODIES}
        self.activity_types = {"call", "meeting", "task", "email", "lunch"}
        self.activity_fields_need_admin = False
        """Whether activityFields needs the scope `admin`, as in v2's specification.

        https://developers.pipedrive.com/docs/api/v1/ActivityFields (v1 names activities:read)
        """
        self.company_country = "EE"
        """The company's country, as entered by its owner; the documentation's example."""
        self.nullable = set(NULLABLE)
        """Keys that accept null; by v2's published model, location and note of activities do not."""
        self.names_sources = True
        """Whether a deal names the lead it was converted from, if a call asks for it."""
        self.gone_v1: dict[str, int] = {}
        """End of a v1 path -> 404 or 410: removed endpoints."""
        self.search_lag: set[int | str] = set()
        """Ids that the index does not show yet."""
        self.burst = Window(80, 2.0)
        self.search_burst = Window(10, 2.0)
        self.spent = 0
        self.daily_budget = DAILY_BUDGET
        self.pipelines = [
            {"id": 1, "name": "Pipeline", "order_nr": 0},
            {"id": 2, "name": "Renewals", "order_nr": 1},
        ]
        self.stages = [
            {"id": 1, "name": "Qualified", "pipeline_id": 1, "order_nr": 1},
            {"id": 2, "name": "Contact made", "pipeline_id": 1, "order_nr": 2},
            {"id": 3, "name": "Lost for now", "pipeline_id": 1, "order_nr": 3},
            {"id": 4, "name": "Renewal due", "pipeline_id": 2, "order_nr": 1},
            {"id": 5, "name": "In talks", "pipeline_id": 2, "order_nr": 2},
        ]

    def take_user(self, user: User) -> None:
        user.id = 900 + len(self.account.more_users)

    def user_ids(self) -> dict[str, int]:
        """Return e-mail address -> id of the usual users."""
        return {email: number for number, email in enumerate(self.users, 1)}

    def user_rows(self) -> list[User]:
        """Return all present and former users."""
        usual = [User(email, self.users[email], email not in self.account.left, "", number)
                 for email, number in self.user_ids().items()]  # fmt: skip
        return [*usual, *self.account.more_users]

    def add_custom(self, kind: str, code: str, name: str, type_: str) -> None:
        """Give an object a custom field; its name may belong to another field too."""
        self.custom[kind][code] = {"field_code": code, "field_name": name, "field_type": type_}

    def syncs_contacts(self) -> None:
        """Turn Contact Sync on: persons have an address, which the search does not show."""
        self.account.adds("persons", postal_address=OBJECT)

    def strict_nulls(self) -> None:
        """Accept null only for keys whose null the published model of v2 allows or leaves open."""
        self.nullable = {"person_id", "org_id", "deal_id", "probability", "lost_reason"}

    def searches_slower(self, limit: int) -> None:
        """Limit the searches per two seconds, as a smaller plan does."""
        self.search_burst = Window(limit, 2.0)

    def drop_booking_fields(self) -> None:
        for fields in self.custom.values():
            for key in [k for k, f in fields.items() if f["field_name"] == "meetergo_booking_id"]:
                del fields[key]

    def delete_meetings(self) -> None:
        for record in self.records["activities"].values():
            record["is_deleted"] = True
