"""What the simulated providers have in common: OpenAI's words read, keys and turns checked, pace, concurrency, usage.

A provider's module says what is its own: shapes, refusals, and which of these it does not do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vipcloud.simulators import faults
from vipcloud.simulators.answers import Answer, Ask, directives, last_user_text, text_of
from vipcloud.simulators.script import Call, Refused, Shared, SimulatorOptions, Write

HTML_PAGE = b"<html><head><title>%d</title></head><body><center><h1>%d</h1></center><hr>nginx</body></html>\r\n"


# --- refusals that a call asks for -------------------------------------------------------------------------------


def forced(call: Call) -> None:
    """Raises Refused with a page that no provider wrote, if the call asks for one."""
    if fault := call.fault("html"):
        raise html_page(int(fault.number(0)))


def html_page(status: int) -> Refused:
    return Refused(status, HTML_PAGE % (status, status), "text/html")


def forced_status(call: Call) -> int | None:
    fault = call.fault("status")
    return int(fault.number(0)) if fault else None


def forced_code(call: Call, codes: Iterable[str]) -> str | None:
    """The error that the call asks for by its name. Raises Refused where the provider has no such error."""
    fault = call.fault("code")
    if fault is None:
        return None
    names = tuple(codes)
    if fault.args[0] not in names:
        raise Refused(400, f"no such code; there are: {', '.join(names)}\n".encode(), "text/plain")
    return fault.args[0]


# --- who calls ---------------------------------------------------------------------------------------------------


def bearer(call: Call) -> str:
    """The key of `Authorization: Bearer …`; empty where there is none."""
    scheme, _, key = call.header(b"authorization").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def known(key: str, options: SimulatorOptions) -> bool:
    """Whether an `sk-` key is a good one."""
    if options.keys:
        return key in options.keys
    return key.startswith("sk-") and len(key) > len("sk-") and "bad" not in key


def account_of(key: str) -> str:
    """Keys of one account share the part before the first dash: `acme-1` → `acme`."""
    return key.partition("-")[0]


def of_other_region(account: str, options: SimulatorOptions) -> bool:
    """Keys that begin with `cn-` or `intl-` are of that site, and the two know nothing of each other."""
    return account.startswith("intl-" if options.region == "cn" else "cn-")


def limits(options: SimulatorOptions, requests: int | None, tokens: int | None) -> tuple[int | None, int | None]:
    """Per minute: the provider's own numbers, unless the options say otherwise."""
    return (
        requests if options.requests_per_minute_max is None else options.requests_per_minute_max,
        tokens if options.tokens_per_minute_max is None else options.tokens_per_minute_max,
    )


def full(shared: Shared, slot: str, concurrency_max: int) -> bool:
    limit = shared.options.concurrency_max
    return shared.inflight[slot] >= (concurrency_max if limit is None else limit)


# --- what is asked -----------------------------------------------------------------------------------------------

Request = Mapping[str, Any]


def is_number(value: Any, *, whole: bool = False) -> bool:
    """JSON's number; a boolean is none."""
    return not isinstance(value, bool) and isinstance(value, int if whole else int | float)


def stops(request: Request) -> tuple[str, ...]:
    stop = request.get("stop") or ()
    return (stop,) if isinstance(stop, str) else tuple(mark for mark in stop if isinstance(mark, str))


def tool_choice(request: Request) -> str:
    """`auto`, `none`, `required` or the name of a function."""
    choice = request.get("tool_choice") or "auto"
    return choice["function"].get("name", "") if isinstance(choice, dict) else choice


def functions(request: Request) -> list[Mapping[str, Any]]:
    return [tool["function"] for tool in request.get("tools") or () if tool["type"] == "function"]


def response_format(request: Request) -> tuple[str, Mapping[str, Any] | None]:
    """Its type, and the schema where it brings one. What is of another form counts for nothing."""
    wanted = request.get("response_format")
    if not isinstance(wanted, dict):
        return "text", None
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    return str(wanted.get("type")), schema if isinstance(schema, dict) else None


def wants_usage(request: Request) -> bool:
    """Whether a stream is to end with its usage."""
    options = request.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def ask(request: Request, *, thinking: bool, output_tokens_max: int, seed: int) -> Ask:
    """A request in OpenAI's words, checked, as a model understands it that heeds all of them."""
    kind, schema = response_format(request)
    return Ask(
        messages=request["messages"],
        tools=functions(request),
        tool_choice=tool_choice(request),
        json=kind in ("json_object", "json_schema"),
        schema=schema if kind == "json_schema" else None,
        thinking=thinking,
        stop=stops(request),
        output_tokens_max=output_tokens_max,
        seed=seed,
    )


def carried_on(asked: Ask, mark: str) -> Ask:
    """With `mark` on the last turn, the assistant's, the answer goes on where that ends."""
    last = asked.messages[-1]
    if last.get("role") != "assistant" or not last.get(mark):
        return asked
    return replace(asked, prefix=text_of(last))


def orphan_result(messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first tool message that does not stand right behind the turn that called, or behind its other results."""
    called = False
    for message in messages:
        if message["role"] == "tool":
            if not called:
                return message
        else:
            called = message["role"] == "assistant" and bool(message.get("tool_calls"))
    return None


def unanswered_calls(messages: Sequence[Mapping[str, Any]]) -> set[str]:
    """Ids of the first turn of calls that is not followed by a result for each."""
    open_ids: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            open_ids.discard(message.get("tool_call_id", ""))
            continue
        if open_ids:
            return open_ids
        calls = message.get("tool_calls") if message["role"] == "assistant" else None
        open_ids = {str(call.get("id")) for call in calls or () if isinstance(call, dict)}
    return open_ids


def message_directives(document: Any) -> dict[str, str]:
    """The directives in the last user message of whatever body came in."""
    messages = document.get("messages") if isinstance(document, Mapping) else None
    if not isinstance(messages, list):
        return {}
    return directives(last_user_text([message for message in messages if isinstance(message, Mapping)]))


# --- how an answer goes out --------------------------------------------------------------------------------------


class Ending:
    """How an answer ends and what it tells of its usage, unless the call asks for something wrong."""

    __slots__ = ("_usage_fault", "finish_reason")

    def __init__(self, call: Call, answer: Answer) -> None:
        finish = call.fault("finish")
        self.finish_reason = finish.args[0] if finish else answer.finish_reason
        self._usage_fault = call.fault("usage")

    def usage(self, usage: dict[str, Any]) -> dict[str, Any] | None:
        return faults.wrong_usage(self._usage_fault, usage)

    @property
    def usage_trails(self) -> bool:
        """Usage comes in a chunk of its own, after the one that it belongs on."""
        return self._usage_fault is not None and self._usage_fault.args[0] == "trailing"


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
