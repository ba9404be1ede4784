"""Spending caps of accounts and keys; limits, allow-lists and an end of keys."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CAPS = ("cap_daily_nanousd", "cap_monthly_nanousd", "cap_total_nanousd")


def upgrade() -> None:
    for table in ("account", "api_key"):
        for cap in CAPS:
            op.add_column(table, sa.Column(cap, sa.BigInteger))
    for limit in ("rpm", "rpd", "concurrency"):
        op.add_column("api_key", sa.Column(limit, sa.Integer))
    op.add_column("api_key", sa.Column("expires_at", sa.Double))
    op.add_column("api_key", sa.Column("models", sa.Text))
    op.add_column("api_key", sa.Column("networks", sa.Text))
    op.create_index("ix_usage_day_account_id_day", "usage_day", ["account_id", "day"])
