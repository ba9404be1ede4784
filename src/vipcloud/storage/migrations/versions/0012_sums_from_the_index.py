"""Sums of an account's usage are read from an index alone, not from rows of twenty columns."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = (
    "account_id",
    "started_at",
    "outcome",
    "model",
    "key_id",
    "charge_nanousd",
    "prompt_tokens",
    "completion_tokens",
)


def upgrade() -> None:
    op.create_index("ix_usage_sums", "usage", COLUMNS)
    op.drop_index("ix_usage_account_id_started_at", "usage")
