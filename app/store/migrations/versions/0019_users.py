"""users with passwords and roles, their sessions, roles of keys, and a log that is found by actor"""

import sqlalchemy as sa
from alembic import op

from app.store.tables import Id, UtcTime

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

USER = "web_sessions_user_id_fkey"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("role", sa.String(16)))
    op.create_table(
        "users",
        sa.Column("id", Id, primary_key=True),
        sa.Column("email_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("email_encrypted", sa.Text(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_encrypted", sa.Text()),
        sa.Column("password_ends_at", UtcTime()),
        sa.Column("subject_hash", sa.String(64), unique=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("signed_in_at", UtcTime()),
        sa.Column("disabled_at", UtcTime()),
    )
    with op.batch_alter_table("web_sessions") as batch:
        batch.alter_column("key_id", existing_type=Id, nullable=True)
        batch.add_column(sa.Column("user_id", Id, sa.ForeignKey("users.id", name=USER)))
        batch.add_column(sa.Column("way", sa.String(16), nullable=False, server_default="key"))
    with op.batch_alter_table("web_sessions") as batch:
        batch.alter_column("way", existing_type=sa.String(16), server_default=None)
    op.create_index("ix_web_sessions_user_id", "web_sessions", ["user_id"])
    op.create_index("ix_audit_log_actor", "audit_log", ["actor", "id"])
    op.create_index("ix_audit_log_action", "audit_log", ["action", "id"])


def downgrade() -> None:
    """Go back. Users are deleted with their sessions; a key with a role ends, as it could do all."""
    op.drop_index("ix_audit_log_action", "audit_log")
    op.drop_index("ix_audit_log_actor", "audit_log")
    op.drop_index("ix_web_sessions_user_id", "web_sessions")
    op.execute("DELETE FROM web_sessions WHERE key_id IS NULL")
    with op.batch_alter_table("web_sessions") as batch:
        batch.drop_constraint(USER, type_="foreignkey")
        batch.drop_column("way")
        batch.drop_column("user_id")
        batch.alter_column("key_id", existing_type=Id, nullable=False)
    op.drop_table("users")
    op.execute(
        "UPDATE api_keys SET revoked_at = CURRENT_TIMESTAMP"
        " WHERE revoked_at IS NULL AND role IN ('developer', 'sales', 'viewer')"
    )
    op.drop_column("api_keys", "role")
