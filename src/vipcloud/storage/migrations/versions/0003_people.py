"""People: members, signing in, sessions, the waitlist, invitations, mails. Every account gets its owner.

Usage is looked up by account and time now, which is how people ask for it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_usage_account_id", "usage")
    op.create_index("ix_usage_account_id_started_at", "usage", ["account_id", "started_at"])
    op.create_table(
        "member",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, sa.ForeignKey("account.id"), nullable=False, index=True),
        sa.Column("email", sa.Text, nullable=False, unique=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.CheckConstraint("email = lower(email)", name="email_lower"),
        sa.CheckConstraint("role IN ('owner', 'member')", name="role"),
    )
    op.create_table(
        "sign_in",
        sa.Column("browser_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("email", sa.Text, nullable=False, index=True),
        sa.Column("code_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("tries_left", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_table(
        "session",
        sa.Column("hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("member_id", sa.Text, sa.ForeignKey("member.id"), nullable=False, index=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_table(
        "waitlist",
        sa.Column("email", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False, index=True),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("confirmed_at", sa.Double),
        sa.Column("decided_at", sa.Double),
        sa.CheckConstraint("email = lower(email)", name="email_lower"),
        sa.CheckConstraint("status IN ('unconfirmed', 'waiting', 'approved', 'rejected')", name="status"),
    )
    op.create_table(
        "welcome",
        sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("member_id", sa.Text, sa.ForeignKey("member.id"), nullable=False, index=True),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
    )
    op.create_table(
        "mail",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False, index=True),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("sent_at", sa.Double),
        sqlite_autoincrement=True,
    )
    op.execute(
        "INSERT INTO member (id, account_id, email, role, created_at) "
        "SELECT 'mem_' || substr(id, 6), id, email, 'owner', created_at FROM account"
    )
