"""connection states, reconnect, revocations, notices, encryption keys"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("connections") as table:
        table.add_column(sa.Column("account_id", sa.String(100), nullable=False, server_default=""))
        table.add_column(sa.Column("login_host", sa.String(200)))
        table.add_column(sa.Column("auth", sa.String(8), nullable=False, server_default="oauth"))
        table.add_column(sa.Column("problem", sa.String(32)))
        table.add_column(sa.Column("next_step", sa.Text()))
        table.add_column(
            sa.Column("failed_in_row", sa.Integer(), nullable=False, server_default="0")
        )
        table.add_column(sa.Column("refresh_sent_at", TIME))
        table.add_column(
            sa.Column("refresh_failures", sa.Integer(), nullable=False, server_default="0")
        )
        table.add_column(sa.Column("refresh_failing_since", TIME))
        table.add_column(sa.Column("refresh_retry_at", TIME))
    with op.batch_alter_table("oauth_flows") as table:
        table.add_column(sa.Column("connection_id", ID))
        table.add_column(
            sa.Column("other_account", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        table.add_column(sa.Column("login_host", sa.String(200)))
        table.add_column(sa.Column("next_path", sa.String(300)))
    op.create_table(
        "revocations",
        sa.Column("id", ID, primary_key=True),
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), nullable=False),
        sa.Column("login_host", sa.String(200)),
        sa.Column("token_box", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", TIME, nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_revocations_next_try_at", "revocations", ["next_try_at"])
    op.create_table(
        "notices",
        sa.Column("id", ID, primary_key=True),
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("next_step", sa.Text()),
        sa.Column("told", sa.JSON(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_notices_next_try_at", "notices", ["next_try_at"])
    op.create_table(
        "encryption_keys",
        sa.Column("key_id", sa.String(16), primary_key=True),
        sa.Column("first_used_at", TIME, nullable=False),
    )


def downgrade() -> None:
    for name in ("encryption_keys", "notices", "revocations"):
        op.drop_table(name)
    with op.batch_alter_table("oauth_flows") as table:
        for column in ("connection_id", "other_account", "login_host", "next_path"):
            table.drop_column(column)
    with op.batch_alter_table("connections") as table:
        for column in (
            "account_id", "login_host", "auth", "problem", "next_step", "failed_in_row",
            "refresh_sent_at", "refresh_failures", "refresh_failing_since", "refresh_retry_at",
        ):  # fmt: skip
            table.drop_column(column)
