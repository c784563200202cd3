"""Alembic's entry point: runs the migrations on the connection that app.store.schema hands over."""

from alembic import context

from app.store.all_tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    # Alembic turns this off for SQLite, whose older drivers ended a transaction at each CREATE or
    # ALTER; here app.store.engine says BEGIN itself. All steps are done, or none.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
