"""Promo codes, and who used one."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "promo",
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("amount_nanousd", sa.BigInteger, nullable=False),
        sa.Column("uses_max", sa.Integer),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("new_accounts_only", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.CheckConstraint("code = upper(code)", name="code_upper"),
        sa.CheckConstraint("amount_nanousd > 0", name="amount_positive"),
        sa.CheckConstraint("uses >= 0 AND uses <= uses_max", name="uses"),
    )
    op.create_table(
        "promo_use",
        sa.Column("code", sa.Text, sa.ForeignKey("promo.code"), primary_key=True),
        sa.Column("account_id", sa.Text, sa.ForeignKey("account.id"), primary_key=True, index=True),
        sa.Column("used_at", sa.Double, nullable=False),
    )
