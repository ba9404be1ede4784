"""Credit goes back only as far as no running request holds it, wherever the counts are kept."""

import pytest
from front_door import House, comes_true

from valkey_server import Server
from vipcloud.billing import store as billing
from vipcloud.billing import withdrawals
from vipcloud.billing.rules import Topup
from vipcloud.ledger import audit
from vipcloud.ledger import store as ledger
from vipcloud.money import NANO
from vipcloud.storage import engine as storage

TEXT = "[[tokens=3 pace_ms=300]]"
CENT = NANO // 100
TOPUP_ID = "top_0123456789abcdef"


@pytest.fixture(params=["memory", "valkey"])
async def house(request: pytest.FixtureRequest, open_house, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house whose customer has paid 20 cents."""
    monkeypatch.setattr("vipcloud.cli.serve.RELEASE_S", 0.0)
    guard = {"backend": request.param, "hold_slice_tokens": 0}
    if request.param == "valkey":
        server: Server = request.getfixturevalue("valkey")
        guard["url"] = server.url
    house: House = await open_house(guard=guard)
    house.key, house.account_id = house.new_key(credit="0.01", rpm=0, concurrency=0)
    with storage.writing(house.engine) as connection:
        topup = billing.begin(connection, Topup(TOPUP_ID, house.account_id, 19, "waiting", 1.0))
        ledger.pay_in(connection, "pi_1", house.account_id, topup.amount_nanousd, 1.0)
    return house


def ask(house: House, cents: int, *, whole: bool = False) -> None:
    with storage.writing(house.engine) as connection:
        topup = billing.find(connection, TOPUP_ID)
        assert topup is not None
        withdrawals.ask(connection, withdrawals.new("wd_1", topup, "refund", cents, 1.0, whole=whole))


def taken(house: House) -> withdrawals.Withdrawal:
    with storage.reading(house.engine) as connection:
        found = withdrawals.find(connection, "wd_1")
    assert found is not None
    return found


async def let_go(house: House) -> None:
    await house.gateway.parts.directory.poll_changes()
    await house.gateway.withdrawals.round()


@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_running_request_holds_is_left(house: House, stream: bool) -> None:
    async with house.sent(TEXT, max_tokens=8000, stream=stream) as wire:  # a hold of a little more than a cent
        await comes_true(house.upstream.log, bool)
        ask(house, 19)
        await house.gateway.withdrawals.round()
        assert (taken(house).state, taken(house).taken_cents) == ("taken", 18)
        await let_go(house)
        await wire.answer()
    [row] = await house.settled()
    assert house.credit() == 2 * CENT - row.charge_nanousd
    with storage.reading(house.engine) as connection:
        assert audit.overdrawn(connection) == {}
        assert ledger.differences(connection) == []


async def test_no_request_is_admitted_on_what_went_back(house: House) -> None:
    first = await house.chat("[[tokens=3]]", max_tokens=8000)
    assert (first.status, first.headers.get("x-vipcloud-max-tokens")) == (
        200,
        None,
    )  # the account is known from here on
    ask(house, 19)
    await house.gateway.withdrawals.round()
    left = house.credit()
    assert 0 < left < CENT
    before = await house.chat("[[tokens=3]]", max_tokens=8000)  # the directory has yet to hear of it
    await let_go(house)
    after = await house.chat("[[tokens=3]]", max_tokens=8000)
    for reply in (before, after):
        assert reply.status == 200
        assert 0 < int(reply.headers["x-vipcloud-max-tokens"]) * 1270 <= left


async def test_all_or_nothing_takes_nothing_where_there_is_less_and_lets_go_at_once(house: House) -> None:
    async with house.sent(TEXT, max_tokens=8000) as wire:
        await comes_true(house.upstream.log, bool)
        ask(house, 19, whole=True)
        await house.gateway.withdrawals.round()
        assert (taken(house).state, taken(house).taken_cents) == ("refused", 0)
        reply = await house.chat("[[tokens=3]]", max_tokens=8000)
        assert (reply.status, reply.headers.get("x-vipcloud-max-tokens")) == (200, None)
        await wire.answer()


async def test_one_that_was_called_off_is_left_alone(house: House) -> None:
    ask(house, 5)
    with storage.writing(house.engine) as connection:
        assert withdrawals.cancel(connection, "wd_1", 2.0)
        assert not withdrawals.cancel(connection, "wd_1", 2.0)
        assert withdrawals.take(connection, "wd_1", 5, 2.0) == 0
    await house.gateway.withdrawals.round()
    assert house.credit() == 20 * CENT
