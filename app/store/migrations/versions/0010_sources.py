"""sources with a state and their own key, meeting types by id, webhooks that wait for meetergo"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("sources") as table:
        table.add_column(sa.Column("api_user_id", sa.String(64), server_default="", nullable=False))
        table.add_column(sa.Column("key_ends_at", TIME, nullable=True))
    op.create_table(
        "source_states",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("problem", sa.Text()),
        sa.Column("next_step", sa.Text()),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pause_until", TIME),
        sa.Column("told", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("told_key_end", TIME),
        sa.Column("heard_at", TIME),
        sa.Column("reader_fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reader_until", TIME),
    )
    op.create_table(
        "meeting_types",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("type_id", sa.String(100), primary_key=True),
        sa.Column("slug", sa.Text()),
        sa.Column("name", sa.Text()),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("said_at", TIME),
        sa.Column("asked_at", TIME),
    )
    with op.batch_alter_table("events") as table:
        table.add_column(sa.Column("tries", sa.Integer(), server_default="0", nullable=False))
        table.add_column(sa.Column("retry_at", TIME, nullable=True))
        table.add_column(sa.Column("missing_since", TIME, nullable=True))
    with op.batch_alter_table("bookings") as table:
        table.add_column(sa.Column("details_due_at", TIME, nullable=True))
        table.add_column(
            sa.Column("details_tries", sa.Integer(), server_default="0", nullable=False)
        )
        table.create_index("ix_bookings_details_due_at", ["details_due_at"])
    with op.batch_alter_table("notices") as table:
        table.alter_column("connection_id", existing_type=sa.BigInteger(), nullable=True)
        table.add_column(sa.Column("source", sa.String(64), nullable=True))
    with op.batch_alter_table("backfills") as table:
        table.alter_column("until", existing_type=TIME, nullable=True)
        table.add_column(sa.Column("page_size", sa.Integer(), server_default="100", nullable=False))
        table.add_column(sa.Column("failures", sa.Integer(), server_default="0", nullable=False))
        table.add_column(sa.Column("skipped", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("backfills") as table:
        for name in ("skipped", "failures", "page_size"):
            table.drop_column(name)
    # The older version knows no walk without an end, so such walks are deleted and begun anew.
    op.execute("DELETE FROM backfills WHERE until IS NULL")
    with op.batch_alter_table("backfills") as table:
        table.alter_column("until", existing_type=TIME, nullable=False)
    op.execute("DELETE FROM notices WHERE connection_id IS NULL")
    with op.batch_alter_table("notices") as table:
        table.drop_column("source")
        table.alter_column("connection_id", existing_type=sa.BigInteger(), nullable=False)
    # SQLite would copy the table, which others refer to; it can drop a column by itself.
    op.drop_index("ix_bookings_details_due_at", "bookings")
    op.drop_column("bookings", "details_tries")
    op.drop_column("bookings", "details_due_at")
    with op.batch_alter_table("events") as table:
        for name in ("missing_since", "retry_at", "tries"):
            table.drop_column(name)
    op.drop_table("meeting_types")
    op.drop_table("source_states")
    with op.batch_alter_table("sources") as table:
        table.drop_column("key_ends_at")
        table.drop_column("api_user_id")
