"""The same `Idempotency-Key` never generates or charges twice, whatever happens in between."""

import asyncio

import pytest
from front_door import House, Reply, eventually
from sqlalchemy import text

from vipcloud.clock import ManualClock
from vipcloud.errors import AlreadyAnswered, Unavailable
from vipcloud.gateway.idempotency import Idempotency
from vipcloud.settings import IdempotencySettings
from vipcloud.storage import engine as storage

CHAT = "/v1/chat/completions"


async def ask(house: House, said: str = "Count to 5", key: str = "order-1", **fields: object) -> Reply:
    body = house.body(said, "deepseek-chat", fields)
    return await house.ask("POST", CHAT, body, house.head(**{"Idempotency-Key": key}))


def refusal(reply: Reply) -> tuple[int, str, str, str]:
    headers = reply.headers
    return reply.status, reply.error["code"], headers["x-should-retry"], headers["x-vipcloud-original-request-id"]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("booked", [False, True], ids=["journaled", "booked"])
async def test_what_was_answered_is_not_generated_again(house: House, stream: bool, booked: bool) -> None:
    first = await ask(house, stream=stream)
    assert first.status == 200
    if booked:
        house.rows()
    again = await ask(house, stream=stream)
    assert refusal(again) == (409, "already_answered", "false", first.request_id)
    assert float(again.headers["x-vipcloud-original-charge-usd"]) == first.usage["cost"]
    assert first.request_id in again.error["message"]
    assert [row.request_id for row in house.rows()] == [first.request_id]
    assert len(await house.upstream.log()) == 1


async def test_another_body_another_account_another_key(house: House) -> None:
    first = await ask(house)
    other = await ask(house, "Count to 6")
    assert refusal(other) == (422, "idempotency_key_reused", "false", first.request_id)
    assert (await ask(house, key="order-2")).status == 200
    with house.using(*house.new_key()):
        assert (await ask(house)).status == 200
    assert len(house.rows()) == 3


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_what_runs_is_told(house: House, stream: bool) -> None:
    said = "Count to 5 [[first_token_ms=300]]"
    first = asyncio.get_running_loop().create_task(ask(house, said, stream=stream))
    await house.upstream.called()
    again = await ask(house, said, stream=stream)
    reply = await first
    assert refusal(again) == (409, "request_in_progress", "false", reply.request_id)
    assert refusal(await ask(house, said, stream=stream))[:2] == (409, "already_answered")
    assert len(house.rows()) == 1


async def test_of_many_at_once_one_is_answered(house: House) -> None:
    replies = await asyncio.gather(*(ask(house) for _ in range(20)))
    assert sorted(reply.status for reply in replies) == [200, *[409] * 19]
    assert len(house.rows()) == 1


async def test_what_failed_uncharged_frees_its_key(house: House) -> None:
    await house.upstream.fails("status:400")
    assert (await ask(house)).status == 400
    assert (await ask(house, model="no-such-model")).status == 404
    assert (await ask(house, "Hello")).status == 200
    house.rows()
    assert refusal(await ask(house, "Hello"))[:2] == (409, "already_answered")


async def test_what_was_cut_off_after_content_was_charged_and_keeps_its_key(house: House) -> None:
    said = "Count to 30 [[fault=cut:9]]"
    first = await ask(house, said, stream=True)
    assert first.stream_error is not None
    again = await ask(house, said, stream=True)
    assert refusal(again) == (409, "already_answered", "false", first.request_id)
    (row,) = house.rows()
    assert float(again.headers["x-vipcloud-original-charge-usd"]) * 1e9 == pytest.approx(row.charge_nanousd)


async def test_keys_survive_a_restart(open_house) -> None:
    house: House = await open_house()
    done = await ask(house)
    await house.upstream.fails("status:400")
    assert (await ask(house, key="failed")).status == 400
    await house.gateway.server.close(0)
    house.rows()
    parts = house.gateway.parts
    parts.idempotency = Idempotency(house.engine, parts.clock, IdempotencySettings(), lambda: 0.0)
    await house.gateway.server.start("127.0.0.1", 0)
    renewed = Idempotency(house.engine, parts.clock, IdempotencySettings(), lambda: 0.0)
    body = house.body("Count to 5", "deepseek-chat", {})
    with pytest.raises(AlreadyAnswered, match=done.request_id):
        await renewed.claim(house.account_id, b"order-1", body, "chatcmpl-2")
    claim = await renewed.claim(house.account_id, b"failed", body, "chatcmpl-3")
    renewed.release(claim)


async def test_no_key_and_no_body_is_kept(house: House) -> None:
    await ask(house, "a secret sentence", key="a secret key")
    house.rows()
    with storage.reading(house.engine) as connection:
        (row,) = connection.execute(text("SELECT * FROM idempotency")).all()
    assert b"secret" not in b"".join(value for value in row if isinstance(value, bytes))
    assert "secret" not in str(row)


@pytest.mark.parametrize("key", ["k" * 256, "ü" * 300])
async def test_a_key_that_is_too_long_is_refused(house: House, key: str) -> None:
    assert (await ask(house, key=key)).status == 400
    assert (await ask(house, key="")).status == 200, "an empty header is none"


async def test_memory_is_bounded_and_forgets_only_what_is_booked(house: House) -> None:
    clock, booked = ManualClock(), [0.0]
    keys = Idempotency(house.engine, clock, IdempotencySettings(keys_cached_max=3), lambda: booked[0])
    for number in range(3):
        claim = await keys.claim("a", b"%d" % number, b"{}", f"chatcmpl-{number}")
        claim.settle(5, answered=True)
        keys.release(claim)
        clock.advance(1)
    with pytest.raises(Unavailable):
        await keys.claim("a", b"4", b"{}", "chatcmpl-4")
    booked[0] = clock.wall_s() - 1.5
    await keys.claim("a", b"4", b"{}", "chatcmpl-4")
    with pytest.raises(AlreadyAnswered):
        await keys.claim("a", b"2", b"{}", "chatcmpl-5")


async def test_a_client_that_leaves_before_content_frees_its_key(house: House) -> None:
    said = "Count to 5 [[first_token_ms=60000]]"
    task = asyncio.get_running_loop().create_task(ask(house, said))
    await house.upstream.called()
    task.cancel()
    await asyncio.wait([task])
    await house.settled()
    await eventually(lambda: not house.gateway.parts.idempotency._claims)
