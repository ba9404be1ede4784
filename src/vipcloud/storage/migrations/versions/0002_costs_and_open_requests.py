"""Usage rows tell hold, price and ending, and cannot be changed; usage by day; open requests."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Each database spells its triggers differently.
IMMUTABLE = {
    "sqlite": [
        f"CREATE TRIGGER usage_refuses_{verb.lower()} BEFORE {verb} ON usage "
        "BEGIN SELECT RAISE(ABORT, 'usage rows are immutable'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION usage_refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'usage rows are immutable' USING ERRCODE = 'integrity_constraint_violation'; END $$",
        "CREATE TRIGGER usage_refuses_changes BEFORE UPDATE OR DELETE ON usage "
        "FOR EACH ROW EXECUTE FUNCTION usage_refuses()",
        "CREATE TRIGGER usage_refuses_truncate BEFORE TRUNCATE ON usage "
        "FOR EACH STATEMENT EXECUTE FUNCTION usage_refuses()",
    ],
}
_BY_DAY = (
    "INSERT INTO usage_day SELECT CAST({day} AS INTEGER), account_id, COALESCE(key_id, ''), model, COUNT(*), "
    "SUM(prompt_tokens), SUM(completion_tokens), SUM(charge_nanousd), SUM(cost_nanousd) FROM usage GROUP BY 1, 2, 3, 4"
)
BY_DAY = {
    "sqlite": _BY_DAY.format(day="started_at / 86400"),  # CAST cuts off
    "postgresql": _BY_DAY.format(day="FLOOR(started_at / 86400)"),  # CAST rounds
}
SUMS = ("requests", "prompt_tokens", "completion_tokens", "charge_nanousd", "cost_nanousd")


def upgrade() -> None:
    with op.batch_alter_table("usage") as usage:
        usage.add_column(sa.Column("held_nanousd", sa.BigInteger))
        usage.add_column(sa.Column("variance_nanousd", sa.BigInteger, nullable=False, server_default=sa.text("0")))
        usage.add_column(sa.Column("price_version", sa.Text, nullable=False, server_default=""))
        usage.add_column(sa.Column("finish_reason", sa.Text))
        usage.create_check_constraint(
            op.f("ck_usage_charge_within_hold"), "charge_nanousd >= 0 AND charge_nanousd <= held_nanousd"
        )
        usage.create_check_constraint(
            op.f("ck_usage_variance_within_cost"), "variance_nanousd BETWEEN 0 AND cost_nanousd"
        )
    for statement in IMMUTABLE[op.get_bind().dialect.name]:
        op.execute(statement)
    _usage_day()
    _costs()
    op.create_table(
        "open_request",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("opened", sa.LargeBinary, nullable=False),
        sa.Column("reached", sa.LargeBinary),
        sa.PrimaryKeyConstraint("request_id", name="pk_open_request"),
    )
    op.create_index("ix_open_request_worker", "open_request", ["worker"])


def _usage_day() -> None:
    op.create_table(
        "usage_day",
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("day", "account_id", "key_id", "model", name="pk_usage_day"),
    )
    op.create_index("ix_usage_day_key_id", "usage_day", ["key_id"])
    op.execute(BY_DAY[op.get_bind().dialect.name])


def _costs() -> None:
    """Post what the calls so far have cost, which version 1 kept in the usage rows alone."""
    connection = op.get_bind()
    spent = sa.text(
        "SELECT provider, SUM(cost_nanousd), MIN(id), MAX(id), MAX(started_at) FROM usage "
        "WHERE cost_nanousd > 0 GROUP BY provider ORDER BY provider"
    )
    last = sa.text("SELECT MAX(id) FROM (SELECT id FROM usage UNION ALL SELECT id FROM transfer) AS numbers")
    number = connection.scalar(last) or 0
    for provider, amount, first, final, at in connection.execute(spent).all():
        number += 1
        sides = {"debit": f"upstream:{provider}", "credit": f"cost:{provider}", "amount": int(amount)}
        connection.execute(
            sa.text("INSERT INTO transfer VALUES (:id, :debit, :credit, :amount, 'cost', :cause, :at)"),
            {"id": number, "cause": f"cost/{provider}/{first}-{final}", "at": at, **sides},
        )
        connection.execute(
            sa.text("INSERT INTO balance VALUES (:debit, :amount, 0), (:credit, 0, :amount)"),
            sides,
        )
