"""what is left of bookings and webhooks after RETENTION_DAYS, and the people who were erased"""

import sqlalchemy as sa
from alembic import op

from app.store.tables import UtcTime

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

FULL = sa.text("reduced_at IS NULL")
OLD = "SELECT id FROM bookings WHERE reduced_at IS NOT NULL"
REDUCED = {
    "sync_log": "delivery_id IN (SELECT id FROM deliveries WHERE booking_id IN"
    " (SELECT id FROM bookings WHERE reduced_at IS NOT NULL))",
    "deliveries": f"booking_id IN ({OLD})",
    "booking_people": f"booking_id IN ({OLD})",
    "bookings": "reduced_at IS NOT NULL",
}
"""Tables in the order of their references -> the rows of reduced bookings."""
CONTENT = sa.text("payload_encrypted IS NOT NULL")


def upgrade() -> None:
    op.add_column("bookings", sa.Column("reduced_at", UtcTime()))
    with op.batch_alter_table("events") as batch:
        batch.alter_column("payload_encrypted", existing_type=sa.Text(), nullable=True)
    with op.batch_alter_table("record_links") as batch:
        batch.alter_column("key_encrypted", existing_type=sa.Text(), nullable=True)
    op.create_index(
        "ix_bookings_to_reduce",
        "bookings",
        ["start", "id"],
        sqlite_where=FULL,
        postgresql_where=FULL,
    )
    op.create_index(
        "ix_events_to_reduce",
        "events",
        ["status", "received_at"],
        sqlite_where=CONTENT,
        postgresql_where=CONTENT,
    )
    op.create_table(
        "erased_people",
        sa.Column("person_hash", sa.String(64), primary_key=True),
        sa.Column("booking_key", sa.String(400), primary_key=True),
        sa.Column("erased_at", UtcTime(), nullable=False),
    )


def downgrade() -> None:
    """Go back. Webhooks without content are deleted, and so are ledger lines without their keys.

    The older version reads every webhook and every key; it finds those records by the CRM's search.
    It would take a reduced booking for one of nobody and empty its records, so these bookings go too.
    Their records stay in the ledger: a newer webhook of such a booking finds them.
    """
    for table, rows in REDUCED.items():
        op.execute(f"DELETE FROM {table} WHERE {rows}")  # noqa: S608
    op.drop_table("erased_people")
    op.drop_index("ix_events_to_reduce", "events")
    op.drop_index("ix_bookings_to_reduce", "bookings")
    op.execute("DELETE FROM events WHERE payload_encrypted IS NULL")
    op.execute("DELETE FROM record_links WHERE key_encrypted IS NULL")
    with op.batch_alter_table("record_links") as batch:
        batch.alter_column("key_encrypted", existing_type=sa.Text(), nullable=False)
    with op.batch_alter_table("events") as batch:
        batch.alter_column("payload_encrypted", existing_type=sa.Text(), nullable=False)
    op.drop_column("bookings", "reduced_at")
