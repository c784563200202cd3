"""plain names for columns, and columns of their own for states that were marks in other values"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

RENAMED = {
    "deliveries": {
        "turn": "round_robin_position",
        "again_at": "recheck_at",
        "made_by": "mapping_section",
        "told": "failure_notified",
        "doubts": "inconclusive_batches",
        "kills": "worker_crashes",
        "struck_at": "last_outage_at",
        "held_by": "claimed_by",
        "held_alone": "claimed_alone",
    },
    "record_links": {
        "theirs": "filled_by_others",
        "key_box": "key_encrypted",
        "hashes": "fingerprints",
        "in_doubt": "needs_recheck",
    },
    "sources": {"secrets_box": "secrets_encrypted", "api_key_box": "api_key_encrypted"},
    "source_states": {"told": "trouble_notified", "told_key_end": "key_end_notified"},
    "events": {"payload_box": "payload_encrypted"},
    "bookings": {"state_box": "state_encrypted"},
    "connections": {"token_box": "token_encrypted"},
    "oauth_flows": {"verifier_box": "verifier_encrypted"},
    "revocations": {"token_box": "token_encrypted"},
    "webhook_secrets": {"secret_box": "secret_encrypted"},
    "notices": {"told": "reached_targets"},
}
INDEXES = {
    "deliveries": (
        ("ix_deliveries_held_by", "ix_deliveries_claimed_by", "connection_id", "claimed_by"),
        ("ix_deliveries_again_at", "ix_deliveries_recheck_at", "recheck_at"),
    ),
    "record_links": (
        (
            "ix_record_links_in_doubt",
            "ix_record_links_needs_recheck",
            "connection_id",
            "needs_recheck",
        ),
    ),
}
LINKS_IN_DOUBT, ERASE_BEGUN = "~", "~-"
"""The marks that stood among a record's fingerprints before this revision."""
ANEW = "~"
"""The prefix of a delivery's mapping version that meant: a resync wants it planned anew."""
CHUNK = 500


def upgrade() -> None:
    for table, names in RENAMED.items():
        for old, new in names.items():
            op.alter_column(table, old, new_column_name=new)
    for table, indexes in INDEXES.items():
        for old, new, *columns in indexes:
            op.drop_index(old, table)
            op.create_index(new, table, columns)
    for name in ("links_in_doubt", "erase_begun"):
        state: sa.Column[bool] = sa.Column(
            name, sa.Boolean(), server_default=sa.false(), nullable=False
        )
        op.add_column("record_links", state)
    op.add_column("deliveries", sa.Column("replan_by", sa.String(12)))
    _read_marks_of_records()
    op.execute(
        sa.text(
            "UPDATE deliveries SET replan_by = '~', mapping_version = NULL"
            " WHERE mapping_version LIKE '~%'"
        )
    )


def downgrade() -> None:
    _write_marks_of_records()
    op.execute(
        sa.text(
            "UPDATE deliveries SET mapping_version = '~' || substr(replan_by, 1, 11)"
            " WHERE replan_by IS NOT NULL"
        )
    )
    op.drop_column("deliveries", "replan_by")
    op.drop_column("record_links", "erase_begun")
    op.drop_column("record_links", "links_in_doubt")
    for table, names in RENAMED.items():
        for old, new in names.items():
            op.alter_column(table, new, new_column_name=old)
    for table, indexes in INDEXES.items():
        for old, new, *columns in indexes:
            op.drop_index(new, table)
            back = {new: old for old, new in RENAMED[table].items()}
            op.create_index(old, table, [back.get(column, column) for column in columns])


def _links() -> sa.TableClause:
    return sa.table(
        "record_links",
        sa.column("id", sa.BigInteger),
        sa.column("fingerprints", sa.JSON),
        sa.column("links_in_doubt", sa.Boolean),
        sa.column("erase_begun", sa.Boolean),
    )


def _read_marks_of_records() -> None:
    """Move marks into columns. Only rows in doubt hold one, or several fingerprints of a field."""
    links, connection = _links(), op.get_bind()
    text = sa.cast(links.c.fingerprints, sa.Text)
    marked = sa.or_(text.like("%|%"), text.like("%~%"))
    last = 0
    while True:
        query = sa.select(links.c.id, links.c.fingerprints).where(links.c.id > last, marked)
        rows = connection.execute(query.order_by(links.c.id).limit(CHUNK)).all()
        if not rows:
            return
        for number, stored in rows:
            values = stored if isinstance(stored, dict) else json.loads(stored)
            doubt, erase = LINKS_IN_DOUBT in values, ERASE_BEGUN in values
            kept = {
                name: value.split("|") if "|" in value else value
                for name, value in values.items()
                if name not in (LINKS_IN_DOUBT, ERASE_BEGUN)
            }
            changed = {"fingerprints": kept, "links_in_doubt": doubt, "erase_begun": erase}
            connection.execute(links.update().where(links.c.id == number).values(**changed))
            last = number


def _write_marks_of_records() -> None:
    links, connection = _links(), op.get_bind()
    text = sa.cast(links.c.fingerprints, sa.Text)
    marked = sa.or_(text.like("%[%"), links.c.links_in_doubt, links.c.erase_begun)
    last = 0
    while True:
        query = sa.select(links).where(links.c.id > last, marked).order_by(links.c.id)
        rows = connection.execute(query.limit(CHUNK)).all()
        if not rows:
            return
        for row in rows:
            kept = {
                name: value if isinstance(value, str) else "|".join(value)
                for name, value in row.fingerprints.items()
            }
            kept |= {LINKS_IN_DOUBT: "?"} if row.links_in_doubt else {}
            kept |= {ERASE_BEGUN: "?"} if row.erase_begun else {}
            connection.execute(links.update().where(links.c.id == row.id).values(fingerprints=kept))
            last = row.id
