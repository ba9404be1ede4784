"""The catalogue is read again when its file changes or SIGHUP says so; a broken one changes nothing."""

from pathlib import Path

import pytest
from front_door import House, charge, comes_true, eventually

OWN = """
[models.house-model]
alias_of = "glm-4-air"
name = "Ours"
notes = "for the house"
created = 1764547200
"""


@pytest.fixture
async def kept(open_house) -> House:
    return await open_house(housekeeping=True)


async def status_of(house: House, model: str, status: int) -> None:
    await comes_true(lambda: house.ask("GET", f"/v1/models/{model}"), lambda reply: reply.status == status)


def logged(house: House, word: str) -> list[dict]:
    return [event for event in house.logs if word in event["event"]]


async def test_a_new_file_is_taken_and_its_end_too(kept: House) -> None:
    path = kept.gateway.parts.settings.catalog_path
    assert (await kept.chat(model="house-model")).status == 404
    path.write_text(OWN)
    await status_of(kept, "house-model", 200)
    reply = await kept.chat("Count to 3", "house-model")
    assert (reply.status, reply.json["model"], reply.text) == (200, "house-model", "1, 2, 3")
    assert len(logged(kept, "catalogue taken")) == 1
    path.unlink()
    await status_of(kept, "house-model", 404)


@pytest.mark.parametrize(
    "broken",
    [
        "[models.x",
        OWN.replace("glm-4-air", "absent"),
        OWN + "colour = 1\n",
        '[providers.deepseek]\nbase_url = "nowhere"',
    ],
)
async def test_a_broken_file_keeps_the_former_catalogue(kept: House, broken: str) -> None:
    path = kept.gateway.parts.settings.catalog_path
    path.write_text(OWN)
    await status_of(kept, "house-model", 200)
    path.write_text(broken)
    (told,) = await eventually(lambda: logged(kept, "catalogue not taken"))
    assert str(path) in told["error"]
    assert (await kept.chat(model="house-model")).status == 200
    path.write_text(OWN.replace("house-model", "other-model"))
    await status_of(kept, "other-model", 200)


async def test_sighup_has_it_read_again(kept: House) -> None:
    assert not logged(kept, "catalogue")
    kept.reload.set()
    await eventually(lambda: logged(kept, "catalogue taken"))
    assert not kept.reload.is_set()


async def test_a_request_under_way_keeps_the_price_it_began_with(kept: House, tmp_path: Path) -> None:
    async with kept.live("Count to 5 [[pace_ms=60]]", "glm-4-air") as live:
        await live.until(2)
        dearer = '[models.glm-4-air]\nprice = { input = "99", output = "99" }\n'
        kept.gateway.parts.settings.catalog_path.write_text(dearer + OWN)
        await status_of(kept, "house-model", 200)
        reply = await live.rest()
    assert (reply.text, reply.done) == ("1, 2, 3, 4, 5", True)
    used = reply.usage
    row = kept.usage(reply.request_id)
    assert row is not None
    assert row.charge_nanousd == charge("glm-4-air", used["prompt_tokens"], used["completion_tokens"])
    after = await kept.chat("Count to 5", "glm-4-air")
    assert kept.usage(after.request_id).charge_nanousd > 100 * row.charge_nanousd


async def test_a_reload_keeps_what_is_known_of_accounts(open_house) -> None:
    house: House = await open_house(housekeeping=True, keys={"deepseek": ("sk-bad", "sk-good")})
    assert (await house.chat()).status == 200
    house.gateway.parts.settings.catalog_path.write_text(OWN)
    await status_of(house, "house-model", 200)
    assert (await house.chat()).status == 200
    sent = [call["headers"]["authorization"] for call in await house.upstream.log()]
    assert sent == ["Bearer sk-bad", "Bearer sk-good", "Bearer sk-good"]


async def test_a_providers_new_headers_are_sent_from_then_on(kept: House) -> None:
    assert (await kept.chat()).status == 200
    own = '[providers.deepseek.headers]\nx-region = "north"\n'
    kept.gateway.parts.settings.catalog_path.write_text(own + OWN)
    await status_of(kept, "house-model", 200)
    assert (await kept.chat()).status == 200
    assert [call["headers"].get("x-region") for call in await kept.upstream.log()] == [None, "north"]
