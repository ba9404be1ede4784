"""MiniMax, simulated: its OpenAI-like endpoint and its native v2, their refusals, and what they silently ignore.

The two differ most in how they fail and end. `/v1/chat/completions` has HTTP statuses, a code in brackets at the end of
the message, a chunk for the usage and sometimes `[DONE]`; `/v1/text/chatcompletion_v2` answers 200 whatever happens,
says so in `base_resp`, and sends the whole message again as its last event.

Sources: platform.minimax.io and platform.minimaxi.com (text-openai-api, errorcode, Chatcompletion_v2), MiniMax-AI/cli,
issues of MiniMax-AI and captures in lobehub, one-hub and GoModel; seen 2026-11. Where they leave a refusal's wording
open the text here is ours; its code is theirs.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from vipcloud.simulators import answers, tokens, vendor
from vipcloud.simulators.answers import Answer, Ask
from vipcloud.simulators.script import (
    NOT_JSON,
    Call,
    Headers,
    Kind,
    Refused,
    Reply,
    Shared,
    SimulatorOptions,
    Whole,
    Write,
    decode,
    encode,
    stream,
    unary,
)
from vipcloud.simulators.throttle import Window
from vipcloud.simulators.toolcalls import ToolCall
from vipcloud.simulators.vendor import Request

JSON_CONTENT = "application/json; charset=utf-8"
EVENT_STREAM = "text/event-stream"
CONCURRENCY_MAX = 1000  # per account; no number is published
REQUESTS_PER_MINUTE_MAX = 500  # per account, over all models
TOKENS_PER_MINUTE_MAX = 20_000_000
PIECE_CHARACTERS_MAX = 100
INVISIBLE_SHARE_MAX = 0.1
ROLES = ("system", "user", "assistant", "tool")
FILLER_USAGE: Mapping[str, int] = {"total_tokens": 0, "total_characters": 0}
UNMARKED: Mapping[str, Any] = {
    "input_sensitive": False,
    "output_sensitive": False,
    "input_sensitive_type": 0,
    "output_sensitive_type": 0,
    "output_sensitive_int": 0,
}
MARKED: Mapping[str, Any] = {
    **UNMARKED,
    "output_sensitive": True,
    "output_sensitive_type": 1,
    "output_sensitive_int": 1,
}


@dataclass(frozen=True, slots=True)
class Model:
    """`thinks`: never, always, or adaptive, which can be switched off. `hottest` is the highest temperature."""

    context_tokens: int
    output_tokens_max: int
    output_tokens_default: int
    thinks: str = "always"
    images: bool = False
    hottest: int = 1
    takes_zero: bool = True


_M2 = Model(204_800, 131_072, 131_072)
TEXT_01 = "MiniMax-Text-01"
MODELS: Mapping[str, Model] = {
    "MiniMax-M3": Model(1_000_000, 524_288, 131_072, thinks="adaptive", images=True, hottest=2),
    "MiniMax-M2.7": _M2,
    "MiniMax-M2.7-highspeed": _M2,
    "MiniMax-M2.5": _M2,
    "MiniMax-M2.5-highspeed": _M2,
    "MiniMax-M2.1": _M2,
    "MiniMax-M2.1-highspeed": _M2,
    "MiniMax-M2": _M2,
    "M2-her": _M2,
    "MiniMax-M1": Model(1_000_000, 80_000, 40_000, takes_zero=False),
    TEXT_01: Model(1_000_192, 1_000_192, 2_048, thinks="never", images=True, takes_zero=False),
}


class MiniMax:
    """See `script.Vendor`."""

    error_event = (
        b'data: {"id":"","choices":null,"created":0,"model":"","object":"","usage":null,'
        b'"base_resp":{"status_code":1000,"status_msg":"unknown error"}}\n\n'
    )

    def __init__(self, options: SimulatorOptions) -> None:
        self.shared = Shared(options)
        self._cache = tokens.PrefixCache()
        self._requests = Window()
        self._tokens = Window()

    def answer(self, call: Call) -> Reply:
        asked = Asked(call, self.shared.next_id(), self.shared.calls)
        try:
            vendor.forced(call)
            forced(asked)
            account = authenticate(asked, self.shared.options)
            return self._route(asked, account)
        except Refused as refused:
            return refused.reply(asked.headers)

    def _route(self, asked: "Asked", account: str) -> Reply:
        match asked.call.method, asked.path:
            case "POST", "/chat/completions" | "/text/chatcompletion_v2":
                return self._chat(asked, account)
            case "GET", "/models":
                return Reply([Whole(200, asked.json_headers, encode(models()))])
        raise Refused(404, b"404 page not found", "text/plain")

    def _chat(self, asked: "Asked", account: str) -> Reply:
        request = asked.call.document
        model = check(asked)
        check_account(asked, account, request["model"])
        answer = answers.plan(ask(asked, model, self.shared.options.seed))
        if answer.prompt_tokens > model.context_tokens:
            raise asked.refused("2013", "context window exceeds limit")
        slot = vendor.account_of(account)
        self._throttle(asked, account, slot, answer.prompt_tokens)
        cached = 0
        if model.thinks != "never":
            cached = self._cache.hit(account, request.get("tools"), request["messages"])
        writer = Writer(asked, model, answer, min(cached, answer.prompt_tokens))
        if request.get("stream"):
            written = writer.native_stream() if asked.native else writer.stream()
            headers = (("content-type", EVENT_STREAM), *asked.headers)
            return Reply(stream(200, headers, vendor.paced(written, answer, self.shared)), slot)
        return Reply(unary(asked.json_headers, writer.document(), vendor.unary_delay_s(answer, self.shared)), slot)

    def _throttle(self, asked: "Asked", account: str, slot: str, asked_tokens: int) -> None:
        """Counts the request for its account: by the published limits where its name says `limited`. Raises Refused."""
        if vendor.full(self.shared, slot, CONCURRENCY_MAX):
            raise asked.refused("1041")
        published = (REQUESTS_PER_MINUTE_MAX, TOKENS_PER_MINUTE_MAX) if "limited" in account else (None, None)
        requests, most_tokens = vendor.limits(self.shared.options, *published)
        now_s = asked.call.wall_s
        if requests is not None and self._requests.wait_s(slot, now_s, requests):
            raise asked.refused("1002")
        if most_tokens is not None and self._tokens.wait_s(slot, now_s, most_tokens, asked_tokens):
            raise asked.refused("1039")
        if requests is not None:
            self._requests.add(slot, now_s)
        if most_tokens is not None:
            self._tokens.add(slot, now_s, asked_tokens)


def models() -> dict[str, Any]:
    listed = [{"id": name, "object": "model", "created": 1_750_000_000, "owned_by": "minimax"} for name in MODELS]
    return {"object": "list", "data": listed}


# --- refusals ----------------------------------------------------------------------------------------------------

# code → statuses seen for it at /v1/chat/completions, the error's type, its words. The statuses take turns: one and the
# same fault has been seen with several, and only the code can be relied on.
CODES: Mapping[str, tuple[tuple[int, ...], str, str]] = {
    "1000": ((500,), "api_error", "unknown error"),
    "1001": ((500, 200), "api_error", "request timeout"),
    "1002": ((200, 429), "rate_limit_error", "rate limit exceeded(RPM)"),
    "1004": ((401, 200), "api_error", "login fail: Please carry the API secret key in the 'Authorization' field of the"
             " request header"),
    "1008": ((402, 429, 500, 200), "insufficient_balance_error", "insufficient balance"),
    "1013": ((500,), "api_error", "internal service error"),
    "1024": ((500,), "api_error", "internal error"),
    "1026": ((400, 200), "bad_request_error", "input new_sensitive"),
    "1027": ((400, 200), "bad_request_error", "output new_sensitive"),
    "1028": ((429,), "rate_limit_error", "plan quota exhausted"),
    "1030": ((429,), "rate_limit_error", "plan quota exhausted"),
    "1033": ((500,), "api_error", "downstream service error"),
    "1039": ((200, 429), "rate_limit_error", "token limit exceeded(TPM)"),
    "1041": ((429,), "rate_limit_error", "connection limit exceeded"),
    "1042": ((400,), "bad_request_error", "the ratio of invisible characters is too high"),
    "2013": ((400,), "bad_request_error", "invalid params"),
    "2044": ((403,), "api_error", "no permission to access this API"),
    "2049": ((401, 200), "api_error", "invalid api key"),
    "2056": ((429,), "rate_limit_error", "usage limit exceeded, resets at 2026-11-26T15:00:00Z"),
    "2061": ((400,), "bad_request_error", "your current token plan not support model"),
}  # fmt: skip
_BY_STATUS = {400: "2013", 401: "1004", 402: "1008", 403: "2044", 408: "1001", 429: "1002", 504: "1001"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A call at one of the two endpoints, with the id of its answer. `number` counts the calls."""

    call: Call
    id: str
    number: int

    @property
    def path(self) -> str:
        return self.call.path.removeprefix("/v1")

    @property
    def native(self) -> bool:
        return self.path == "/text/chatcompletion_v2"

    @property
    def trace(self) -> str:
        return self.id[:32]

    @property
    def headers(self) -> Headers:
        return (
            ("trace-id", self.trace),
            ("x-session-id", self.id[32:]),
            ("x-mm-request-id", f"1000_{int(self.call.wall_s)}"),
            ("minimax-request-id", self.trace),
            ("alb_request_id", self.id[16:48]),
        )

    @property
    def json_headers(self) -> Headers:
        return (("content-type", JSON_CONTENT), *self.headers)

    @property
    def streams(self) -> bool:
        document = self.call.document
        return isinstance(document, dict) and document.get("stream") is True

    def refused(self, code: str, about: str = "", status: int | None = None) -> Refused:
        """The refusal in the words and with the status of this endpoint, unless a `status` is wanted."""
        statuses, kind, words = CODES[code]
        if about:
            words = f"{words}, {about}"
        if status is None:
            status = 200 if self.native else statuses[self.number % len(statuses)]
        if self.native or status == 200:
            return self._in_base_resp(code, words, status)
        return Refused(status, encode(self._envelope(f"{words} ({code})", kind, status)))

    def _envelope(self, message: str, kind: str, status: int) -> dict[str, Any]:
        """One of two: what is wrong with the conversation's content is said in the shorter one."""
        if "chat content" in message:
            return {"error": {"message": message, "type": kind, "param": "", "code": None}}
        error = {"type": kind, "message": message, "http_code": str(status)}
        return {"type": "error", "error": error, "request_id": self.trace}

    def _in_base_resp(self, code: str, words: str, status: int) -> Refused:
        """A JSON body; to whom asked for a stream the first and only event, or a JSON line without `data:`."""
        base = {"status_code": int(code), "status_msg": words}
        if self.native and self.streams and status == 200 and code not in ("1004", "2049"):
            whole = encode({**NO_CHUNK, "id": self.trace, "base_resp": base})
            return Refused(200, whole + b"\n\n" if self.number % 2 else b"data: " + whole + b"\n\n", EVENT_STREAM)
        marks = {"input_sensitive": True, "input_sensitive_type": 1} if code == "1026" else {}
        return Refused(status, encode({"id": self.trace, **marks, "base_resp": base}))


