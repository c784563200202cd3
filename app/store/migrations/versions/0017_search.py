"""the index by which bookings are searched; a worker fills it from the bookings that are there"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

SAID = sa.text("outcome IS NOT NULL")


def upgrade() -> None:
    op.add_column(
        "bookings", sa.Column("indexed", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.create_index(
        "ix_bookings_to_index",
        "bookings",
        ["id"],
        sqlite_where=sa.text("indexed = 0"),
        postgresql_where=sa.text("NOT indexed"),
    )
    op.create_index(
        "ix_bookings_outcome",
        "bookings",
        ["outcome", "id"],
        sqlite_where=SAID,
        postgresql_where=SAID,
    )
    op.create_table(
        "booking_terms",
        sa.Column("term", sa.BigInteger(), autoincrement=False, primary_key=True),
        sa.Column(
            "booking_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("bookings.id"),
            autoincrement=False,
            primary_key=True,
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_booking_terms_booking_id", "booking_terms", ["booking_id"])


def downgrade() -> None:
    op.drop_table("booking_terms")
    op.drop_index("ix_bookings_outcome", "bookings")
    op.drop_index("ix_bookings_to_index", "bookings")
    op.drop_column("bookings", "indexed")
