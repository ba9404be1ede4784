"""Mails when credit runs low, and the saved card that it is recharged from.

Who is below the default now has been for long enough: nobody is mailed because of this migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_BELOW_NOW = (
    "INSERT INTO credit_watch (account_id, low_at) SELECT account.id, account.created_at FROM account "
    "JOIN balance ON balance.ledger_account = 'customer:' || account.id "
    "WHERE balance.credits_nanousd - balance.debits_nanousd < 500000000"
)


def upgrade() -> None:
    op.add_column("topup", sa.Column("saves_card", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("topup", sa.Column("charged_to", sa.Text))
    charging = sa.text("charged_to IS NOT NULL AND state = 'waiting'")
    op.create_index(
        "uq_topup_charging",
        "topup",
        ["account_id"],
        unique=True,
        sqlite_where=charging,
        postgresql_where=charging,
    )
    op.create_table(
        "credit_watch",
        sa.Column("account_id", sa.Text, sa.ForeignKey("account.id"), primary_key=True),
        sa.Column("low_nanousd", sa.BigInteger),
        sa.Column("low_at", sa.Double),
        sa.Column("mailed_at", sa.Double),
        sa.Column("customer_id", sa.Text),
        sa.Column("method_id", sa.Text),
        sa.Column("card", sa.Text),
        sa.Column("recharge_on", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("below_cents", sa.BigInteger),
        sa.Column("amount_cents", sa.BigInteger),
        sa.Column("cap_cents", sa.BigInteger),
        sa.Column("stopped_reason", sa.Text),
        sa.Column("stopped_told", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("capped_at", sa.Double),
        sa.CheckConstraint("low_nanousd >= 0", name="low"),
        sa.CheckConstraint("below_cents <= amount_cents AND amount_cents <= cap_cents", name="amounts"),
    )
    op.execute(_BELOW_NOW)