NO_CHUNK: Mapping[str, Any] = {"id": "", "choices": None, "created": 0, "model": "", "object": "", "usage": None}


def forced(asked: Asked) -> None:
    """Raises Refused if the call asks for a refusal of ours, be it with a status that it does not usually have."""
    status = vendor.forced_status(asked.call)
    code = vendor.forced_code(asked.call, CODES)
    if code is None and status is not None:
        code = _BY_STATUS.get(status, "1000" if status >= 500 else "2013")
    if code is not None:
        raise asked.refused(code, status=status)


# --- who calls ---------------------------------------------------------------------------------------------------


def authenticate(asked: Asked, options: SimulatorOptions) -> str:
    """The account. Raises Refused."""
    key = vendor.bearer(asked.call)
    if not key:
        raise asked.refused("1004")
    account = re.sub(r"^sk-(?:api-|cp-)?", "", key)
    if not vendor.known(key, options) or vendor.of_other_region(account, options):
        raise asked.refused("1004" if asked.native else "2049")
    return account


def check_account(asked: Asked, account: str, model: str) -> None:
    """A token plan's key has no balance to pay with for a model that no plan covers. Raises Refused."""
    on_plan = vendor.bearer(asked.call).startswith("sk-cp-")
    if on_plan and "broke" in account:
        raise asked.refused("2056")
    if "broke" in account or (on_plan and model == TEXT_01):
        raise asked.refused("1008")


