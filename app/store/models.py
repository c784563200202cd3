"""The tables. The SQL database is the truth; personal data and credentials in it are encrypted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy import false as sql_false
from sqlalchemy.orm import Mapped, mapped_column

from app.domain import limits
from app.store.boxes import box
from app.store.columns import Label, Link, String, Text
from app.store.tables import Base, Id


def _some(name: str, rows: str, *columns: str) -> Index:
    """An index of some rows only: of the few that a query is about, not of all that ever were."""
    return Index(name, *columns, sqlite_where=text(rows), postgresql_where=text(rows))


class SourceRow(Base):
    """A meetergo workspace, in addition to the one that the environment describes."""

    __tablename__ = "sources"
    name: Mapped[str] = mapped_column(String(limits.SOURCE_NAME), primary_key=True)
    scheme: Mapped[str] = mapped_column(String(32))
    header: Mapped[str] = mapped_column(String(64))
    secrets_encrypted: Mapped[str] = mapped_column(Text, info=box("sources.secrets", "name"))
    company_ids: Mapped[list[Any]] = mapped_column(JSON)
    api_key_encrypted: Mapped[str | None] = mapped_column(Text, info=box("sources.api_key", "name"))
    api_user_id: Mapped[str] = mapped_column(String(64), default="", server_default="")
    key_ends_at: Mapped[datetime | None]
    """When meetergo stops accepting the key, as a person entered it; None: not known."""
    created_at: Mapped[datetime]


class SourceState(Base):
    """The state of a source (that of the environment too), and the lease of its reader."""

    __tablename__ = "source_states"
    name: Mapped[str] = mapped_column(String(limits.SOURCE_NAME), primary_key=True)
    status: Mapped[str] = mapped_column(String(16))
    since: Mapped[datetime]
    problem: Mapped[str | None] = mapped_column(Text)
    next_step: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Rounds in a row in which meetergo did not answer as it should."""
    pause_until: Mapped[datetime | None]
    """meetergo is not asked before this time."""
    trouble_notified: Mapped[bool] = mapped_column(
        Boolean, default=False, server_default=sql_false()
    )
    """Whether people were notified of the present trouble."""
    key_end_notified: Mapped[datetime | None]
    """The end of the key of which people were notified."""
    heard_at: Mapped[datetime | None]
    """When meetergo last answered as it should."""
    reader_fence: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    reader_until: Mapped[datetime | None]


class MeetingTypeRow(Base):
    """What meetergo says about a meeting type: its API names a booking's type by the id only."""

    __tablename__ = "meeting_types"
    source: Mapped[str] = mapped_column(String(limits.SOURCE_NAME), primary_key=True)
    type_id: Mapped[str] = mapped_column(String(limits.TYPE_ID), primary_key=True)
    slug: Mapped[str | None] = mapped_column(Text)
    name: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """The meeting type's metadata."""
    said_at: Mapped[datetime | None]
    """The version of the newest message that described the type; None: no message did."""
    asked_at: Mapped[datetime | None]
    """When meetergo was last asked about the type."""


class EventRow(Base):
    """The inbox: every authentic webhook, stored once."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_status", "status", "id"),
        _some("ix_events_to_reduce", "payload_encrypted IS NOT NULL", "status", "received_at"),
    )
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    dedupe_key: Mapped[str] = mapped_column(String(64), unique=True)
    source: Mapped[str] = mapped_column(String(limits.SOURCE_NAME))
    type: Mapped[str] = mapped_column(String(limits.EVENT_TYPE))
    booking_key: Mapped[str | None] = mapped_column(String(limits.BOOKING_KEY), index=True)
    payload_encrypted: Mapped[str | None] = mapped_column(
        Text, info=box("events.payload", "dedupe_key")
    )
    """None: its content was deleted, and it cannot be replayed."""
    received_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[str] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)
    tries: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How often meetergo was asked about the webhook's appointment and did not show it."""
    retry_at: Mapped[datetime | None]
    """When meetergo is asked again."""
    missing_since: Mapped[datetime | None]
    """Since when meetergo says that there is no such appointment."""


