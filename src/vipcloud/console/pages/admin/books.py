"""`/admin/ledger`: do the books agree, and how far are they."""

from typing import Any

from litestar import Response, get
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection, select

from vipcloud.console.pages.admin.desk import Context, Desk
from vipcloud.console.parts import threaded
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import bookkeeper, rules
from vipcloud.ledger.rules import Sums
from vipcloud.storage import schema

BREAKS_MAX = 50
LATE_S = 60.0
INVARIANTS = (
    "A balance is the fold of the transfers that name it, and every ledger account is in the chart",
    "A usage row with a charge has one transfer of that amount from its customer; no charge is without one",
    "What calls cost is posted, by provider, for exactly the usage rows that the transfer names",
    "No charge is above its hold; a settled request is not open; usage by day is the fold of the usage rows",
    "No customer is below zero",
)


def handlers(desk: Desk) -> list[ControllerRouterHandler]:
    parts = desk.parts

    def show(connection: Connection) -> Context:
        journal = parts.settings.journal_path
        told = bookkeeper.status(journal)
        now_s = parts.clock.wall_s()
        return {
            "told": told,
            "lag_s": None if told is None else now_s - told.booked_until,
            "late_s": LATE_S,
            "breaks": () if told is None else told.breaks[:BREAKS_MAX],
            "invariants": INVARIANTS,
            "damaged": bookkeeper.damaged_files(parts.engine, journal),
            "balances": balances(connection),
        }

    @get("/admin/ledger")
    @threaded
    def page(request: AnyRequest) -> Response[Any]:
        return desk.page(request, "ledger", show)

    return [page]


def balances(connection: Connection) -> list[tuple[str, int]]:
    """The house's own accounts, and all customers together as one."""
    table = schema.balance.c
    own, held = [], 0
    for name, debits, credits_ in connection.execute(
        select(table.ledger_account, table.debits_nanousd, table.credits_nanousd).order_by(table.ledger_account)
    ):
        left = Sums(debits, credits_).balance_nanousd
        if name.startswith(rules.CUSTOMER_PREFIX):
            held += left
        else:
            own.append((name, left))
    return [("all customers", held), *own]
