"""Accounts, keys, the ledger, usage, the change feed and the journal's positions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

# Each database spells its triggers differently.
IMMUTABLE = {
    "sqlite": [
        f"CREATE TRIGGER transfer_refuses_{verb.lower()} BEFORE {verb} ON transfer "
        "BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION transfer_refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'transfers are immutable' USING ERRCODE = 'integrity_constraint_violation'; END $$",
        "CREATE TRIGGER transfer_refuses_changes BEFORE UPDATE OR DELETE ON transfer "
        "FOR EACH ROW EXECUTE FUNCTION transfer_refuses()",
        "CREATE TRIGGER transfer_refuses_truncate BEFORE TRUNCATE ON transfer "
        "FOR EACH STATEMENT EXECUTE FUNCTION transfer_refuses()",
    ],
}


def upgrade() -> None:
    _accounts()
    _ledger()
    op.create_table(
        "change",
        sa.Column("seq", sa.Integer, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_change"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "journal_position",
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("offset_bytes", sa.BigInteger, nullable=False),
        sa.Column("damaged_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("file", name="pk_journal_position"),
    )


def _accounts() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("rpm", sa.Integer),
        sa.Column("rpd", sa.Integer),
        sa.Column("concurrency", sa.Integer),
        sa.Column("suspended", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("email", name="uq_account_email"),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_account_email_lower")),
        sa.CheckConstraint("rpm >= 0 AND rpd >= 0 AND concurrency >= 0", name=op.f("ck_account_limits")),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("masked", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_api_key_account_id"),
        sa.UniqueConstraint("hash", name="uq_api_key_hash"),
        sa.CheckConstraint("length(hash) = 32", name=op.f("ck_api_key_hash_length")),
    )
    op.create_index("ix_api_key_account_id", "api_key", ["account_id"])


def _ledger() -> None:
    op.create_table(
        "transfer",
        sa.Column("id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("debit", sa.Text, nullable=False),
        sa.Column("credit", sa.Text, nullable=False),
        sa.Column("amount_nanousd", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_transfer"),
        sa.CheckConstraint("amount_nanousd > 0", name=op.f("ck_transfer_amount_positive")),
        sa.CheckConstraint("debit <> credit", name=op.f("ck_transfer_two_accounts")),
    )
    has_cause = sa.text("cause IS NOT NULL")
    op.create_index(
        "uq_transfer_cause", "transfer", ["cause"], unique=True, sqlite_where=has_cause, postgresql_where=has_cause
    )
    for statement in IMMUTABLE[op.get_bind().dialect.name]:
        op.execute(statement)
    op.create_table(
        "balance",
        sa.Column("ledger_account", sa.Text, nullable=False),
        sa.Column("debits_nanousd", sa.BigInteger, nullable=False),
        sa.Column("credits_nanousd", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ledger_account", name="pk_balance"),
        sa.CheckConstraint("debits_nanousd BETWEEN 0 AND 9223372036854775807", name=op.f("ck_balance_debits")),
        sa.CheckConstraint("credits_nanousd BETWEEN 0 AND 9223372036854775807", name=op.f("ck_balance_credits")),
    )
    op.create_table(
        "usage",
        sa.Column("id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text),
        sa.Column("upstream_model", sa.Text),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("charge_nanousd", sa.BigInteger, nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("first_token_ms", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage"),
        sa.UniqueConstraint("request_id", name="uq_usage_request_id"),
    )
    op.create_index("ix_usage_account_id", "usage", ["account_id"])
