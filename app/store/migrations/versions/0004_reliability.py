"""columns to survive crashes and outages: backlog, doubts, outages, backfills, webhook secrets"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("connections") as table:
        table.add_column(sa.Column("outages", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("alive_at", TIME))
        table.add_column(sa.Column("backlog_after", TIME))
    with op.batch_alter_table("deliveries") as table:
        table.add_column(
            sa.Column("backlog", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        table.add_column(sa.Column("held_by", sa.Integer()))
        table.add_column(
            sa.Column("held_alone", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        table.add_column(sa.Column("doubts", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("kills", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("failing_since", TIME))
        table.add_column(sa.Column("struck_at", TIME))
        table.add_column(sa.Column("error_fields", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("told", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.create_index("ix_deliveries_held_by", ["connection_id", "held_by"])
    op.create_table(
        "backfills",
        sa.Column("id", ID, primary_key=True),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("found", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
    )
    op.create_index("ix_backfills_source", "backfills", ["source", "kind", "ended_at"])
    op.create_table(
        "webhook_secrets",
        sa.Column("id", ID, primary_key=True),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("secret_box", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ends_at", TIME),
    )
    op.create_index("ix_webhook_secrets_source", "webhook_secrets", ["source"])
    op.create_table(
        "secret_uses",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(16), primary_key=True),
        sa.Column("last_used_at", TIME, nullable=False),
    )


def downgrade() -> None:
    for name in ("secret_uses", "webhook_secrets", "backfills"):
        op.drop_table(name)
    op.drop_index("ix_deliveries_held_by", "deliveries")
    with op.batch_alter_table("deliveries") as table:
        for name in (
            "told", "error_fields", "struck_at", "failing_since", "kills", "doubts", "held_alone",
            "held_by", "backlog",
        ):  # fmt: skip
            table.drop_column(name)
    with op.batch_alter_table("connections") as table:
        for name in ("backlog_after", "alive_at", "outages"):
            table.drop_column(name)
