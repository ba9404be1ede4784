"""Payments by card: what was asked for, what came of it, and which events of the payment provider were taken in."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "topup",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, sa.ForeignKey("account.id"), nullable=False, index=True),
        sa.Column("amount_cents", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("decided_at", sa.Double),
        sa.Column("session_id", sa.Text, unique=True),
        sa.Column("payment_id", sa.Text, unique=True),
        sa.Column("receipt", sa.Integer, unique=True),
        sa.Column("card", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("dispute", sa.Text),
        sa.CheckConstraint("amount_cents > 0", name="amount_positive"),
        sa.CheckConstraint("state IN ('waiting', 'added', 'refused', 'expired')", name="state"),
        sa.CheckConstraint("dispute IN ('open', 'won', 'lost')", name="dispute"),
    )
    op.create_table(
        "payment_event",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
    )