class BookingRow(Base):
    """The newest known state of every booking."""

    __tablename__ = "bookings"
    __table_args__ = (
        Index("ix_bookings_updated_at", "updated_at", "id"),
        _some("ix_bookings_to_reduce", "reduced_at IS NULL", "start", "id"),
        # As each database writes it in a query: else the index is not used.
        Index(
            "ix_bookings_to_index",
            "id",
            sqlite_where=text("indexed = 0"),
            postgresql_where=text("NOT indexed"),
        ),
        _some("ix_bookings_outcome", "outcome IS NOT NULL", "outcome", "id"),
    )
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(limits.BOOKING_KEY), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    start: Mapped[datetime]
    version: Mapped[datetime]
    revision: Mapped[int] = mapped_column(Integer, default=1)
    """Counts the states that this row has held."""
    state_encrypted: Mapped[str] = mapped_column(Text, info=box("bookings.state", "key"))
    outcome: Mapped[str | None] = mapped_column(String(16))
    """How the meeting went, as a person said."""
    outcome_start: Mapped[datetime | None]
    """The start of the meeting that the outcome is for: a moved meeting is yet to be held."""
    story: Mapped[str | None] = mapped_column(String(limits.BOOKING_KEY), index=True)
    """Key of the first booking of its story, in which each one replaces the last. None: no story."""
    details_at: Mapped[datetime | None]
    """When meetergo supplied what the webhook lacked."""
    details_due_at: Mapped[datetime | None] = mapped_column(index=True)
    """When to ask meetergo for answers that a mapping wants; None: none are wanted."""
    details_tries: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    updated_at: Mapped[datetime]
    reduced_at: Mapped[datetime | None]
    """When the data of its people was deleted; None: the state is whole."""
    indexed: Mapped[bool] = mapped_column(Boolean, default=False, server_default=sql_false())
    """Whether the search finds it by what it holds now."""


class BookingPerson(Base):
    """Which people take part in which booking, as keyed hashes: finds all bookings of one person."""

    __tablename__ = "booking_people"
    booking_id: Mapped[int] = mapped_column(ForeignKey("bookings.id"), primary_key=True)
    person_hash: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class ErasedPerson(Base):
    """A person who was erased on request, as a keyed hash: older bookings do not bring them back."""

    __tablename__ = "erased_people"
    person_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    booking_key: Mapped[str] = mapped_column(String(limits.BOOKING_KEY), primary_key=True)
    """A booking of theirs; empty: every booking made before `erased_at`."""
    erased_at: Mapped[datetime]


