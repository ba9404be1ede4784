"""Availability by the hour, checks by the minute, incidents, operators and their deeds; the code of an error."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Each database spells its triggers differently.
IMMUTABLE = {
    "sqlite": [
        f"CREATE TRIGGER deed_refuses_{verb.lower()} BEFORE {verb} ON deed "
        "BEGIN SELECT RAISE(ABORT, 'what was done stays written'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION deed_refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'what was done stays written' USING ERRCODE = 'integrity_constraint_violation'; END $$",
        "CREATE TRIGGER deed_refuses_changes BEFORE UPDATE OR DELETE ON deed "
        "FOR EACH ROW EXECUTE FUNCTION deed_refuses()",
        "CREATE TRIGGER deed_refuses_truncate BEFORE TRUNCATE ON deed "
        "FOR EACH STATEMENT EXECUTE FUNCTION deed_refuses()",
    ],
}
COUNTS = ("answered", "cut", "failed", "refused", "gone", "ours", "rescued")


def upgrade() -> None:
    op.add_column("usage", sa.Column("error_code", sa.Text, nullable=False, server_default=""))
    _availability()
    op.create_table(
        "incident",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("affects", sa.Text, nullable=False),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("resolved_at", sa.Double),
        sa.CheckConstraint("severity IN ('notice', 'disturbance', 'outage')", name="severity"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "incident_update",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("incident_id", sa.Integer, sa.ForeignKey("incident.id"), nullable=False, index=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "operator",
        sa.Column("member_id", sa.Text, sa.ForeignKey("member.id"), primary_key=True),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "deed",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False, index=True),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    for statement in IMMUTABLE[op.get_bind().dialect.name]:
        op.execute(statement)


def _availability() -> None:
    """Empty: rows of earlier versions do not tell a caller's mistake from an upstream's failure."""
    op.create_table(
        "availability_hour",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("provider", sa.Text, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
    )
    op.create_table(
        "latency_hour",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("measure", sa.Text, primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.CheckConstraint("measure IN ('first_token', 'whole')", name="measure"),
    )
    op.create_table(
        "check_hour",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("checked", sa.BigInteger, nullable=False),
        sa.Column("good", sa.BigInteger, nullable=False),
    )
