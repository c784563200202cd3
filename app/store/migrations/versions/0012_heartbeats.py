"""the workers that are at work"""

import sqlalchemy as sa
from alembic import op

from app.store.tables import UtcTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("beat_at", UtcTime(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("heartbeats")
