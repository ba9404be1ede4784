"""What customers write and are answered stands in no file and no log, whatever becomes of the request."""

from typing import Any

import pytest
from front_door import House

MARK = "Zyzzyva"  # in each field with a number of its own; the answers repeat it

FIELDS: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": f"{MARK}01", "name": f"{MARK}02"},
        {"role": "user", "content": f"{MARK}03", "name": f"{MARK}04"},
        {
            "role": "assistant",
            "content": f"{MARK}05",
            "refusal": f"{MARK}06",
            "reasoning_content": f"{MARK}07",
            "tool_calls": [
                {"id": f"{MARK}08", "type": "function", "function": {"name": f"{MARK}09", "arguments": f"{MARK}10"}}
            ],
        },
        {"role": "tool", "tool_call_id": f"{MARK}08", "content": f"{MARK}11"},
        {"role": "user", "content": f"Repeat exactly: {MARK}12 [[fault=FAULT]]"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {"name": f"{MARK}09", "description": f"{MARK}13", "parameters": {"title": f"{MARK}14"}},
        }
    ],
    "tool_choice": "none",
    "stop": [f"{MARK}15"],
    "user": f"{MARK}16",
    "metadata": {f"{MARK}17": f"{MARK}18"},
    "safety_identifier": f"{MARK}19",
    "prompt_cache_key": f"{MARK}20",
    f"{MARK}21": f"{MARK}22",
}


def with_fault(fault: str) -> dict[str, Any]:
    *before, last = FIELDS["messages"]
    return {**FIELDS, "messages": [*before, {**last, "content": last["content"].replace("FAULT", fault)}]}


def found(house: House) -> list[str]:
    """Files and log events with a mark in them."""
    everything = house.gateway.parts.settings.data_path.rglob("*")
    files = [str(path) for path in everything if path.is_file() and MARK.encode() in path.read_bytes()]
    return files + [str(event) for event in house.logs if MARK in str(event)]


FAULTS = ["none", "status:500", "status:400", "code:risk", "cut:1", "malformed:1", "error:1", "usage:missing", "hang"]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_nothing_said_is_ever_written(open_house, stream: bool) -> None:
    house: House = await open_house(timeouts={"total_s": 0.2})
    for fault in FAULTS:
        reply = await house.chat(**with_fault(fault), stream=stream)
        assert fault != "none" or MARK in reply.text
    house.rows()
    assert found(house) == []
    leak = house.gateway.parts.settings.data_path / "leak"
    leak.write_text(MARK)
    assert found(house) == [str(leak)]


BAD_PLACES = [
    b'{"model":"%b","messages":[{"role":"user","content":"x"}]}',
    b'{"model":"deepseek-chat","messages":[{"role":"%b","content":"x"}]}',
    b'{"model":"deepseek-chat","messages":[{"role":"user","content":"%b"}],"temperature":9}',
    b'{"model":"deepseek-chat","messages":"%b"}',
    b'{"model":"deepseek-chat","messages":[{"role":"user","content":"%b"}]',
    b"%b",
    b'{"model":"deepseek-chat","messages":[{"role":"user","content":"%b\xff"}]}',
    b'{"model":"deepseek-chat","messages":[{"role":"user","content":"%b\\ud800"}]}',
]


async def test_nor_is_what_is_refused(house: House) -> None:
    for body in BAD_PLACES:
        reply = await house.ask("POST", "/v1/chat/completions", body % MARK.encode())
        assert 400 <= reply.status < 500
    assert (await house.ask("GET", f"/{MARK}")).status == 404
    assert (await house.ask("GET", "/v1/models", headers={"x-api-key": MARK * 8})).status == 401
    assert found(house) == []


async def test_nor_are_keys(house: House) -> None:
    await house.chat()
    await house.chat("Hello [[fault=status:401]]")
    everything = house.gateway.parts.settings.data_path.rglob("*")
    written = b"".join(path.read_bytes() for path in everything if path.is_file()) + str(house.logs).encode()
    for secret in (house.key, "sk-ours", "ours.secret"):
        assert secret.encode() not in written
