"""running totals of each connection, and the calls that are left of its day"""

import sqlalchemy as sa
from alembic import op

from app.store.tables import Id

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "totals",
        sa.Column("connection_id", Id, sa.ForeignKey("connections.id"), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("label", sa.String(16), primary_key=True),
        sa.Column("value", sa.Float(), nullable=False),
    )
    op.add_column("connections", sa.Column("calls_left", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("connections", "calls_left")
    op.drop_table("totals")
