"""columns for richer mappings: outcomes, people of bookings, mapping versions, notes, turns"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("bookings") as table:
        table.add_column(sa.Column("outcome", sa.String(16)))
        table.add_column(sa.Column("outcome_start", TIME))
        table.add_column(sa.Column("details_at", TIME))
    with op.batch_alter_table("connections") as table:
        table.add_column(sa.Column("mapping_problem", sa.Text()))
    with op.batch_alter_table("deliveries") as table:
        table.add_column(sa.Column("again_at", TIME))
        table.add_column(sa.Column("turn", sa.Integer()))
        table.add_column(sa.Column("mapping_version", sa.String(12)))
        table.add_column(sa.Column("notes", sa.JSON(), nullable=False, server_default="[]"))
    op.create_index("ix_deliveries_again_at", "deliveries", ["again_at"])
    with op.batch_alter_table("record_links") as table:
        table.add_column(sa.Column("lost", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "booking_people",
        sa.Column("booking_id", ID, sa.ForeignKey("bookings.id"), primary_key=True),
        sa.Column("person_hash", sa.String(64), primary_key=True),
    )
    op.create_index("ix_booking_people_person_hash", "booking_people", ["person_hash"])


def downgrade() -> None:
    op.drop_table("booking_people")
    with op.batch_alter_table("record_links") as table:
        table.drop_column("lost")
    op.drop_index("ix_deliveries_again_at", "deliveries")
    with op.batch_alter_table("deliveries") as table:
        for name in ("notes", "mapping_version", "turn", "again_at"):
            table.drop_column(name)
    with op.batch_alter_table("connections") as table:
        table.drop_column("mapping_problem")
    with op.batch_alter_table("bookings") as table:
        for name in ("details_at", "outcome_start", "outcome"):
            table.drop_column(name)
