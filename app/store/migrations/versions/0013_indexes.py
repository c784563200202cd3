"""queries whose cost does not grow with the number of bookings"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

PARTIAL = (
    (
        "ix_deliveries_queue",
        "state = 'due'",
        ["connection_id", "backlog", "inconclusive_batches", "next_attempt_at", "id"],
    ),
    ("ix_deliveries_due_since", "state = 'due'", ["connection_id", "backlog", "due_since"]),
    (
        "ix_deliveries_rotation",
        "round_robin_position IS NOT NULL",
        ["connection_id", "round_robin_position"],
    ),
)
NARROWED = (
    ("ix_deliveries_claimed_by", "claimed_by IS NOT NULL", ["connection_id", "claimed_by"]),
    ("ix_deliveries_recheck_at", "recheck_at IS NOT NULL", ["state", "recheck_at"]),
)
WHOLE = (
    ("deliveries", "ix_deliveries_newest", ["state", "updated_at", "id"]),
    ("deliveries", "ix_deliveries_mapping_version", ["connection_id", "mapping_version"]),
    ("record_links", "ix_record_links_record_id", ["connection_id", "object", "record_id"]),
)
LONGER = (
    ("events", "ix_events_status", ["status"]),
    ("bookings", "ix_bookings_updated_at", ["updated_at"]),
)


KEY = ["connection_id", "key_hash"]
NAMES = {"uq": "uq_%(table_name)s_%(column_0_N_name)s"}


def _name_of_unique() -> str:
    """The first revision gave the constraint no name; PostgreSQL made one up."""
    for unique in sa.inspect(op.get_bind()).get_unique_constraints("record_links"):
        if unique["name"]:
            return str(unique["name"])
    return "uq_record_links_connection_id_object_key_hash"


def upgrade() -> None:
    for name, rows, columns in PARTIAL:
        _create(name, rows, columns)
    for name, rows, columns in NARROWED:
        op.drop_index(name, "deliveries")
        _create(name, rows, columns)
    for table, name, columns in WHOLE:
        op.create_index(name, table, columns)
    for table, name, columns in LONGER:
        op.drop_index(name, table)
        op.create_index(name, table, [*columns, "id"])
    op.create_index("ix_record_links_key_hash", "record_links", KEY, unique=True)
    with op.batch_alter_table("record_links", naming_convention=NAMES) as batch:
        batch.drop_constraint(_name_of_unique(), type_="unique")
    # A delivery that is due says since when.
    due = sa.text("UPDATE deliveries SET due_since = updated_at"
                  " WHERE state = 'due' AND due_since IS NULL")  # fmt: skip
    op.get_bind().execute(due)


def _create(name: str, rows: str, columns: list[str]) -> None:
    where = sa.text(rows)
    op.create_index(name, "deliveries", columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    with op.batch_alter_table("record_links") as batch:
        batch.create_unique_constraint(
            "uq_record_links_connection_id_object_key_hash",
            ["connection_id", "object", "key_hash"],
        )
    op.drop_index("ix_record_links_key_hash", "record_links")
    for table, name, columns in LONGER:
        op.drop_index(name, table)
        op.create_index(name, table, columns)
    for table, name, _ in WHOLE:
        op.drop_index(name, table)
    for name, *_ in PARTIAL:
        op.drop_index(name, "deliveries")
    for name, _, columns in NARROWED:
        op.drop_index(name, "deliveries")
        op.create_index(name, "deliveries", [c for c in columns if c != "state"])