class ConnectionRow(Base):
    """A CRM account that this service may write to."""

    __tablename__ = "connections"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    provider: Mapped[str] = mapped_column(String(32), index=True)
    account_id: Mapped[str] = mapped_column(String(100), default="")
    """The account's own id at the CRM; it tells accounts apart."""
    account: Mapped[str] = mapped_column(Label(200), default="")
    """The account's name, for people."""
    login_host: Mapped[str | None] = mapped_column(String(limits.LOGIN_HOST))
    """The host of the account's OAuth endpoints, if it is not the one in providers.yaml."""
    auth: Mapped[str] = mapped_column(String(8), default="oauth")
    """oauth, or key: a token that a person made by hand and that is never refreshed."""
    api_base: Mapped[str] = mapped_column(String(300))
    token_encrypted: Mapped[str | None] = mapped_column(Text, info=box("connections.tokens", "id"))
    scopes: Mapped[list[Any]] = mapped_column(JSON, default=list)
    expires_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(String(16))
    status_since: Mapped[datetime]
    problem: Mapped[str | None] = mapped_column(String(32))
    """Stable code of what is wrong."""
    last_error: Mapped[str | None] = mapped_column(Text)
    next_step: Mapped[str | None] = mapped_column(Text)
    mapping_problem: Mapped[str | None] = mapped_column(Text)
    """Why a changed mapping file was refused; the one before stays in use."""
    mapping_text: Mapped[str | None] = mapped_column(Text)
    """The mapping file that last fitted the account; in use while a newer one does not fit."""
    failed_in_row: Mapped[int] = mapped_column(Integer, default=0)
    """Deliveries that failed for good since the last one that did not."""
    pause_until: Mapped[datetime | None]
    """Nothing is tried before this time: the CRM asked for a pause, or is out of order."""
    paused_at: Mapped[datetime | None]
    """When the pause was set; one set in the future is void, since the clock was set back."""
    progress_at: Mapped[datetime | None]
    """When a delivery of this connection last ended, well or badly."""
    backlog_after: Mapped[datetime | None]
    """Backlog waits until then: the rest of the CRM's allowance is for live bookings."""
    calls_left: Mapped[int | None] = mapped_column(Integer)
    """Calls that were left of the account's day after the last batch, as far as the CRM says."""
    outages: Mapped[int] = mapped_column(Integer, default=0)
    """Times in a row that the CRM was out of order when it was called."""
    alive_at: Mapped[datetime | None]
    """When the CRM last answered as it should."""
    overdue_since: Mapped[datetime | None]
    """Since when the oldest overdue delivery waits, if people were notified of it; else None."""
    stalls: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Drains in a row that ended by themselves without ending any delivery."""
    probe_at: Mapped[datetime | None]
    """When an account that refused everything is tried again, with one booking."""
    account_notes: Mapped[list[Any]] = mapped_column(JSON, default=list, server_default="[]")
    """What the account lacks and the service does without; the sentences say what to switch on."""
    drain_fence: Mapped[int] = mapped_column(Integer, default=0)
    drain_until: Mapped[datetime | None]
    refresh_fence: Mapped[int] = mapped_column(Integer, default=0)
    refresh_until: Mapped[datetime | None]
    refresh_sent_at: Mapped[datetime | None]
    """When a refresh was sent whose answer was never stored: the old refresh token may be dead."""
    refresh_failures: Mapped[int] = mapped_column(Integer, default=0)
    refresh_failing_since: Mapped[datetime | None]
    refresh_retry_at: Mapped[datetime | None]
    """The token endpoint is not called before this time."""
    created_at: Mapped[datetime]


class DeliveryRow(Base):
    """One booking on its way into one CRM."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("booking_id", "connection_id"),
        Index("ix_deliveries_due", "connection_id", "state", "next_attempt_at"),
        # The order in which due deliveries are worked on, and the oldest of them.
        _some("ix_deliveries_queue", "state = 'due'", "connection_id", "backlog",
              "inconclusive_batches", "next_attempt_at", "id"),
        _some("ix_deliveries_due_since", "state = 'due'", "connection_id", "backlog", "due_since"),
        _some("ix_deliveries_claimed_by", "claimed_by IS NOT NULL", "connection_id", "claimed_by"),
        _some("ix_deliveries_recheck_at", "recheck_at IS NOT NULL", "state", "recheck_at"),
        _some("ix_deliveries_rotation", "round_robin_position IS NOT NULL", "connection_id",
              "round_robin_position"),
        Index("ix_deliveries_newest", "state", "updated_at", "id"),
        _some("ix_deliveries_cause", "cause_key IS NOT NULL", "cause_key", "state", "id"),
        _some("ix_deliveries_cause_newest", "cause_key IS NOT NULL", "cause_key", "updated_at",
              "id"),
        _some("ix_deliveries_retry", "retry_id IS NOT NULL", "retry_id", "state"),
        Index("ix_deliveries_mapping_version", "connection_id", "mapping_version"),
    )  # fmt: skip
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    booking_id: Mapped[int] = mapped_column(ForeignKey("bookings.id"))
    connection_id: Mapped[int] = mapped_column(ForeignKey("connections.id"))
    wanted_revision: Mapped[int] = mapped_column(Integer)
    synced_revision: Mapped[int] = mapped_column(Integer, default=0)
    state: Mapped[str] = mapped_column(String(16))
    due_since: Mapped[datetime | None]
    """Since when there is something to write to the CRM; None: nothing."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime]
    recheck_at: Mapped[datetime | None]
    """When it becomes due again although nothing changed: some links and summaries come later."""
    round_robin_position: Mapped[int | None] = mapped_column(Integer)
    """The booking's place in the rotation of owners."""
    mapping_version: Mapped[str | None] = mapped_column(String(12))
    """Version of the mapping file with which the delivery was last planned."""
    replan_by: Mapped[str | None] = mapped_column(String(12))
    """The mapping file by which a resync wants the delivery planned once; None: no resync does."""
    mapping_section: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default="{}")
    """Object -> the mapping's rules, the section of them for its record, our key for the record."""
    notes: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Notes on fields and records that were left unchanged, and why."""
    calls: Mapped[int] = mapped_column(Integer, default=0)
    """Calls to the CRM; those of a batch are shared evenly among its deliveries."""
    backlog: Mapped[bool] = mapped_column(Boolean, default=False)
    """Old news (a backfill, a resync, parked work of a connection): live bookings go first."""
    claimed_by: Mapped[int | None] = mapped_column(Integer)
    """Fencing token of the drainer that works on it; the token stays if that drainer was killed."""
    claimed_alone: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether the delivery was the only one in that drainer's batch."""
    inconclusive_batches: Mapped[int] = mapped_column(Integer, default=0)
    """Batches that ended without a result for it: it goes into smaller ones, then alone."""
    worker_crashes: Mapped[int] = mapped_column(Integer, default=0)
    """Drainers that died while they worked on this delivery alone."""
    failing_since: Mapped[datetime | None]
    """When the first of its attempts failed."""
    last_outage_at: Mapped[datetime | None]
    """When an outage last hit it; one that hits it alone while the CRM works is its own fault."""
    error_code: Mapped[str | None] = mapped_column(String(32))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_advice: Mapped[str | None] = mapped_column(Text)
    error_fields: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Field of the CRM -> what the CRM says is wrong with it."""
    error_raw: Mapped[str | None] = mapped_column(Text)
    """The CRM's own answer, shortened; None: the message has it whole."""
    cause_key: Mapped[str | None] = mapped_column(String(16))
    """The cause for which it is not synced (`app/store/cause_models.py`); None: there is none."""
    retry_id: Mapped[int | None] = mapped_column(Integer)
    """The last retry of a cause that tried it again."""
    failure_notified: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether people were notified of its failure."""
    updated_at: Mapped[datetime]


class RecordLink(Base):
    """The ledger: which record stands for what, and the fingerprints of the values last written."""

    __tablename__ = "record_links"
    __table_args__ = (
        # The hash is of the object too.
        Index("ix_record_links_key_hash", "connection_id", "key_hash", unique=True),
        Index("ix_record_links_needs_recheck", "connection_id", "needs_recheck"),
        Index("ix_record_links_record_id", "connection_id", "object", "record_id"),
    )
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    connection_id: Mapped[int] = mapped_column(ForeignKey("connections.id"))
    object: Mapped[str] = mapped_column(String(16))
    key_hash: Mapped[str] = mapped_column(String(64))
    """Keyed hash of our key for the record; without the hash key nobody can make it."""
    key_encrypted: Mapped[str | None] = mapped_column(
        Text, info=box("record_links.key", "connection_id", "object", "key_hash")
    )
    record_id: Mapped[str | None] = mapped_column(String(64))
    """None: a create was begun and its answer never stored (the intent row)."""
    url: Mapped[str] = mapped_column(Link(500), default="")
    fingerprints_encrypted: Mapped[str] = mapped_column(
        Text, info=box("record_links.fingerprints", "connection_id", "object", "key_hash")
    )
    """Field -> fingerprint of the value last written; a list of them if an answer never came."""
    links: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """`object:hash of key` of every record that it is linked to."""
    version: Mapped[datetime | None]
    versions: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    """Field -> the moment (ISO 8601) that its value is from, if that is before `version`."""
    filled_by_others: Mapped[list[Any]] = mapped_column(JSON, default=list, server_default="[]")
    """Fields that other people or apps had filled when the record was found."""
    links_in_doubt: Mapped[bool] = mapped_column(Boolean, default=False, server_default=sql_false())
    """The answer to a write never came: the record's links are not known for certain."""
    erase_begun: Mapped[bool] = mapped_column(Boolean, default=False, server_default=sql_false())
    """The answer to the record's deletion never came."""
    needs_recheck: Mapped[bool] = mapped_column(Boolean, default=False)
    """An answer never came, and the bookings of the record's people were not looked at since."""
    lost: Mapped[bool] = mapped_column(Boolean, default=False)
    """The CRM said that the record is gone; the next write looks for what became of it."""
    updated_at: Mapped[datetime]


