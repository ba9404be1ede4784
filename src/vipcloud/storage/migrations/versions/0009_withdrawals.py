"""Credit that is taken back; events that come before their payment; accounts closed for a payment, not by hand.

What a dispute closed was told by `suspended` before; such accounts are closed for their payment from here on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_CLOSED_FOR_A_PAYMENT = (
    "UPDATE account SET contested = suspended, suspended = (1 = 0) "
    "WHERE id IN (SELECT account_id FROM topup WHERE dispute IN ('open', 'lost'))"
)


def upgrade() -> None:
    op.add_column("account", sa.Column("contested", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute(_CLOSED_FOR_A_PAYMENT)
    op.add_column("topup", sa.Column("stale", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("topup", sa.Column("again_of", sa.Text))
    op.add_column("payment_event", sa.Column("payment_id", sa.Text))
    op.add_column("payment_event", sa.Column("kept", sa.LargeBinary))
    op.create_index("ix_payment_event_payment_id", "payment_event", ["payment_id"])
    op.create_table(
        "withdrawal",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, sa.ForeignKey("account.id"), nullable=False, index=True),
        sa.Column("topup_id", sa.Text, sa.ForeignKey("topup.id"), nullable=False, index=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount_cents", sa.BigInteger, nullable=False),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False, index=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("taken_cents", sa.BigInteger),
        sa.Column("decided_at", sa.Double),
        sa.Column("provider_id", sa.Text, unique=True),
        sa.Column("reason", sa.Text),
        sa.CheckConstraint("amount_cents > 0 AND taken_cents >= 0 AND taken_cents <= amount_cents", name="amounts"),
        sa.CheckConstraint("kind IN ('refund', 'dispute')", name="kind"),
        sa.CheckConstraint("state IN ('asked', 'taken', 'done', 'failed', 'refused')", name="state"),
    )
