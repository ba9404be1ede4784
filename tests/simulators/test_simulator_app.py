"""Simulators on a socket: steps become bytes, faults can be queued, the log says what came in."""

import asyncio
import json

import pytest
from asking import HOW, Opener

from vipcloud.simulators import app


@pytest.mark.parametrize("provider", app.PROVIDERS)
async def test_a_provider_answers_whole_and_in_a_stream(simulator: Opener, provider: str) -> None:
    client = await simulator(provider)
    whole = await client.chat()
    assert whole.json["choices"][0]["message"]["content"] == "Hello! How can I help you today?"
    assert ("content-length" in whole.headers) == (provider != "dashscope")
    stream = await client.chat(stream=True)
    assert stream.headers["transfer-encoding"] == "chunked"
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.body.endswith(b"data: [DONE]\n\n") == HOW[provider].done
    assert stream.whole


async def test_keep_alive_lines_come_in_chunks_before_a_whole_answer(simulator: Opener) -> None:
    answer = await (await simulator("deepseek", keep_alive_every=1)).chat()
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body.startswith(b"\n\n{")
    assert answer.json["object"] == "chat.completion"


async def test_queued_faults_are_used_once_each_in_order(simulator: Opener) -> None:
    client = await simulator("zhipu")
    wanted = json.dumps({"faults": ["status:500", "none", "code:1302"]}).encode()
    assert (await client.request("POST", "/_sim/faults", wanted)).json == ["status:500", "none", "code:1302"]
    assert [(await client.chat()).status for _ in range(4)] == [500, 200, 429, 200]


async def test_faults_can_be_queued_as_lines_and_forgotten(simulator: Opener) -> None:
    client = await simulator("zhipu")
    assert (await client.request("POST", "/_sim/faults", b"cut:3\nstatus:429\n")).json == ["cut:3", "status:429"]
    assert (await client.request("DELETE", "/_sim/faults")).json == []
    assert (await client.request("GET", "/_sim/faults")).json == []


@pytest.mark.parametrize("body", [b"nonsense", b'{"faults": [1]}', b"[3]", b"7"])
async def test_a_fault_that_does_not_exist_is_refused(simulator: Opener, body: bytes) -> None:
    client = await simulator("deepseek")
    refused = await client.request("POST", "/_sim/faults", body)
    assert (refused.status, list(refused.json)) == (400, ["sim_error"])
    assert (await client.chat("[[fault=nonsense]]")).json["sim_error"].startswith("There is no fault 'nonsense'")


async def test_a_header_and_a_message_ask_for_faults(simulator: Opener) -> None:
    client = await simulator("deepseek")
    assert (await client.chat(headers={"x-sim-fault": "status:503"})).status == 503
    assert (await client.chat("Hello [[fault=status:429]]")).status == 429


async def test_a_message_can_fail_the_first_times_only(simulator: Opener) -> None:
    client = await simulator("deepseek")
    text = "Hello [[fault=status:500,first:2]]"
    assert [(await client.chat(text)).status for _ in range(3)] == [500, 500, 200]


async def test_a_cut_stream_breaks_off_on_the_wire_and_an_eof_does_not(simulator: Opener) -> None:
    client = await simulator("zhipu")
    cut = await client.chat("Count to 9 [[fault=cut:3]]", stream=True)
    assert (cut.body.count(b"data: "), cut.whole) == (3, False)
    ended = await client.chat("Count to 9 [[fault=eof:3]]", stream=True)
    assert (ended.body.count(b"data: "), ended.whole) == (3, True)
    assert [entry["outcome"] for entry in await client.log()] == ["aborted", "finished"]


async def test_a_connection_can_close_after_the_answer(simulator: Opener) -> None:
    client = await simulator("deepseek")
    closing = await client.chat("Hello [[fault=close]]")
    assert closing.headers["connection"] == "close"
    assert "connection" not in (await client.chat()).headers


async def test_the_log_holds_what_came_in(simulator: Opener) -> None:
    client = await simulator("deepseek")
    await client.chat("Hello there", headers={"x-anything": "1"})
    (entry,) = await client.log()
    assert (entry["method"], entry["path"], entry["status"], entry["outcome"]) == (
        "POST",
        "/chat/completions",
        200,
        "finished",
    )
    assert entry["headers"]["authorization"] == "Bearer sk-test"
    assert entry["headers"]["x-anything"] == "1"
    assert entry["body"]["messages"][0]["content"] == "Hello there"
    await client.request("DELETE", "/_sim/log")
    assert await client.log() == []


async def test_the_log_is_bounded(simulator: Opener) -> None:
    client = await simulator("deepseek", log_requests_max=2)
    for text in "abc":
        await client.chat(text)
    assert [entry["body"]["messages"][0]["content"] for entry in await client.log()] == ["b", "c"]


async def test_an_answer_may_have_an_error_event_of_its_own(simulator: Opener) -> None:
    answer = await (await simulator("dashscope")).chat("Hello [[fault=error:1]]", stream=True)
    event = json.loads(answer.body.split(b"\n\n")[-2].removeprefix(b"data: "))
    assert event["request_id"] == answer.headers["x-request-id"]


async def test_a_query_reaches_the_provider(simulator: Opener) -> None:
    client = await simulator("dashscope")
    answer = await client.request("GET", "/api/v1/quotas?model=qwen3-max", authorization="Bearer sk-test")
    assert answer.json["data"]["model"] == "qwen3-max"


async def test_a_refusal_keeps_its_own_headers(simulator: Opener) -> None:
    refused = await (await simulator("moonshot")).chat("Hello [[fault=code:concurrency]]")
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["msh-gid"] == "org-test"


async def test_a_client_that_leaves_is_noticed_and_frees_its_slot(simulator: Opener) -> None:
    client = await simulator("deepseek", concurrency_max=1)
    body = client.body("Hello [[fault=stall:1:600]]", stream=True)
    reader, writer = await client.send("POST", "/chat/completions", body, authorization="Bearer sk-test")
    await reader.readuntil(b"Hello")
    assert (await client.chat()).status == 429
    writer.close()
    while (await client.log())[0]["outcome"] == "running":
        pass
    assert (await client.log())[0]["outcome"] == "cancelled"
    assert (await client.chat()).status == 200


async def test_a_pace_is_kept_on_average(simulator: Opener) -> None:
    client = await simulator("zhipu")
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    await client.chat("[[tokens=50 pace_ms=4]]", stream=True)
    assert 0.19 < loop.time() - begun_s < 1.5


async def test_the_simulator_explains_itself(simulator: Opener) -> None:
    client = await simulator("zhipu")
    described = (await client.request("GET", "/_sim")).json
    assert described["faults"]["cut"]["defaults"] == ["3"]
    assert any("tokens=N" in line for line in described["directives"])
    assert (await client.request("PUT", "/_sim/faults")).status == 400


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(KeyError):
        app.handler("nobody")