class SyncLog(Base):
    """What was done to which record, and when."""

    __tablename__ = "sync_log"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id"), index=True)
    object: Mapped[str] = mapped_column(String(16))
    record_id: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime] = mapped_column(index=True)


class Notice(Base):
    """A change of state to notify people of: stored with the change, sent afterwards."""

    __tablename__ = "notices"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    connection_id: Mapped[int | None] = mapped_column(ForeignKey("connections.id"))
    """The connection of the notice; None: it is about a source."""
    source: Mapped[str | None] = mapped_column(String(limits.SOURCE_NAME))
    kind: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    next_step: Mapped[str | None] = mapped_column(Text)
    reached_targets: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Hashes of the targets that have the notice already: a repeated try leaves them out."""
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_try_at: Mapped[datetime | None] = mapped_column(index=True)
    """None: sent, or given up."""
    created_at: Mapped[datetime]


class Backfill(Base):
    """A walk through meetergo's appointments; its position is stored, so that it can resume."""

    __tablename__ = "backfills"
    __table_args__ = (Index("ix_backfills_source", "source", "kind", "ended_at"),)
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    source: Mapped[str] = mapped_column(String(limits.SOURCE_NAME))
    kind: Mapped[str] = mapped_column(String(16))
    """backfill: a person asked for it; reconcile: the schedule did."""
    since: Mapped[datetime]
    until: Mapped[datetime | None]
    """The meetings to read start between `since` and `until`; None: without an end."""
    phase: Mapped[str] = mapped_column(String(16))
    """created: from the newest booking backwards; starts: through the window of starts."""
    after: Mapped[datetime | None]
    """The last start that was read; the walk through starts goes on from here."""
    page: Mapped[int] = mapped_column(Integer, default=0)
    """The page to read next, counted from `after` if that is set."""
    total: Mapped[int] = mapped_column(Integer, default=0)
    """The number of appointments in this phase, as meetergo says."""
    seen: Mapped[int] = mapped_column(Integer, default=0)
    found: Mapped[int] = mapped_column(Integer, default=0)
    """Bookings, or newer states of them, that no webhook had reported."""
    error: Mapped[str | None] = mapped_column(Text)
    page_size: Mapped[int] = mapped_column(Integer, default=100, server_default="100")
    """Appointments on the next page; fewer around an appointment that cannot be read."""
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Times in a row that this page could not be read while others could."""
    skipped: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Appointments that meetergo could not show."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
