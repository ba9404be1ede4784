"""The tables. Columns ending in `_at` are seconds since 1970 (UTC), `_nanousd` nano-dollars, `_ms` milliseconds.

Amounts never leave integers. Migrations under `migrations/versions` make these tables; a test compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    insert,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers its rows by themselves only where the key is a plain INTEGER, which is 64 bits wide there.
_Number = BigInteger().with_variant(Integer, "sqlite")

account = Table(
    "account",
    metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),  # in lower case, so that unique means what people mean
    Column("tier", Text, nullable=False),
    Column("rpm", Integer),  # null: the tier's; 0: no limit
    Column("rpd", Integer),  # null: the tier's; 0: no limit
    Column("concurrency", Integer),  # null: the tier's; 0: no limit
    Column("suspended", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("cap_daily_nanousd", BigInteger),  # null: no cap; so for all of them
    Column("cap_monthly_nanousd", BigInteger),
    Column("cap_total_nanousd", BigInteger),
    Column("contested", Boolean, nullable=False, server_default=false()),  # closed for a payment; `suspended`: by hand
    CheckConstraint("email = lower(email)", name="email_lower"),
    CheckConstraint("rpm >= 0 AND rpd >= 0 AND concurrency >= 0", name="limits"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("account.id"), nullable=False, index=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the key; the key is kept nowhere
    Column("masked", Text, nullable=False),  # for people: vc-sk-7Qm2…f9Kd
    Column("name", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    Column("cap_daily_nanousd", BigInteger),
    Column("cap_monthly_nanousd", BigInteger),
    Column("cap_total_nanousd", BigInteger),
    Column("rpm", Integer),  # null: no limit but the account's; so for all three
    Column("rpd", Integer),
    Column("concurrency", Integer),
    Column("expires_at", Double),
    Column("models", Text),  # ids that it may use, with commas between; null: every one
    Column("networks", Text),  # from where it may be used, as CIDRs with commas between; null: from everywhere
    Column("management", Boolean, nullable=False, server_default=false()),  # it manages the account's other keys
    Column("disabled", Boolean, nullable=False, server_default=false()),  # refused until it is enabled again
    Column("updated_at", Double),  # null: as it was made
    CheckConstraint("length(hash) = 32", name="hash_length"),
)

_HAS_CAUSE = text("cause IS NOT NULL")  # charges of earlier versions have none

# Immutable: triggers refuse UPDATE and DELETE. A correction is another transfer. Numbers are the ledger's, from one
# sequence with those of `usage`: a transfer's is above those of the usage rows it names.
transfer = Table(
    "transfer",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("debit", Text, nullable=False),  # the ledger account that the amount leaves
    Column("credit", Text, nullable=False),  # the ledger account that it enters
    Column("amount_nanousd", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("cause", Text),  # what it was posted for, once; null: an earlier version's, for the usage row of its number
    Column("created_at", Double, nullable=False),
    CheckConstraint("amount_nanousd > 0", name="amount_positive"),
    CheckConstraint("debit <> credit", name="two_accounts"),
    Index("uq_transfer_cause", "cause", unique=True, sqlite_where=_HAS_CAUSE, postgresql_where=_HAS_CAUSE),
)

# The fold of `transfer`, kept in the transaction that adds to it. SQLite turns a sum beyond int64 into a float; the
# upper bounds refuse it.
balance = Table(
    "balance",
    metadata,
    Column("ledger_account", Text, primary_key=True),
    Column("debits_nanousd", BigInteger, nullable=False),
    Column("credits_nanousd", BigInteger, nullable=False),
    CheckConstraint("debits_nanousd BETWEEN 0 AND 9223372036854775807", name="debits"),
    CheckConstraint("credits_nanousd BETWEEN 0 AND 9223372036854775807", name="credits"),
)

# Immutable like transfers. After the number, the columns are the fields of `ledger.records.Settled`, in that order.
usage = Table(
    "usage",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("request_id", Text, nullable=False, unique=True),
    Column("account_id", Text, nullable=False),
    Column("key_id", Text),
    Column("model", Text, nullable=False),
    Column("provider", Text),
    Column("upstream_model", Text),
    Column("streamed", Boolean, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("charge_nanousd", BigInteger, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("first_token_ms", Integer),
    Column("attempts", Integer, nullable=False),
    Column("held_nanousd", BigInteger),  # null: booked by a version that did not say
    Column("variance_nanousd", BigInteger, nullable=False, server_default=text("0")),  # part of the cost
    Column("price_version", Text, nullable=False, server_default=""),
    Column("finish_reason", Text),
    Column("error_code", Text, nullable=False, server_default=""),  # what the caller was told; empty: no error
    # Holds what sums by day, model and key are made of, so that they are read from it alone: by time, then the rest.
    Index(
        "ix_usage_sums",
        "account_id",
        "started_at",
        "outcome",
        "model",
        "key_id",
        "charge_nanousd",
        "prompt_tokens",
        "completion_tokens",
    ),
    CheckConstraint("charge_nanousd >= 0 AND charge_nanousd <= held_nanousd", name="charge_within_hold"),
    CheckConstraint("variance_nanousd BETWEEN 0 AND cost_nanousd", name="variance_within_cost"),
)

# The fold of `usage` by UTC day, kept in the transaction that adds to it: what a key or an account used is a few rows.
usage_day = Table(
    "usage_day",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),  # days since 1970
    Column("account_id", Text, primary_key=True),
    Column("key_id", Text, primary_key=True, index=True),  # empty: without a key
    Column("model", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("charge_nanousd", BigInteger, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False, server_default=text("0")),  # requests that delivered nothing
    Index("ix_usage_day_account_id_day", "account_id", "day"),
)

# How requests ended, by the hour (since 1970), counted with the usage rows: what each word counts, and for whom, says
# `ledger.availability`. The provider is the last that was tried; empty: none was.
availability_hour = Table(
    "availability_hour",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("answered", "cut", "failed", "refused", "gone", "ours", "rescued")
    ),
)

# How long answered requests took, in steps that grow by the same factor; kept for some days.
latency_hour = Table(
    "latency_hour",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("measure", Text, primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    CheckConstraint("measure IN ('first_token', 'whole')", name="measure"),
)

# What was checked in each minute of an hour: bit n is minute n. A minute is good if one of its checks was.
check_hour = Table(
    "check_hour",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("subject", Text, primary_key=True),
    Column("checked", BigInteger, nullable=False),
    Column("good", BigInteger, nullable=False),
)

# What the operator tells people. `affects`: ids of models, providers and parts of ours, commas between; empty: all.
incident = Table(
    "incident",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("title", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("affects", Text, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("resolved_at", Double),  # null: it is open
    CheckConstraint("severity IN ('notice', 'disturbance', 'outage')", name="severity"),
    sqlite_autoincrement=True,
)

incident_update = Table(
    "incident_update",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("incident_id", Integer, ForeignKey("incident.id"), nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("message", Text, nullable=False),
    sqlite_autoincrement=True,
)

# Requests that were opened and are not settled, so far as booked. When their process is known to be dead, they are
# settled from here: for what they had reached.
open_request = Table(
    "open_request",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("worker", Text, nullable=False, index=True),
    Column("number", BigInteger, nullable=False),  # of the worker's journal file that tells of it
    Column("opened", LargeBinary, nullable=False),  # the journal's record
    Column("reached", LargeBinary),  # how far it had come, from the journal's record of progress
)

# Who may sign in to an account. One person belongs to one account.
member = Table(
    "member",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("account.id"), nullable=False, index=True),
    Column("email", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    CheckConstraint("email = lower(email)", name="email_lower"),
    CheckConstraint("role IN ('owner', 'member')", name="role"),
)

# Members who also run the house: they see the pages below /admin.
operator = Table(
    "operator",
    metadata,
    Column("member_id", Text, ForeignKey("member.id"), primary_key=True),
    Column("created_at", Double, nullable=False),
)

# What operators did. Immutable like transfers.
deed = Table(
    "deed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False, index=True),
    Column("person", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    sqlite_autoincrement=True,
)

# A code that was mailed, good in the browser that asked for it. Codes and cookies are kept as SHA-256 only.
sign_in = Table(
    "sign_in",
    metadata,
    Column("browser_hash", LargeBinary(32), primary_key=True),
    Column("email", Text, nullable=False, index=True),
    Column("code_hash", LargeBinary(32), nullable=False),
    Column("tries_left", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

session = Table(
    "session",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("member_id", Text, ForeignKey("member.id"), nullable=False, index=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

waitlist = Table(
    "waitlist",
    metadata,
    Column("email", Text, primary_key=True),
    Column("status", Text, nullable=False, index=True),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),  # of the link that confirms the address
    Column("created_at", Double, nullable=False),
    Column("confirmed_at", Double),
    Column("decided_at", Double),
    CheckConstraint("email = lower(email)", name="email_lower"),
    CheckConstraint("status IN ('unconfirmed', 'waiting', 'approved', 'rejected')", name="status"),
)

# A link that shows a new member the first key, once.
welcome = Table(
    "welcome",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("member_id", Text, ForeignKey("member.id"), nullable=False, index=True),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
)

# Mails to be sent, written in the transaction that they tell of. The text goes with the mail: it may hold a code.
mail = Table(
    "mail",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("recipient", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, nullable=False, index=True),
    Column("tries", Integer, nullable=False),
    Column("sent_at", Double),
    sqlite_autoincrement=True,
)

# Keys of requests that were answered, charged, or run. Hashes: neither a key nor a body can be had from them.
idempotency = Table(
    "idempotency",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("key_hash", LargeBinary(32), primary_key=True),
    Column("body_hash", LargeBinary(32), nullable=False),
    Column("request_id", Text, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
)

_CHARGING = text("charged_to IS NOT NULL AND state = 'waiting'")  # one per account: the next is made when it is decided

# Payments by card. A row is written before the payment provider hears of it; its id is what the provider names it by.
topup = Table(
    "topup",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("account.id"), nullable=False, index=True),
    Column("amount_cents", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("decided_at", Double),
    Column("session_id", Text, unique=True),
    Column("payment_id", Text, unique=True),
    Column("receipt", Integer, unique=True),  # counts those that were added, without a gap
    Column("card", Text),  # for people: Visa ending 4242
    Column("reason", Text),  # why the bank refused
    Column("dispute", Text),  # null: never contested
    Column("stale", Boolean, nullable=False, server_default=false()),  # its refunds at the provider are to be looked at
    Column("again_of", Text),  # the top-up that this payment was made for, although another had paid it
    Column("saves_card", Boolean, nullable=False, server_default=false()),  # for charges without the customer
    Column("charged_to", Text),  # a charge without the customer: the provider's customer and card, with a space between
    CheckConstraint("amount_cents > 0", name="amount_positive"),
    CheckConstraint("state IN ('waiting', 'added', 'refused', 'expired')", name="state"),
    CheckConstraint("dispute IN ('open', 'won', 'lost')", name="dispute"),
    Index("uq_topup_charging", "account_id", unique=True, sqlite_where=_CHARGING, postgresql_where=_CHARGING),
)

# Codes that give credit; and who used one, once each.
promo = Table(
    "promo",
    metadata,
    Column("code", Text, primary_key=True),  # in upper case
    Column("amount_nanousd", BigInteger, nullable=False),
    Column("uses_max", Integer),  # null: no limit
    Column("uses", Integer, nullable=False),
    Column("expires_at", Double),
    Column("new_accounts_only", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    CheckConstraint("code = upper(code)", name="code_upper"),
    CheckConstraint("amount_nanousd > 0", name="amount_positive"),
    CheckConstraint("uses >= 0 AND uses <= uses_max", name="uses"),
)
promo_use = Table(
    "promo_use",
    metadata,
    Column("code", Text, ForeignKey("promo.code"), primary_key=True),
    Column("account_id", Text, ForeignKey("account.id"), primary_key=True, index=True),
    Column("used_at", Double, nullable=False),
)

# What is watched of an account's credit: when to mail, when to charge the saved card. No row: the defaults.
credit_watch = Table(
    "credit_watch",
    metadata,
    Column("account_id", Text, ForeignKey("account.id"), primary_key=True),
    Column("low_nanousd", BigInteger),  # below it a mail is sent; null: the setting's; 0: never
    Column("low_at", Double),  # since when it is below; null: it is not, or nobody was mailed yet
    Column("mailed_at", Double),
    Column("customer_id", Text),  # the saved card, as the payment provider names it
    Column("method_id", Text),
    Column("card", Text),  # for people
    Column("recharge_on", Boolean, nullable=False, server_default=false()),
    Column("below_cents", BigInteger),
    Column("amount_cents", BigInteger),
    Column("cap_cents", BigInteger),  # per calendar month (UTC)
    Column("stopped_reason", Text),  # why the last charge failed
    Column("stopped_told", Boolean, nullable=False, server_default=false()),
    Column("capped_at", Double),  # when the cap was last told of
    CheckConstraint("low_nanousd >= 0", name="low"),
    CheckConstraint("below_cents <= amount_cents AND amount_cents <= cap_cents", name="amounts"),
)

# Events of the payment provider that were taken in, once each, and what came of them.
payment_event = Table(
    "payment_event",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("payment_id", Text, index=True),  # what a kept event is about
    Column("kept", LargeBinary),  # the event, for as long as the payment that it names is not known
)

# Credit that is taken back: refunds, and payments that a bank took back.
withdrawal = Table(
    "withdrawal",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("account.id"), nullable=False, index=True),
    Column("topup_id", Text, ForeignKey("topup.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
    Column("whole", Boolean, nullable=False),  # all of it or nothing
    Column("state", Text, nullable=False, index=True),
    Column("created_at", Double, nullable=False),
    Column("taken_cents", BigInteger),  # of the customer's credit; null: not looked at yet
    Column("decided_at", Double),
    Column("provider_id", Text, unique=True),  # the refund or dispute at the payment provider
    Column("reason", Text),
    CheckConstraint("amount_cents > 0 AND taken_cents >= 0 AND taken_cents <= amount_cents", name="amounts"),
    CheckConstraint("kind IN ('refund', 'dispute')", name="kind"),
    CheckConstraint("state IN ('asked', 'taken', 'done', 'failed', 'refused')", name="state"),
)

# The feed that tells caches what to forget. Its order is the commit order while there is one writer.
change = Table(
    "change",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    sqlite_autoincrement=True,
)

journal_position = Table(
    "journal_position",
    metadata,
    Column("file", Text, primary_key=True),
    Column("offset_bytes", BigInteger, nullable=False),  # what stands before it is booked
    Column("damaged_bytes", BigInteger, nullable=False),  # of these, bytes that could not be read
)

ACCOUNT_CHANGED = "account"  # subject: the account's id
KEY_CHANGED = "key"  # subject: the key's hash in hex


def announce(connection: Connection, kind: str, subject: str) -> None:
    """Add to the change feed, in the transaction that makes the change."""
    connection.execute(insert(change), {"kind": kind, "subject": subject})
