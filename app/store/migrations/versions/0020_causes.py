"""why deliveries are not synced: the CRM's own answer, the cause that they share, and its retries"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from app.store.tables import UtcTime

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

CAUSE = sa.text("cause_key IS NOT NULL")
RETRY = sa.text("retry_id IS NOT NULL")
COLUMNS: dict[str, Any] = {
    "error_raw": sa.Text(),
    "cause_key": sa.String(16),
    "retry_id": sa.Integer(),
}
GROUPS = """
    SELECT c.provider, c.id AS connection_id, CASE WHEN d.state = 'parked' THEN 'connection'
           ELSE d.error_code END AS code, min(d.updated_at) AS first_seen,
           max(d.updated_at) AS last_seen
    FROM deliveries d JOIN connections c ON c.id = d.connection_id
    WHERE d.state = 'parked' OR (d.error_code IS NOT NULL AND d.state IN ('failed', 'retrying'))
    GROUP BY 1, 2, 3 ORDER BY 2, 3
"""
"""The causes of what is there: until its next try, a delivery has only its error's code."""
FAILED = "error_code = :code AND state IN ('failed', 'retrying')"
PARKED = "state = 'parked' AND :code = 'connection'"


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("deliveries", sa.Column(name, kind))
    for name, where, columns in (
        ("ix_deliveries_cause", CAUSE, ["cause_key", "state", "id"]),
        ("ix_deliveries_cause_newest", CAUSE, ["cause_key", "updated_at", "id"]),
        ("ix_deliveries_retry", RETRY, ["retry_id", "state"]),
    ):
        op.create_index(name, "deliveries", columns, sqlite_where=where, postgresql_where=where)
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    table = op.create_table(
        "causes",
        sa.Column("key", sa.String(16), primary_key=True),
        sa.Column("connection_id", number, sa.ForeignKey("connections.id"), nullable=False),
        sa.Column("error_code", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("object", sa.String(16), nullable=False),
        sa.Column("field", sa.String(200), nullable=False),
        sa.Column("sentence", sa.Text()),
        sa.Column("advice", sa.Text()),
        sa.Column("first_seen", UtcTime(), nullable=False),
        sa.Column("last_seen", UtcTime(), nullable=False),
        sa.Column("mended_at", UtcTime()),
        sa.Column("came_back_at", UtcTime()),
        sa.Column("ignored_for", sa.String(12)),
    )
    op.create_index("ix_causes_connection_id", "causes", ["connection_id"])
    op.create_index("ix_causes_last_seen", "causes", ["last_seen"])
    op.create_table(
        "cause_retries",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("cause_key", sa.String(16), nullable=False),
        sa.Column("connection_id", number, sa.ForeignKey("connections.id"), nullable=False),
        sa.Column("planned", sa.Integer(), nullable=False),
        sa.Column("started_by", sa.String(100), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("marked_at", UtcTime()),
        sa.Column("stopped_at", UtcTime()),
    )
    op.create_index("ix_cause_retries_cause", "cause_retries", ["cause_key", "id"])
    op.create_index("ix_cause_retries_marked_at", "cause_retries", ["marked_at"])
    _give_causes(table)


def _give_causes(table: sa.Table) -> None:
    """Give what failed or is parked the cause that its code tells."""
    bind = op.get_bind()
    for group in bind.execute(sa.text(GROUPS)).mappings().all():
        code, connection_id = group["code"], group["connection_id"]
        parked = code == "connection"
        parts = ("" if parked else group["provider"], str(connection_id), code, "", "", "")
        key = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
        bind.execute(
            table.insert().values(
                key=key, connection_id=connection_id, error_code=code, reason="", object="",
                field="", first_seen=_time(group["first_seen"]), last_seen=_time(group["last_seen"]),
            )
        )  # fmt: skip
        rows = f"connection_id = :connection AND {PARKED if parked else FAILED}"
        bind.execute(
            sa.text(f"UPDATE deliveries SET cause_key = :key WHERE {rows}"),  # noqa: S608
            {"key": key, "connection": connection_id, "code": code},
        )


def _time(value: str | datetime) -> datetime:
    """SQLite gives times as texts without a zone."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def downgrade() -> None:
    op.drop_table("cause_retries")
    op.drop_table("causes")
    for name in ("ix_deliveries_retry", "ix_deliveries_cause_newest", "ix_deliveries_cause"):
        op.drop_index(name, "deliveries")
    for name in COLUMNS:
        op.drop_column("deliveries", name)
