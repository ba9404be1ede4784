"""What the simulated providers have in common: forced refusals, concurrency, pace, and the usage they keep count of."""

from collections.abc import Iterator, Mapping
from typing import Any

from vipcloud.simulators.answers import Answer, directives, last_user_text
from vipcloud.simulators.script import Call, Refused, Shared, Write

HTML_PAGE = b"<html><head><title>%d</title></head><body><center><h1>%d</h1></center><hr>nginx</body></html>\r\n"


def forced(call: Call) -> None:
    """Raises Refused with a page that no provider wrote, if the call asks for one."""
    if fault := call.fault("html"):
        status = int(fault.number(0))
        raise Refused(status, HTML_PAGE % (status, status), "text/html")


def account_of(key: str) -> str:
    """Keys of one account share the part before the first dash: `acme-1` → `acme`."""
    return key.partition("-")[0]


def full(shared: Shared, slot: str, concurrency_max: int) -> bool:
    limit = shared.options.concurrency_max
    return shared.inflight[slot] >= (concurrency_max if limit is None else limit)


def paced(writes: Iterator[Write], answer: Answer, shared: Shared) -> Iterator[Write]:
    """Each write `pace_ms` after the one before, the first `first_token_ms` late. Comments keep their own time."""
    options = shared.options
    first_s = answer.milliseconds("first_token_ms", options.first_token_ms) / 1000
    pace_s = answer.milliseconds("pace_ms", options.pace_ms) / 1000
    if not first_s and not pace_s:
        yield from writes
        return
    wait_s = first_s
    for write in writes:
        if write.kind == "delta":
            yield Write(write.data, write.kind, wait_s)
            wait_s = pace_s
        else:
            yield write


def unary_delay_s(answer: Answer, shared: Shared) -> float:
    """How long an unstreamed answer takes: as long as the stream would have taken."""
    options = shared.options
    first_s = answer.milliseconds("first_token_ms", options.first_token_ms) / 1000
    pace_s = answer.milliseconds("pace_ms", options.pace_ms) / 1000
    return first_s + pace_s * max(0, answer.completion_tokens - 1)


def message_directives(document: Any) -> dict[str, str]:
    """The directives in the last user message of whatever body came in."""
    messages = document.get("messages") if isinstance(document, Mapping) else None
    if not isinstance(messages, list):
        return {}
    return directives(last_user_text([message for message in messages if isinstance(message, Mapping)]))
