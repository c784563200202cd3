"""the start from which a backfill goes on, and the mapping sections of a booking's records"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("backfills") as table:
        table.add_column(sa.Column("after", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("deliveries") as table:
        table.add_column(sa.Column("made_by", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    with op.batch_alter_table("deliveries") as table:
        table.drop_column("made_by")
    with op.batch_alter_table("backfills") as table:
        table.drop_column("after")
