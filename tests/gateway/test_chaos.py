"""The soak of proofs/chaos.py, for a moment; and that it knows a bad end when it sees one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "proofs"))

import chaos
from vipcloud.simulators import faults

EXPECTED = "1, 2, 3, 4"
HEAD = "HTTP/1.1 {status}\r\nx-request-id: req_1\r\ncontent-type: {kind}\r\n"
ERROR = {"error": {"message": "no", "type": "t", "param": None, "code": "upstream_error"}}


def asked(fault: str = "", *, streamed: bool = False) -> chaos.Asked:
    return chaos.Asked("deepseek-chat", 4, streamed, fault, "", 0, None)


def unary(document: Any, status: str = "200 OK", cut: int = 0) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = HEAD.format(status=status, kind="application/json") + f"content-length: {len(body)}\r\n\r\n"
    return head.encode() + body[: len(body) - cut]


def answer(text: str = EXPECTED, reason: str = "stop") -> dict[str, Any]:
    choice = {"message": {"content": text}, "finish_reason": reason}
    return {"choices": [choice], "usage": {"cost": 0.25}}


def stream(*events: Any, end: bytes = b"0\r\n\r\n") -> bytes:
    head = HEAD.format(status="200 OK", kind="text/event-stream") + "transfer-encoding: chunked\r\n\r\n"
    parts = [b"data: %b\n\n" % (event if isinstance(event, bytes) else json.dumps(event).encode()) for event in events]
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def chunk(text: str = "", reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": reason}], "usage": None}


WHOLE = (chunk("1, 2, "), chunk("3, 4"), chunk("", "stop"))


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (unary(answer()), "whole"),
        (unary(answer("1, 2", "length")), "whole"),
        (unary(ERROR, "502 Bad Gateway"), "error"),
        (unary(b"  " + json.dumps(ERROR).encode()), "error"),
        (unary(answer("1, 2")), "cut as whole"),
        (unary(answer(""), cut=0), "cut as whole"),
        (unary(answer(), cut=3), "unclean"),
        (unary(b"oops", "502 Bad Gateway"), "unclean"),
        (unary({"error": "no"}, "500 Internal Server Error"), "unclean"),
        (unary({}), "unclean"),
        (b"", "unclean"),
        (stream(*WHOLE, b"[DONE]"), "whole"),
        (stream(*WHOLE[:1], ERROR), "error"),
        (stream(*WHOLE[:1], WHOLE[2], b"[DONE]"), "cut as whole"),
        (stream(*WHOLE), "unclean"),
        (stream(*WHOLE[:2], b"[DONE]"), "unclean"),
        (stream(*WHOLE[:1], ERROR, b"[DONE]"), "unclean"),
        (stream(*WHOLE, b"[DONE]", end=b""), "unclean"),
    ],
)
def test_the_ends_are_told_apart(data: bytes, end: str) -> None:
    assert chaos.judge(asked(streamed=b"event-stream" in data), data, EXPECTED).end == end


def test_only_a_fault_that_lengthens_may_lengthen() -> None:
    longer = unary(answer("1, 1, 2, 2, 3, 3, 4, 4"))
    assert chaos.judge(asked("endless:1:1"), longer, EXPECTED).end == "whole"
    assert chaos.judge(asked("cut:1"), longer, EXPECTED).end == "cut as whole"


def test_every_fault_there_is_may_come() -> None:
    assert chaos.FAULTS.keys() == faults.CATALOGUE.keys() - chaos.NOT_ASKED_FOR
    for name, say in chaos.FAULTS.items():
        for _ in range(10):
            assert name in {fault.name for fault in faults.parse(say(chaos.random.Random(1), "deepseek-chat"))}


def test_what_must_be_zero_is_counted() -> None:
    ends = ["whole", "error", "hang", "hang", "cut as whole", "unclean", "unclean", "unclean", "left"]
    clients = chaos.Clients(0, "", chaos.random.Random(1), got=[chaos.Got(asked(), end) for end in ends])
    light = chaos.Weight(1, 1)
    found = chaos.Soak(clients, light, light, light, {"vipcloud_open_streams": 2}, len(chaos.MODELS) - 1, 1.0, 4)
    zeros = chaos.zeros_of(found, iter([("breaks of the books", 5)]))
    assert {name: count for name, count in zeros.items() if count} == {
        "hangs": 2,
        "cut as whole": 1,
        "unclean ends": 3,
        "internal errors": 4,
        "breaks of the books": 5,
        "left open": 2,
        "models not back": 1,
    }
    found.after = chaos.Weight(1 << 30, 1000)
    zeros = chaos.zeros_of(found, iter([]))
    assert zeros["files too many"] > 900
    assert zeros["memory too much (MB)"] > 900


@pytest.mark.timeout(90)
def test_a_short_soak_ends_well() -> None:
    command = [sys.executable, chaos.__file__, "--seconds", "3", "--clients", "8", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=80)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cut as whole                    0" in done.stdout