# --- checks ------------------------------------------------------------------------------------------------------


def check(asked: Asked) -> Model:
    """The model asked for. Raises Refused as MiniMax would. Much is not looked at, and unknown fields pass."""
    request = asked.call.document
    if request is NOT_JSON or not isinstance(request, dict):
        raise asked.refused("2013", "invalid request body")
    name = request.get("model")
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None:
        raise asked.refused("2013", f"unknown model '{name}'")
    problems = (rule(request) for rule in RULES)
    model_problems = (rule(request, model) for rule in MODEL_RULES)
    if problem := next(filter(None, chain(problems, model_problems)), None):
        raise asked.refused("2013", problem)
    if too_invisible(request["messages"]):
        raise asked.refused("1042")
    if wrong := wrong_content(request["messages"], arrays=model.images and (asked.native or name != TEXT_01)):
        raise asked.refused("2013", wrong)
    return model


def wrong_messages(request: Request) -> str | None:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        return "messages must not be empty"
    roles = [message.get("role") for message in messages]
    if roles.count("system") > 1:
        return "invalid chat setting"
    for index, role in enumerate(roles):
        if role not in ROLES or (role == "system" and index):
            return f"chat content has invalid message role: {role}"
    return wrong_turns(messages)


def wrong_turns(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Each result names a call made before, and each call's arguments are JSON."""
    ids: set[str] = set()
    for message in messages:
        for call in (message.get("tool_calls") or ()) if message["role"] == "assistant" else ():
            function = call.get("function") if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            if not isinstance(arguments, str) or not isinstance(decode(arguments.encode()), dict):
                return f"invalid function arguments json string, tool_call_id: {call.get('id')}"
            ids.add(str(call.get("id")))
        if message["role"] == "tool" and str(message.get("tool_call_id")) not in ids:
            return "tool call id is invalid"
    return None


def wrong_content(messages: Sequence[Mapping[str, Any]], *, arrays: bool) -> str | None:
    """Parts are for models that take images, even where they hold only text."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            if not arrays:
                return "content must be a string"
            for part in content:
                kind = part.get("type") if isinstance(part, dict) else None
                if kind != "text" and not (kind in ("image_url", "video_url") and isinstance(part[kind], dict)):
                    return f"unsupported content type: {kind}"
        elif not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            return "content must not be empty"
    return None


_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b-\u200f\u2060-\u2064\ufeff]")


def too_invisible(messages: Sequence[Mapping[str, Any]]) -> bool:
    texts = [text for message in messages if (text := answers.text_of(message))]
    found = sum(len(_INVISIBLE.findall(text)) for text in texts)
    return found > INVISIBLE_SHARE_MAX * sum(map(len, texts))


def wrong_numbers(request: Request, model: Model) -> str | None:
    heat = request.get("temperature")
    if heat is not None and not (vendor.is_number(heat) and 0 <= heat <= model.hottest and (heat or model.takes_zero)):
        return f"temperature must be in {'[' if model.takes_zero else '('}0, {model.hottest}]"
    top_p = request.get("top_p")
    if top_p is not None and not (vendor.is_number(top_p) and 0 < top_p <= 1):
        return "top_p must be in (0, 1]"
    for name in ("max_tokens", "max_completion_tokens"):
        most = request.get(name)
        if most is not None and not (vendor.is_number(most, whole=True) and most >= 1):
            return f"{name} must be positive"
    if request.get("n") not in (None, 1):
        return "n must be 1"
    if not isinstance(request.get("stream"), bool | None):
        return "stream must be a boolean"
    return None


def wrong_tools(request: Request) -> str | None:
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else [tools] if tools is not None else ():
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return "invalid tools"
        if not isinstance(function.get("parameters", {}), dict):
            return f"function {function['name']} parameters must be an object"
    return None


def wrong_thinking(request: Request, model: Model) -> str | None:
    """Only M3 looks at it, and knows two words."""
    thinking = request.get("thinking")
    if thinking is None or model.thinks != "adaptive":
        return None
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    return None if kind in ("adaptive", "disabled") else f"invalid thinking type: {kind}"


def wrong_schema(request: Request, model: Model) -> str | None:
    """Only Text-01 reads a schema, and wants all its properties required."""
    kind, schema = vendor.response_format(request) if isinstance(request.get("response_format"), dict) else ("", None)
    if model.thinks != "never" or kind != "json_schema":
        return None
    if not isinstance(schema, dict):
        return "response_format needs a json_schema"
    missing = set(schema.get("properties") or ()) - set(schema.get("required") or ())
    return f"all fields must be required, and these are not: {', '.join(sorted(missing))}" if missing else None


RULES: tuple[Callable[[Request], str | None], ...] = (wrong_messages, wrong_tools)
MODEL_RULES: tuple[Callable[[Request, Model], str | None], ...] = (wrong_numbers, wrong_thinking, wrong_schema)


# --- answers -----------------------------------------------------------------------------------------------------

_KNOWN_FIELDS = frozenset(
    (
        "model", "messages", "stream", "stream_options", "max_tokens", "temperature", "top_p", "tools", "tool_choice",
        "response_format", "mask_sensitive_info", "stop", "n", "presence_penalty", "frequency_penalty", "logit_bias",
    )
)  # fmt: skip
_KNOWN_TO_M_SERIES = _KNOWN_FIELDS | {"max_completion_tokens", "thinking", "reasoning_split"}


def warning(asked: Asked, model: Model) -> str:
    """What a native answer complains of while it succeeds."""
    known = _KNOWN_FIELDS if model.thinks == "never" else _KNOWN_TO_M_SERIES
    unknown = next((name for name in asked.call.document if name not in known), None)
    return f'Invalid parameters detected, json: unknown field "{unknown}"' if asked.native and unknown else ""


def thinks(request: Request, model: Model) -> bool:
    return model.thinks == "always" or (
        model.thinks == "adaptive" and (request.get("thinking") or {}).get("type") != "disabled"
    )


def ask(asked: Asked, model: Model, seed: int) -> Ask:
    """`stop` is never read; a response format only by Text-01, and of it only a schema: others give JSON where the
    conversation tells them to, in a fence. v2 knows `tool_choice` none, and nothing else but to choose by itself."""
    request = asked.call.document
    chosen = request.get("tool_choice") if asked.native else None
    kind, schema = ("text", None) if model.thinks != "never" else vendor.response_format(request)
    schema = schema if kind == "json_schema" else None
    most = request.get("max_tokens")
    if model.thinks != "never":
        most = request.get("max_completion_tokens") or most
    return Ask(
        messages=request["messages"],
        tools=vendor.functions(request),
        tool_choice="none" if chosen == "none" else "auto",
        json=schema is not None or answers.told_json(request["messages"]),
        schema=schema,
        fenced=schema is None,
        thinking=thinks(request, model),
        output_tokens_max=min(most or model.output_tokens_default, model.output_tokens_max),
        seed=seed,
    )


_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w|https?://\S+")


def masked(asked: Asked, model: Model, text: str) -> str:
    """v2 stars out addresses; the old model unless it is told not to."""
    wanted = asked.call.document.get("mask_sensitive_info", model.thinks == "never")
    return _ADDRESS.sub("***", text) if asked.native and wanted else text


def coarse(text: str, first: int) -> list[str]:
    """`text` in about four pieces, none longer than 100 characters, cut anywhere; the `first` one is shorter."""
    size = min(PIECE_CHARACTERS_MAX, max(3, (len(text) + 3) // 4))
    start = 1 + first % size
    return [text[:start], *(text[place : place + size] for place in range(start, len(text), size))] if text else []


class Writer:
    """One answer in MiniMax's shapes."""

    def __init__(self, asked: Asked, model: Model, answer: Answer, cached_tokens: int) -> None:
        request = asked.call.document
        self._asked = asked
        self._answer = answer
        self._model = request["model"]
        self._created = int(asked.call.wall_s)
        self._thinks = thinks(request, model)
        self._ending = vendor.Ending(asked.call, answer)
        self._blocked = self._ending.finish_reason == "content_filter"
        self._warning = warning(asked, model)
        self._cached_tokens = cached_tokens
        self._wants_usage = vendor.wants_usage(request)
        reasoning = "".join(answer.reasoning)
        text = masked(asked, model, "".join(answer.text))
        split = self._thinks and bool(request.get("reasoning_split"))
        self._reasoning = reasoning if split else ""
        self._text = f"<think>\n{reasoning}\n</think>\n\n{text}" if self._thinks and not split else text
        if answer.calls:
            self._text += "\n"
        self._turn = int(asked.id[0], 16)  # decides where the first cut falls

    def usage(self) -> dict[str, Any] | None:
        answer = self._answer
        usage: dict[str, Any] = {
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            "total_characters": 0,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        }
        if self._thinks:
            usage["completion_tokens_details"] = {"reasoning_tokens": len(answer.reasoning)}
        if self._cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": self._cached_tokens}
        return self._ending.usage(usage)

    def base_resp(self) -> dict[str, Any]:
        if self._blocked and self._asked.native:
            return {"status_code": 1027, "status_msg": CODES["1027"][2]}
        return {"status_code": 0, "status_msg": self._warning}

    # --- whole

    def document(self) -> bytes:
        return encode(self._whole())

    def _whole(self) -> dict[str, Any]:
        withheld = self._blocked and self._asked.native
        message: dict[str, Any] = {"content": "" if withheld else self._text, **NAMED}
        if self._reasoning:
            message |= self._thought(self._reasoning)
        if self._answer.calls:
            message["tool_calls"] = [self._tool_call(index, call) for index, call in enumerate(self._answer.calls)]
        document: dict[str, Any] = {
            "id": self._asked.trace,
            "choices": [{"finish_reason": self._ending.finish_reason, "index": 0, "message": message}],
            "created": self._created,
            "model": self._model,
            "object": "chat.completion",
        }
        if (usage := self.usage()) is not None:
            document["usage"] = usage
        return {**document, **(MARKED if self._blocked else UNMARKED), "base_resp": self.base_resp()}

    def _thought(self, text: str) -> dict[str, Any]:
        detail = {
            "type": "reasoning.text",
            "id": "reasoning-text-1",
            "format": "MiniMax-response-v1",
            "index": 0,
            "text": text,
        }
        return {"reasoning_content": text, "reasoning_details": [detail]}

    def _call_id(self, index: int) -> str:
        return f"call_function_{self._asked.id[48:60]}_{index + 1}"

    def _tool_call(self, index: int, call: ToolCall) -> dict[str, Any]:
        function = {"name": call.name, "arguments": "".join(call.arguments)}
        return {"id": self._call_id(index), "type": "function", "function": function, "index": index}

    # --- in pieces

    def stream(self) -> Iterator[Write]:
        """`/v1/chat/completions`: the finish chunk brings the last of the text, the usage comes by itself where it was
        asked for. `[DONE]` comes after calls of tools, and else the stream just ends."""
        if self._model.startswith("MiniMax-M2.5"):
            yield self._chunk({"role": "", "reasoning_content": ""}, kind="open", nameless=True)
        calls = self._answer.calls
        *deltas, last = self._deltas() or [{}]
        yield from self._written([*deltas, last] if calls and last else deltas)
        for index, call in enumerate(calls):
            yield from self._fragments(index, call)
        yield self._chunk({} if calls else last, kind="finish")
        yield from self._usage_chunk()
        if calls:
            yield Write(b"data: [DONE]\n\n", "done")

    def native_stream(self) -> Iterator[Write]:
        """v2: calls, usage and the whole text come in one more event after the finish chunk. There is no `[DONE]`."""
        *deltas, last = self._deltas() or [{"content": "", **NAMED}]
        yield from self._written(deltas)
        if self._blocked:
            broken = {**NO_CHUNK, "id": self._asked.trace, "base_resp": self.base_resp()}
            yield Write(b"data: " + encode(broken) + b"\n\n", "error")
            return
        yield self._chunk(last, kind="finish")
        replay = self._whole()
        trailing = replay.pop("usage", None) if self._ending.usage_trails else None
        yield Write(b"data: " + encode(replay) + b"\n\n", "usage")
        if trailing is not None:
            yield self._event(choices=[], usage=trailing)

    def _deltas(self) -> list[dict[str, Any]]:
        """Reasoning, then text. The first delta of a reasoning stream has no `content`."""
        thoughts = [{"content": "", **NAMED, **self._thought(piece)} for piece in coarse(self._reasoning, self._turn)]
        if thoughts:
            del thoughts[0]["content"]
        return [*thoughts, *({"content": piece, **NAMED} for piece in coarse(self._text, self._turn))]

    def _written(self, deltas: Sequence[dict[str, Any]]) -> Iterator[Write]:
        """M2.5 leaves every other role empty, the fast models leave it out."""
        for place, delta in enumerate(deltas):
            if place % 2 and self._model.startswith("MiniMax-M2.5"):
                yield self._chunk({**delta, "role": ""})
            elif place % 2 and self._model.endswith("-highspeed"):
                yield self._chunk({name: value for name, value in delta.items() if name != "role"})
            else:
                yield self._chunk(delta)

    def _fragments(self, index: int, call: ToolCall) -> Iterator[Write]:
        """Id, name and the first arguments together; later fragments have index and type."""
        first, *rest = coarse("".join(call.arguments), self._turn + 1) or [""]
        named = {"id": self._call_id(index), "function": {"arguments": first, "name": call.name}}
        fragments: list[dict[str, Any]] = [named, *({"function": {"arguments": piece}} for piece in rest)]
        for fragment in fragments:
            called = [{**fragment, "type": "function", "index": index}]
            yield self._event([{"index": 0, "delta": {"content": "", **NAMED, "tool_calls": called}}], kind="delta")

    def _usage_chunk(self) -> Iterator[Write]:
        """In a chunk without choices; after calls beside an empty delta."""
        usage = self.usage()
        if usage is None or not self._wants_usage:
            return
        if self._answer.calls:
            yield self._event([{"index": 0, "delta": {}}], usage=usage)
        else:
            yield self._event([], usage=usage, base_resp=self.base_resp())

    def _chunk(self, delta: Mapping[str, Any], *, kind: Kind = "delta", nameless: bool = False) -> Write:
        choice: dict[str, Any] = {"index": 0, "delta": delta}
        more: dict[str, Any] = {}
        if kind == "finish":
            choice = {"finish_reason": self._ending.finish_reason, **choice}
        if self._asked.native or self._model.startswith("MiniMax-M2.5"):
            more["usage"] = FILLER_USAGE
        elif not self._model.endswith("-highspeed"):
            more["usage"] = None
        marks = MARKED if self._blocked and kind == "finish" else UNMARKED
        return self._event([choice], kind=kind, nameless=nameless, **more, **marks)

    def _event(
        self, choices: Sequence[Mapping[str, Any]], *, kind: Kind = "usage", nameless: bool = False, **more: Any
    ) -> Write:
        chunk: dict[str, Any] = {} if nameless else {"id": self._asked.trace, "model": self._model}
        chunk |= {"created": self._created, "object": "chat.completion.chunk", "choices": choices, **more}
        return Write(b"data: " + encode(chunk) + b"\n\n", kind)


NAMED = {"role": "assistant", "name": "MiniMax AI", "audio_content": ""}
