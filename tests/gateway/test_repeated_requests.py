"""Requests of one shape are recognised, not decoded; upstream and in the books each is its own."""

import asyncio
from typing import Any

import pytest
from front_door import House, Reply

SAY = "Repeat exactly: "
TEXTS = ["one", 'say "two"', "drei\n\\ 你好 🚢", "x" * 5000, 'x","role":"system']
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


async def asked(house: House, text: str, *, stream: bool, before: str = "Be brief.", **fields: Any) -> Reply:
    messages = [{"role": "system", "content": before}, {"role": "user", "content": SAY + text}]
    return await house.chat(messages=messages, stream=stream, temperature=0.5, **fields)


async def got(house: House, name: str) -> list[tuple[str, str]]:
    """The system's and the user's words in each call, in order, and that all else was the same."""
    bodies = [entry["body"] for entry in await house.upstreams[name].log()]
    said = [tuple(message["content"] for message in body.pop("messages")) for body in bodies]
    assert all(body == bodies[0] for body in bodies)
    return said


@STREAM
async def test_each_text_arrives_upstream_and_by_another_route_when_one_fails(open_house, stream: bool) -> None:
    house: House = await open_house(keys={"dashscope": ("sk-ours",)})
    for text in TEXTS:
        assert (await asked(house, text, stream=stream)).text == text
    assert await got(house, "deepseek") == [("Be brief.", SAY + text) for text in TEXTS]
    assert await got(house, "dashscope") == []
    await house.upstream.always("status:500")
    for text in TEXTS:
        assert (await asked(house, text, stream=stream)).text == text
    assert await got(house, "dashscope") == [("Be brief.", SAY + text) for text in TEXTS]
    rows = house.rows()
    assert [row.outcome for row in rows] == ["complete"] * 2 * len(TEXTS)
    assert [row.completion_tokens for row in rows[: len(TEXTS)]] == [
        row.completion_tokens for row in rows[len(TEXTS) :]
    ]


@STREAM
async def test_those_that_run_together_are_not_mixed_up(open_house, stream: bool) -> None:
    house: House = await open_house()
    texts = [f"{number}" * (number + 1) for number in range(12)]
    befores = ["Be brief.", "Be long.", ""]

    async def ask(number: int, text: str) -> None:
        reply = await asked(house, text, stream=stream, before=befores[number % 3])
        assert reply.text == text

    await asyncio.gather(*(ask(number, text) for number, text in enumerate(texts)))
    expected = [(befores[number % 3], SAY + text) for number, text in enumerate(texts)]
    assert sorted(await got(house, "deepseek")) == sorted(expected)


async def test_a_fault_is_told_as_ever(open_house) -> None:
    house: House = await open_house()
    good = house.body("Hello", "deepseek-chat", {"temperature": 1})
    for _ in range(3):
        assert (await house.ask("POST", "/v1/chat/completions", good)).status == 200
    for bad, param in ((b"\\ud800", None), (b'x","name":1,"a":"', "messages[0].name"), (b"\n", None), (b"\xff", None)):
        reply = await house.ask("POST", "/v1/chat/completions", good.replace(b"Hello", bad))
        assert (reply.status, reply.error["param"]) == (400, param), reply.body


async def test_the_answer_is_counted_by_the_texts_that_were_asked(open_house) -> None:
    """Where the upstream does not count."""
    house: House = await open_house()
    await house.upstream.always("usage:missing")
    for text in ("word " * 100, "word " * 10, "word " * 10, "word " * 100):
        assert (await asked(house, text.strip(), stream=True)).text == text.strip()
    prompt = [row.prompt_tokens for row in house.rows()]
    assert prompt[0] == prompt[3] > prompt[1] == prompt[2]


async def test_strict_parameters_are_looked_for_in_each(open_house) -> None:
    house: House = await open_house(gateway={"strict_parameters": True})
    for _ in range(3):
        assert (await asked(house, "one", stream=False)).status == 200
        refused = await asked(house, "one", stream=False, vendor=1)
        assert (refused.status, refused.error["param"]) == (400, "vendor")
