"""the booking that each field of a shared record is from, and the records that are in doubt"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("record_links") as table:
        table.add_column(sa.Column("versions", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(
            sa.Column("in_doubt", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        table.create_index("ix_record_links_in_doubt", ["connection_id", "in_doubt"])


def downgrade() -> None:
    with op.batch_alter_table("record_links") as table:
        table.drop_index("ix_record_links_in_doubt")
        table.drop_column("in_doubt")
        table.drop_column("versions")
