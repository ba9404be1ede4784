"""DeepSeek, simulated: wire shapes, refusals and habits as its public documentation and live captures show them.

Sources: api-docs.deepseek.com (Create Chat Completion, Thinking Mode, Error Codes, Rate Limit), captures in
lm15-dev/lm15-contract, vercel/ai and pydantic/pydantic-ai; seen 2026-11. Where they leave a refusal's wording open the
text here is ours, its status and its marker words are theirs.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vipcloud.simulators import answers, faults, vendor
from vipcloud.simulators.answers import Answer
from vipcloud.simulators.script import (
    NOT_JSON,
    Call,
    Headers,
    Refused,
    Reply,
    Shared,
    SimulatorOptions,
    Step,
    Whole,
    Write,
    encode,
    stream,
    unary,
)
from vipcloud.simulators.tokens import PrefixCache
from vipcloud.simulators.toolcalls import ToolCall
from vipcloud.simulators.vendor import Request

FINGERPRINT = "fp_eaab8d114b_prod0820_fp8_kvcache"
CONTEXT_TOKENS = 1_048_576
OUTPUT_TOKENS_MAX = 393_216
CONCURRENCY_MAX = {"deepseek-flash": 2500, "deepseek-v4-pro": 500}  # in flight per account
SERVED_AS = {
    "deepseek-flash": "deepseek-flash",
    "deepseek-v4-pro": "deepseek-v4-pro",
    "deepseek-v4-flash": "deepseek-flash",
    "deepseek-v4-flash-vision-exp": "deepseek-flash",
}
SEES_IMAGES = frozenset(("deepseek-flash",))
IMAGES_MAX = 600
TOOLS_MAX = 128
STOPS_MAX = 16
ROLES = ("system", "user", "assistant", "tool", "latest_reminder")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
EVENT_STREAM = "text/event-stream; charset=utf-8"

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_USER_ID = re.compile(r"[a-zA-Z0-9_-]{1,512}")


class DeepSeek:
    """See `script.Vendor`."""

    error_event = (
        b'data: {"error":{"message":"Internal Server Error","type":"server_error","param":null,'
        b'"code":"internal_error"}}\n\n'
    )

    def __init__(self, options: SimulatorOptions) -> None:
        self.shared = Shared(options)
        self._cache = PrefixCache()

    def answer(self, call: Call) -> Reply:
        trace = self.shared.next_id()
        headers: Headers = (("server", "elb"), ("x-ds-trace-id", trace[:32]))
        try:
            vendor.forced(call)
            forced(call)
            account = authenticate(call, self.shared.options)
            return self._route(call, account, headers, trace)
        except Refused as refused:
            return refused.reply(headers)

    def _route(self, call: Call, account: str, headers: Headers, trace: str) -> Reply:
        path = re.sub(r"^/(?:v1|beta)(?=/)", "", call.path)
        json_headers = (("content-type", "application/json"), *headers)
        match call.method, path:
            case "POST", "/chat/completions":
                return self._chat(call, account, headers, trace)
            case "GET", "/models":
                return Reply([Whole(200, json_headers, encode(models()))])
            case "GET", "/user/balance":
                return Reply([Whole(200, json_headers, encode(balance(account)))])
        # The captures show no body for an unknown path; this one is not OpenAI's envelope, as the real one is not.
        raise Refused(404, b'{"error_msg":"Not Found. Please check the configuration."}')

    def _chat(self, call: Call, account: str, headers: Headers, trace: str) -> Reply:
        request = call.document
        check(request, call.body)
        model = SERVED_AS[request["model"]]
        if "broke" in account:
            raise error(402, "Insufficient Balance", kind="unknown_error")
        slot = f"{vendor.account_of(account)}/{model}"
        if vendor.full(self.shared, slot, CONCURRENCY_MAX[model]):
            raise by_status(429)
        most = request.get("max_tokens") or OUTPUT_TOKENS_MAX
        asked = vendor.ask(request, thinking=thinks(request), output_tokens_max=most, seed=self.shared.options.seed)
        if call.path.startswith("/beta/"):
            asked = vendor.carried_on(asked, "prefix")
        answer = answers.plan(asked)
        check_context(answer.prompt_tokens, request.get("max_tokens"))
        cached = min(self._cache.hit(account, request.get("tools"), request["messages"]), answer.prompt_tokens)
        queued = Queue.of(answer, self.shared.options.keep_alive_every, self.shared.calls)
        writer = Writer(call, request, model, answer, cached, trace)
        if request.get("stream"):
            writes = vendor.paced(writer.stream(queued), answer, self.shared)
            return Reply(stream(200, (("content-type", EVENT_STREAM), *headers), writes), slot)
        json_headers = (("content-type", "application/json"), *headers)
        delay_s = vendor.unary_delay_s(answer, self.shared)
        return Reply(out_of_queue(writer.document(), json_headers, queued, delay_s), slot)


def out_of_queue(body: bytes, headers: Headers, queued: "Queue", delay_s: float) -> Iterator[Step]:
    if queued.lines:
        writes = [*(Write(b"\n", "comment", queued.every_s) for _ in range(queued.lines)), Write(body, "body", delay_s)]
        yield from stream(200, headers, iter(writes))
    else:
        yield from unary(headers, body, delay_s)


class Queue:
    """Waiting for a machine: keep-alive lines, `every_s` apart."""

    __slots__ = ("every_s", "lines")

    def __init__(self, lines: int, every_s: float) -> None:
        self.lines = lines
        self.every_s = every_s

    @classmethod
    def of(cls, answer: Answer, keep_alive_every: int, call_number: int) -> "Queue":
        """As the message's `queue_ms` wants it; else an occasional line that takes no time."""
        queue_ms = answer.milliseconds("queue_ms", 0)
        if queue_ms:
            every_ms = max(1.0, answer.milliseconds("keep_alive_ms", 1000))
            return cls(max(1, int(queue_ms // every_ms)), min(queue_ms, every_ms) / 1000)
        return cls(2 if keep_alive_every and call_number % keep_alive_every == 0 else 0, 0.0)


def models() -> dict[str, Any]:
    listed = [{"id": name, "object": "model", "owned_by": "deepseek"} for name in CONCURRENCY_MAX]
    return {"object": "list", "data": listed}


def balance(account: str) -> dict[str, Any]:
    available = "broke" not in account
    amount = "110.00" if available else "0.00"
    info = {"currency": "CNY", "total_balance": amount, "granted_balance": "0.00", "topped_up_balance": amount}
    return {"is_available": available, "balance_infos": [info]}


# --- refusals ----------------------------------------------------------------------------------------------------


def error(status: int, message: str, kind: str = "invalid_request_error") -> Refused:
    """`code` says `invalid_request_error` whatever happened, 401 and 402 included."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": "invalid_request_error"}}
    return Refused(status, encode(body))


def bad(message: str) -> Refused:
    return error(400, message)


def shape(problem: str, body: bytes = b"") -> Refused:
    return bad(f"Failed to deserialize the JSON body into the target type: {problem} at line 1 column {len(body)}")


_BY_STATUS = {
    400: ("Invalid request", "invalid_request_error"),
    401: ("Authentication Fails, Your api key: ****alid is invalid", "authentication_error"),
    402: ("Insufficient Balance", "unknown_error"),
    403: ("Forbidden", "permission_error"),
    429: ("Rate limit reached for requests, please pace your requests reasonably.", "rate_limit_error"),
    500: ("Internal Server Error", "server_error"),
    503: ("Service is too busy. We advise users to temporarily switch to alternative providers.", "server_error"),
}
_BY_CODE = {
    "risk": (400, "Content Exists Risk"),
    "model": (400, "The supported API model names are deepseek-flash or deepseek-v4-pro, but you passed X."),
    "context": (
        400,
        f"This model's maximum context length is {CONTEXT_TOKENS} tokens. However, you requested 2000000 tokens"
        " (2000000 in the messages, 0 in the completion). Please reduce the length of the messages or completion.",
    ),
    "reasoning": (400, "The `reasoning_content` in the thinking mode must be passed back to the API."),
    "parse": (400, "Failed to parse the request body as JSON: trailing characters at line 1 column 9"),
    "auth": (401, "Authentication Fails, Your api key: ****alid is invalid"),
    "balance": (402, "Insufficient Balance"),
    "rate": (429, "Rate limit reached for requests, please pace your requests reasonably."),
}


def by_status(status: int) -> Refused:
    """The usual body for a status. 413 and 422 come as plain text."""
    if status == 413:
        return Refused(413, b"Payload Too Large", "text/plain")
    if status == 422:
        return Refused(422, b"Failed to deserialize the JSON body into the target type: invalid value", "text/plain")
    message, kind = _BY_STATUS.get(status, ("Internal Server Error", "server_error"))
    return error(status, message, kind)


def forced(call: Call) -> None:
    """Raises Refused if the call asks for a refusal of ours."""
    if wanted := vendor.forced_status(call):
        raise by_status(wanted)
    if code := vendor.forced_code(call, _BY_CODE):
        status, message = _BY_CODE[code]
        raise error(status, message, _BY_STATUS[status][1])


def authenticate(call: Call, options: SimulatorOptions) -> str:
    """The key without its `sk-`. Raises Refused (401)."""
    key = vendor.bearer(call)
    if not key:
        raise error(401, "Authentication Fails (auth header format should be Bearer sk-...)", "authentication_error")
    if not vendor.known(key, options):
        raise error(401, f"Authentication Fails, Your api key: ****{key[-4:]} is invalid", "authentication_error")
    return key.removeprefix("sk-")


# --- checks ------------------------------------------------------------------------------------------------------


def check(request: Any, body: bytes) -> None:
    """Raises Refused as DeepSeek would. Unknown fields are ignored."""
    if request is NOT_JSON:
        raise bad("Failed to parse the request body as JSON: expected value at line 1 column 1")
    if not isinstance(request, dict):
        raise shape("invalid type, expected struct ChatCompletionRequest", body)
    for name in ("model", "messages"):
        if name not in request:
            raise shape(f"missing field `{name}`", body)
    for rule in RULES:
        rule(request)


def check_model(request: Request) -> None:
    model = request["model"]
    if not isinstance(model, str) or model not in SERVED_AS:
        names = " or ".join(CONCURRENCY_MAX)
        raise bad(f"The supported API model names are {names}, but you passed {model}.")


def thinks(request: Request) -> bool:
    """Thinking is on unless it is switched off."""
    thinking = request.get("thinking")
    if isinstance(thinking, dict):
        return thinking.get("type") == "enabled"
    return request.get("reasoning_effort") != "none"


def check_thinking(request: Request) -> None:
    thinking = request.get("thinking")
    if thinking is not None and (not isinstance(thinking, dict) or thinking.get("type") not in ("enabled", "disabled")):
        raise shape("thinking.type: unknown variant, expected `enabled` or `disabled`")
    effort = request.get("reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        expected = ", ".join(f"`{name}`" for name in EFFORTS)
        raise shape(f"reasoning_effort: unknown variant `{effort}`, expected one of {expected}")


# name, must it be whole, least, most
RANGES: tuple[tuple[str, bool, float, float], ...] = (
    ("temperature", False, 0, 2),
    ("top_p", False, 0, 1),
    ("presence_penalty", False, -2, 2),
    ("frequency_penalty", False, -2, 2),
    ("max_tokens", True, 1, OUTPUT_TOKENS_MAX),
    ("top_logprobs", True, 0, 20),
    ("n", True, 1, 1),
)


def check_numbers(request: Request) -> None:
    for name, whole, low, high in RANGES:
        value = request.get(name)
        if value is None:
            continue
        if not vendor.is_number(value, whole=whole):
            raise shape(f"{name}: invalid type")
        if not low <= value <= high:
            raise bad(f"Invalid {name} value, the valid range of {name} is [{low}, {high}]")
    for name in ("stream", "logprobs"):
        if request.get(name) is not None and not isinstance(request[name], bool):
            raise shape(f"{name}: invalid type, expected a boolean")
    if request.get("top_logprobs") is not None and not request.get("logprobs"):
        raise bad("Invalid top_logprobs value, logprobs must be true when top_logprobs is set")


def check_stop(request: Request) -> None:
    stop = request.get("stop")
    if stop is None or isinstance(stop, str):
        return
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise shape("stop: data did not match any variant of untagged enum Stop")
    if len(stop) > STOPS_MAX:
        raise bad(f"Invalid stop value, at most {STOPS_MAX} stop sequences are supported")


def check_user(request: Request) -> None:
    user_id = request.get("user_id")
    if user_id is not None and not (isinstance(user_id, str) and _USER_ID.fullmatch(user_id)):
        raise bad("Invalid user_id, it must match ^[a-zA-Z0-9_-]+$ and have at most 512 characters")


def check_tools(request: Request) -> None:
    tools = request.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise shape("tools: invalid type, expected a sequence")
    if len(tools) > TOOLS_MAX:
        raise bad(f"Invalid tools, at most {TOOLS_MAX} functions are supported")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise shape(f"tools[{index}].type: unknown variant, expected `function`")
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise bad(f"Invalid 'tools[{index}].function.name': string does not match pattern ^[a-zA-Z0-9_-]+$")


def check_tool_choice(request: Request) -> None:
    choice = request.get("tool_choice")
    if choice is None or choice in ("none", "auto"):
        return
    named = isinstance(choice, dict) and isinstance(choice.get("function"), dict)
    if choice != "required" and not named:
        raise shape("tool_choice: data did not match any variant of untagged enum ToolChoice")
    if thinks(request):
        raise bad("Thinking mode does not support this tool_choice")
    offered = [tool["function"]["name"] for tool in request.get("tools") or ()]
    if not offered or (isinstance(choice, dict) and choice["function"].get("name") not in offered):
        raise bad("Invalid tool_choice, the function is not in tools")


def check_response_format(request: Request) -> None:
    wanted = request.get("response_format")
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema":
        raise bad("This response_format type is unavailable now")
    if kind not in ("text", "json_object"):
        raise shape("response_format.type: unknown variant, expected `text` or `json_object`")
    if kind == "json_object" and not any("json" in answers.text_of(m).lower() for m in request["messages"]):
        raise bad("Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.")


def check_messages(request: Request) -> None:
    messages = request["messages"]
    if not isinstance(messages, list):
        raise shape("messages: invalid type, expected a sequence")
    if not messages:
        raise bad("Empty input messages")
    sees = SERVED_AS[request["model"]] in SEES_IMAGES
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise shape(f"messages[{index}]: invalid type, expected struct Message")
        check_message(message, index, sees=sees)
    check_tool_results(messages)
    if sum(len(answers.image_urls(message.get("content"))) for message in messages) > IMAGES_MAX:
        raise bad(f"Too many images, at most {IMAGES_MAX} are supported")


def check_message(message: Mapping[str, Any], index: int, *, sees: bool) -> None:
    role = message.get("role")
    if role is None:
        raise shape(f"messages[{index}]: missing field `role`")
    if role not in ROLES:
        expected = ", ".join(f"`{name}`" for name in ROLES)
        raise shape(f"messages[{index}].role: unknown variant `{role}`, expected one of {expected}")
    content = message.get("content")
    if content is None:
        if role != "assistant":
            raise shape(f"messages[{index}]: missing field `content`")
        if not message.get("tool_calls"):
            raise bad("Invalid assistant message: content or tool_calls must be set")
    elif isinstance(content, list):
        check_parts(content, index, role, sees=sees)
    elif not isinstance(content, str):
        raise shape(f"messages[{index}]: data did not match any variant of untagged enum ChatCompletionRequestContent")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise shape(f"messages[{index}]: missing field `tool_call_id`")


def check_parts(parts: Sequence[Any], index: int, role: str, *, sees: bool) -> None:
    """Arrays are for users, at a model that takes images; elsewhere they are refused even if they hold only text."""
    if role != "user":
        raise shape(f"messages[{index}]: invalid type: sequence, expected a string")
    if not sees:
        raise shape(f"messages[{index}]: data did not match any variant of untagged enum ChatCompletionRequestContent")
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            continue
        if kind == "image_url" and answers.image_urls([part]):
            continue
        if kind == "file" and "file_id" in part:
            continue
        raise shape(f"messages[{index}].content: unknown variant `{kind}`, expected `text`, `image_url` or `file`")


def check_tool_results(messages: Sequence[Mapping[str, Any]]) -> None:
    """Each call of an assistant is answered by a tool message right behind it, and nothing else is."""
    if vendor.orphan_result(messages):
        raise bad("Messages with role 'tool' must be a response to a preceding message with 'tool_calls'")
    if vendor.unanswered_calls(messages):
        raise bad(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
            " 'tool_call_id'. (insufficient tool messages following tool_calls message)"
        )


def check_reasoning(request: Request) -> None:
    """With thinking and tools each earlier turn of the assistant brings its reasoning back; "" is enough."""
    if not thinks(request) or not request.get("tools"):
        return
    for message in request["messages"]:
        if message["role"] == "assistant" and not isinstance(message.get("reasoning_content"), str):
            raise bad("The `reasoning_content` in the thinking mode must be passed back to the API.")


RULES: tuple[Callable[[Request], None], ...] = (
    check_model,
    check_thinking,
    check_messages,
    check_numbers,
    check_stop,
    check_user,
    check_tools,
    check_tool_choice,
    check_response_format,
    check_reasoning,
)


def check_context(prompt_tokens: int, max_tokens: int | None) -> None:
    asked = prompt_tokens + (max_tokens or 0)
    if prompt_tokens >= CONTEXT_TOKENS or asked > CONTEXT_TOKENS + OUTPUT_TOKENS_MAX:
        raise bad(
            f"This model's maximum context length is {CONTEXT_TOKENS} tokens. However, you requested {asked} tokens"
            f" ({prompt_tokens} in the messages, {max_tokens or 0} in the completion). Please reduce the length of the"
            " messages or completion."
        )


# --- answers -----------------------------------------------------------------------------------------------------


class Writer:
    """One answer in DeepSeek's shapes."""

    def __init__(
        self, call: Call, request: Request, model: str, answer: Answer, cached_tokens: int, trace: str
    ) -> None:
        self._answer = answer
        self._id = f"{trace[:8]}-{trace[8:12]}-4{trace[13:16]}-a{trace[17:20]}-{trace[20:32]}"
        self._created = int(call.wall_s)
        self._model = model
        self._trace = trace
        self._thinking = thinks(request)
        self._logprobs = bool(request.get("logprobs")) and not self._thinking
        self._ending = vendor.Ending(call, answer)
        self._cached_tokens = cached_tokens

    def usage(self) -> dict[str, Any] | None:
        answer = self._answer
        usage: dict[str, Any] = {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens},
        }
        if self._thinking:
            usage["completion_tokens_details"] = {"reasoning_tokens": len(answer.reasoning)}
        usage["prompt_cache_hit_tokens"] = self._cached_tokens
        usage["prompt_cache_miss_tokens"] = answer.prompt_tokens - self._cached_tokens
        return self._ending.usage(usage)

    def document(self) -> bytes:
        answer = self._answer
        message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.text)}
        if self._thinking:
            message["reasoning_content"] = "".join(answer.reasoning)
        if answer.calls:
            message["tool_calls"] = [
                {"index": index, "id": self.call_id(index), "type": "function", "function": function(call)}
                for index, call in enumerate(answer.calls)
            ]
        document: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": logprobs(answer.text) if self._logprobs else None,
                    "finish_reason": self._ending.finish_reason,
                }
            ],
        }
        if (usage := self.usage()) is not None:
            document["usage"] = usage
        return encode({**document, "system_fingerprint": FINGERPRINT})

    def call_id(self, index: int) -> str:
        return f"call_{index:02}_{self._trace[32 + index % 8 : 56 + index % 8]}"

    def stream(self, queued: Queue) -> Iterator[Write]:
        for _ in range(queued.lines):
            yield Write(faults.KEEP_ALIVE, "comment", queued.every_s)
        before = self._before()
        after = b',"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
        opening = b'{"role":"assistant","content":""}'
        if self._thinking:
            opening = b'{"role":"assistant","content":null,"reasoning_content":""}'
        yield Write(before + opening + after, "open")
        start = before + b'{"content":null,"reasoning_content":'
        for piece in self._answer.reasoning:
            yield Write(start + encode(piece) + b"}" + after, "delta")
        yield from self._text(before, after)
        for index, call in enumerate(self._answer.calls):
            first = {"index": index, "id": self.call_id(index), "type": "function"}
            named = encode({"tool_calls": [{**first, "function": {"name": call.name, "arguments": ""}}]})
            yield Write(before + named + after, "delta")
            start = before + b'{"tool_calls":[{"index":%d,"function":{"arguments":' % index
            for piece in call.arguments:
                yield Write(start + encode(piece) + b"}}]}" + after, "delta")
        yield from self._end(before)
        yield Write(b"data: [DONE]\n\n", "done")

    def _before(self) -> bytes:
        """What every chunk begins with, up to its delta."""
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        fixed = encode({**head, "system_fingerprint": FINGERPRINT})[:-1]
        return b"data: " + fixed + b',"choices":[{"index":0,"delta":'

    def _text(self, before: bytes, after: bytes) -> Iterator[Write]:
        start = before + b'{"content":'
        close = b',"reasoning_content":null}' if self._thinking else b"}"
        if not self._logprobs:
            end = close + after
            for piece in self._answer.text:
                yield Write(start + encode(piece) + end, "delta")
            return
        for piece in self._answer.text:
            chances = encode(logprobs([piece]))
            yield Write(
                b"".join((start, encode(piece), close, b',"logprobs":', chances, after[len(b',"logprobs":null') :])),
                "delta",
            )

    def _end(self, before: bytes) -> Iterator[Write]:
        """The finish chunk, which carries the usage; in a chunk of its own where a fault wants that."""
        delta = b'{"content":"","reasoning_content":null}' if self._thinking else b'{"content":""}'
        finish = before + delta + b',"logprobs":null,"finish_reason":' + encode(self._ending.finish_reason) + b"}]"
        usage = encode(self.usage())
        if self._ending.usage_trails:
            yield Write(finish + b',"usage":null}\n\n', "finish")
            choices = before[: before.rindex(b'[{"index"')]
            yield Write(choices + b'[],"usage":' + usage + b"}\n\n", "usage")
        else:
            yield Write(finish + b',"usage":' + usage + b"}\n\n", "finish")


def function(call: ToolCall) -> dict[str, str]:
    return {"name": call.name, "arguments": "".join(call.arguments)}


def logprobs(pieces: Sequence[str]) -> dict[str, Any]:
    return {
        "content": [
            {"token": piece, "logprob": -0.01, "bytes": list(piece.encode()), "top_logprobs": []} for piece in pieces
        ]
    }
