"""Usage by day also counts what failed: a chart of a month is a few rows of it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage_day", sa.Column("failed", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.execute(
        "UPDATE usage_day SET failed = (SELECT count(*) FROM usage WHERE usage.account_id = usage_day.account_id "
        "AND coalesce(usage.key_id, '') = usage_day.key_id AND usage.model = usage_day.model "
        "AND usage.started_at >= usage_day.day * 86400.0 AND usage.started_at < (usage_day.day + 1) * 86400.0 "
        "AND usage.outcome IN ('upstream_failed', 'fault'))"
    )
