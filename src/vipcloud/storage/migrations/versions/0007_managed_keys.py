"""Management keys; keys that are switched off and on again, and changed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("management", "disabled"):
        op.add_column("api_key", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("api_key", sa.Column("updated_at", sa.Double))
