"""columns to notice a connection that stands still, and the story that a booking belongs to"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("connections") as table:
        table.add_column(sa.Column("overdue_since", TIME, nullable=True))
        table.add_column(sa.Column("stalls", sa.Integer(), server_default="0", nullable=False))
        table.add_column(sa.Column("paused_at", TIME, nullable=True))
        table.add_column(sa.Column("progress_at", TIME, nullable=True))
        table.add_column(sa.Column("probe_at", TIME, nullable=True))
        table.add_column(sa.Column("account_notes", sa.JSON(), server_default="[]", nullable=False))
    with op.batch_alter_table("deliveries") as table:
        table.add_column(sa.Column("due_since", TIME, nullable=True))
    with op.batch_alter_table("record_links") as table:
        table.add_column(sa.Column("theirs", sa.JSON(), server_default="[]", nullable=False))
    with op.batch_alter_table("bookings") as table:
        table.add_column(sa.Column("story", sa.String(400), nullable=True))
        table.create_index("ix_bookings_story", ["story"])


def downgrade() -> None:
    with op.batch_alter_table("bookings") as table:
        table.drop_index("ix_bookings_story")
        table.drop_column("story")
    with op.batch_alter_table("record_links") as table:
        table.drop_column("theirs")
    with op.batch_alter_table("deliveries") as table:
        table.drop_column("due_since")
    with op.batch_alter_table("connections") as table:
        for name in (
            "account_notes", "probe_at", "progress_at", "paused_at", "stalls", "overdue_since",
        ):  # fmt: skip
            table.drop_column(name)
