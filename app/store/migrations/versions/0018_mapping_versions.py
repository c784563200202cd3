"""the texts of mapping files that were in force"""

import sqlalchemy as sa
from alembic import op

from app.store.tables import UtcTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mapping_versions",
        sa.Column("provider", sa.String(32), primary_key=True),
        sa.Column("version", sa.String(12), primary_key=True),
        sa.Column("text_encrypted", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("first_at", UtcTime(), nullable=False),
        sa.Column("first_by", sa.String(100), nullable=False),
        sa.Column("last_at", UtcTime(), nullable=False),
    )


def downgrade() -> None:
    """Go back. The workers of the older version keep only the last text, with the connection."""
    op.drop_table("mapping_versions")
