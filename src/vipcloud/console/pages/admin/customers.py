"""`/admin/accounts`: who is this customer; credit, tier, closing and opening."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from litestar import Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler
from sqlalchemy import Connection

from vipcloud.accounts import operators, people, store
from vipcloud.accounts.people import Visitor
from vipcloud.accounts.store import AccountRow
from vipcloud.console.pages.admin.desk import Act, Context, Desk, Refused, Show
from vipcloud.console.parts import threaded
from vipcloud.console.visits import AnyRequest
from vipcloud.ledger import reports
from vipcloud.ledger import store as ledger
from vipcloud.ledger.store import AlreadyPosted
from vipcloud.money import format_usd, parse_usd

FOUND_MAX = 50
LINES_MAX = 10
REASON_CHARS_MAX = 200
ONCE_BYTES = 12  # of what tells a form that is sent twice from two forms


class Found(NamedTuple):
    account: AccountRow
    credit_nanousd: int
    spent_nanousd: int  # this month, UTC


class Customers:
    """What the pages show and what their forms do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    def listing(self, words: str) -> Show:
        def show(connection: Connection) -> Context:
            since = self._month_begins()
            found = [
                Found(
                    account,
                    ledger.balance(connection, account.id),
                    sum(ledger.account_charges_by_day(connection, account.id, since).values()),
                )
                for account in store.search_accounts(connection, words, FOUND_MAX + 1)
            ]
            return {"words": words, "found": found[:FOUND_MAX], "more": len(found) > FOUND_MAX}

        return show

    def one(self, account_id: str) -> Show:
        def show(connection: Connection) -> Context:
            account, parts = known(connection, account_id), self._parts
            month = ledger.account_charges_by_day(connection, account.id, self._month_begins())
            now_s = parts.clock.wall_s()
            tier = parts.settings.tiers.get(account.tier) or parts.settings.tiers["payg"]
            limits = (
                ("Requests a minute", account.rpm, tier.rpm),
                ("Requests a day", account.rpd, tier.rpd),
                ("Requests at once", account.concurrency, tier.concurrency),
            )
            return {
                "account": account,
                "sums": ledger.sums(connection, account.id),
                "month_nanousd": sum(month.values()),
                "today_nanousd": month.get(int(now_s // reports.DAY_S), 0),
                "limits": [(name, of_tier if own is None else own, own is not None) for name, own, of_tier in limits],
                "tiers": list(parts.settings.tiers),
                "people": people.list_members(connection, account.id),
                "keys": store.standing_keys(connection, account.id, now_s),
                "lines": ledger.recent_usage(connection, account.id, LINES_MAX),
                "deeds": operators.deeds(connection, object_=account.email, most=LINES_MAX),
                "once": parts.random_bytes(ONCE_BYTES).hex(),
            }

        return show

    def give(self, account_id: str) -> Act:
        def act(connection: Connection, visitor: Visitor, fields: dict[str, str]) -> None:
            account = known(connection, account_id)
            reason, once = fields.get("reason", "").strip(), fields.get("once", "")
            try:
                amount = parse_usd(fields.get("amount", "").strip().removeprefix("$"))
            except ValueError as error:
                raise Refused(f"The amount: {error}. No credit was given.") from error
            if amount <= 0:
                raise Refused("The amount must be above 0. No credit was given.")
            if not 0 < len(reason) <= REASON_CHARS_MAX:
                raise Refused(f"Say why, in at most {REASON_CHARS_MAX} characters. No credit was given.")
            if not once.isalnum() or len(once) != 2 * ONCE_BYTES:
                raise Refused("The form is incomplete. No credit was given.")
            before = f"${format_usd(ledger.balance(connection, account.id))}"
            try:
                ledger.grant(connection, f"admin/{once}", account.id, amount, self._parts.clock.wall_s())
            except AlreadyPosted:
                return  # the form was sent twice
            told = f"${format_usd(amount)}: {reason}"
            self._desk.note(connection, visitor, "credit given", account.email, before=before, after=told)

        return act

    def change_state(self, account_id: str) -> Act:
        def act(connection: Connection, visitor: Visitor, fields: dict[str, str]) -> None:
            account = known(connection, account_id)
            before = "closed" if account.closed else "open"
            match fields.get("action"):
                case "close":
                    operators.close_account(connection, account.id)
                    action, after = "account closed", "closed"
                case "reopen":
                    operators.reopen_account(connection, account.id)
                    action, after = "account opened again", "open"
                case _:
                    raise Refused("An account can be closed or opened again. Nothing was changed.")
            self._desk.note(connection, visitor, action, account.email, before=before, after=after)

        return act

    def change_tier(self, account_id: str) -> Act:
        def act(connection: Connection, visitor: Visitor, fields: dict[str, str]) -> None:
            account, tier = known(connection, account_id), fields.get("tier", "")
            if tier not in self._parts.settings.tiers:
                raise Refused(f"The tiers are {', '.join(self._parts.settings.tiers)}. Nothing was changed.")
            own = {"rpm": account.rpm, "rpd": account.rpd, "concurrency": account.concurrency}
            store.set_limits(connection, account.id, tier=tier, **own)
            self._desk.note(connection, visitor, "tier changed", account.email, before=account.tier, after=tier)

        return act

    def _month_begins(self) -> int:
        """The first UTC day (since 1970) of the month."""
        now = datetime.fromtimestamp(self._parts.clock.wall_s(), UTC)
        return int(now.replace(day=1).timestamp() // reports.DAY_S)


def known(connection: Connection, account_id: str) -> AccountRow:
    """Raises NotFoundException."""
    account = store.account_by_id(connection, account_id)
    if account is None:
        raise NotFoundException
    return account


def handlers(desk: Desk) -> list[ControllerRouterHandler]:
    customers = Customers(desk)

    @get("/admin/accounts")
    @threaded
    def search(request: AnyRequest) -> Response[Any]:
        return desk.page(request, "accounts", customers.listing(request.query_params.get("q", "")[:200]))

    @get("/admin/accounts/{account_id:str}")
    @threaded
    def account(request: AnyRequest, account_id: FromPath[str]) -> Response[Any]:
        return desk.page(request, "account", customers.one(account_id))

    async def act(request: AnyRequest, account_id: str, what: Act) -> Response[Any]:
        return await desk.act(request, what, f"/admin/accounts/{account_id}", "account", customers.one(account_id))

    @post("/admin/accounts/{account_id:str}/credit")
    async def give(request: AnyRequest, account_id: FromPath[str]) -> Response[Any]:
        return await act(request, account_id, customers.give(account_id))

    @post("/admin/accounts/{account_id:str}/state")
    async def change_state(request: AnyRequest, account_id: FromPath[str]) -> Response[Any]:
        return await act(request, account_id, customers.change_state(account_id))

    @post("/admin/accounts/{account_id:str}/tier")
    async def change_tier(request: AnyRequest, account_id: FromPath[str]) -> Response[Any]:
        return await act(request, account_id, customers.change_tier(account_id))

    return [search, account, give, change_state, change_tier]
