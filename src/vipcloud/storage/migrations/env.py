"""Alembic's door: `storage.migrate` hands in a connection whose transaction is open."""

from alembic import context

from vipcloud.storage import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
