"""Moonshot (Kimi), simulated: wire shapes, refusals, and what it pins, checks and silently ignores.

Sources: platform.kimi.com (Chat, Errors, Tool Use, Balance), MoonshotAI/kimi-help-center, kimi-cli and kimi-code,
captures in lm15-dev/lm15-contract; seen 2026-11. Where they leave a refusal's wording open the text here is ours, its
status, its type and its marker words are theirs.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vipcloud.simulators import answers, tokens, vendor
from vipcloud.simulators.answers import Answer
from vipcloud.simulators.script import (
    NOT_JSON,
    Call,
    Headers,
    Refused,
    Reply,
    Shared,
    SimulatorOptions,
    Whole,
    Write,
    encode,
    stream,
    unary,
)
from vipcloud.simulators.throttle import Window
from vipcloud.simulators.vendor import Request

FINGERPRINT = "fpv0_5de57c9a"
CONTENT_JSON = (("content-type", "application/json; charset=utf-8"),)
EVENT_STREAM = (("content-type", "text/event-stream; charset=utf-8"),)
ROLES = ("system", "user", "assistant", "tool")
TOOLS_MAX = 128
STOPS_MAX = 5
STOP_BYTES_MAX = 32
IMAGE_TOKENS = 1024
CODING_BYTES_MAX = 2 << 20  # of a body to the subscription's endpoint
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Model:
    """`always_thinks`: it takes no notice of `thinking`. `ids` is the form of its tool call ids."""

    context_tokens: int
    output_tokens: int  # where the request names no limit; 131,072 is documented for kimi-k3, the rest assumed
    always_thinks: bool = False
    vision: bool = False
    ids: str = "{name}:{index}"


MODELS: Mapping[str, Model] = {
    "kimi-k3": Model(1_048_576, 131_072, ids="{name}_{index}"),
    "kimi-k2.7-code": Model(262_144, 32_768, always_thinks=True),
    "kimi-k2.7-code-highspeed": Model(262_144, 32_768, always_thinks=True),
    "kimi-k2.6": Model(262_144, 32_768, vision=True),
}


@dataclass(frozen=True, slots=True)
class Tier:
    """Limits of an organisation, all its models and keys together. None: the simulator sets no limit."""

    concurrency: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


# By a word in the key. Of the numbers only the requests per minute are published today; the rest is assumed.
TIERS: Mapping[str, Tier] = {
    "tier0": Tier(3, 3, 500_000, 1_500_000),
    "tier1": Tier(50, 100, 2_000_000),
}
TOP_TIER = Tier(1000)


class Moonshot:
    """See `script.Vendor`."""

    error_event = (
        b'data: {"error":{"message":"The engine is currently overloaded, please try again later",'
        b'"type":"engine_overloaded_error"}}\n\n'
    )

    def __init__(self, options: SimulatorOptions) -> None:
        self.shared = Shared(options)
        self._cache = tokens.PrefixCache()
        self._requests = Window()
        self._tokens = Window()
        self._tokens_of_day = Window(DAY_S)

    def answer(self, call: Call) -> Reply:
        serial = self.shared.next_id()
        headers: Headers = (
            ("msh-request-id", f"{serial[:8]}-{serial[8:12]}-11f1-{serial[12:16]}-{serial[16:28]}"),
            ("server-timing", "inner; dur=12"),
            ("x-trace-id", serial[32:]),
        )
        try:
            vendor.forced(call)
            account = authenticate(call, self.shared.options)
            headers += (("msh-uid", f"u-{account}"), ("msh-gid", organisation(account)))
            forced(call, account)
            return self._route(call, account, headers, serial)
        except Refused as refused:
            return refused.reply(headers)

    def _route(self, call: Call, account: str, headers: Headers, serial: str) -> Reply:
        prefix = re.match(r"/coding/v1(?=/)|/v1(?=/)", call.path)
        path = call.path[prefix.end() :] if prefix else call.path
        json_headers = (*CONTENT_JSON, *headers)
        match call.method, path:
            case "POST", "/chat/completions":
                return self._chat(call, account, headers, serial)
            case "POST", "/tokenizers/estimate-token-count":
                return Reply([Whole(200, json_headers, encode(estimate(call.document)))])
            case "GET", "/models":
                return Reply([Whole(200, json_headers, encode(models()))])
            case "GET", "/users/me/balance":
                return Reply([Whole(200, json_headers, encode(balance(account)))])
        raise error("resource_not_found_error", f"The requested resource {call.path} was not found")

    def _chat(self, call: Call, account: str, headers: Headers, serial: str) -> Reply:
        request = call.document
        model = check(call)
        if "broke" in account:
            raise by_code("exceeded_current_quota_error", account)
        thinking = thinks(request, model)
        most = output_tokens(request) or model.output_tokens
        asked = vendor.ask(request, thinking=thinking, output_tokens_max=most, seed=self.shared.options.seed)
        answer = answers.plan(replace(vendor.carried_on(asked, "partial"), image_tokens=IMAGE_TOKENS))
        check_context(answer.prompt_tokens, output_tokens(request), model)
        slot = vendor.account_of(account)
        headers += self._throttle(call, account, slot, answer.prompt_tokens + most)
        cached = min(self._cache.hit(account, request.get("tools"), request["messages"]), answer.prompt_tokens)
        writer = Writer(call, model, answer, cached, serial, thinking=thinking)
        if request.get("stream"):
            writes = vendor.paced(writer.stream(), answer, self.shared)
            return Reply(stream(200, (*EVENT_STREAM, *headers), writes), slot)
        delay_s = vendor.unary_delay_s(answer, self.shared)
        return Reply(unary((*CONTENT_JSON, *headers), writer.document(), delay_s), slot)

    def _throttle(self, call: Call, account: str, slot: str, asked_tokens: int) -> Headers:
        """Counts the request for its organisation; what is left of its requests. Tokens are what it might cost, not
        what it will: an answer without a limit counts with the model's default. Raises Refused (429), which counts for
        nothing."""
        tier = next((tier for word, tier in TIERS.items() if word in account), TOP_TIER)
        options = self.shared.options
        concurrency = tier.concurrency if options.concurrency_max is None else options.concurrency_max
        if vendor.full(self.shared, slot, concurrency):
            raise limited(account, f"max organization concurrency: {concurrency}", 1)
        requests, most_tokens = vendor.limits(options, tier.requests_per_minute, tier.tokens_per_minute)
        now_s = call.wall_s
        if requests is not None and (wait_s := self._requests.wait_s(slot, now_s, requests)):
            raise limited(account, f"organization max RPM: {requests}", wait_s)
        if most_tokens is not None and (wait_s := self._tokens.wait_s(slot, now_s, most_tokens, asked_tokens)):
            used = self._tokens.used(slot, now_s)
            raise limited(account, f"organization TPM rate limit, current: {used}, limit: {most_tokens}", wait_s)
        today = tier.tokens_per_day
        if today is not None and self._tokens_of_day.wait_s(slot, now_s, today, asked_tokens):
            used = self._tokens_of_day.used(slot, now_s)
            raise limited(account, f"organization TPD rate limit, current: {used}, limit: {today}")
        if most_tokens is not None:
            self._tokens.add(slot, now_s, asked_tokens)
        if today is not None:
            self._tokens_of_day.add(slot, now_s, asked_tokens)
        if requests is None:
            return ()
        self._requests.add(slot, now_s)
        return (
            ("x-ratelimit-limit", str(requests)),
            ("x-ratelimit-remaining", str(requests - self._requests.used(slot, now_s))),
            ("x-ratelimit-reset", str(self._requests.wait_s(slot, now_s, 0))),
        )


def models() -> dict[str, Any]:
    listed = [
        {
            "id": name,
            "object": "model",
            "created": 1_750_000_000,
            "owned_by": "moonshot",
            "context_length": model.context_tokens,
            "supports_image_in": model.vision,
            "supports_video_in": model.vision,
            "supports_reasoning": True,
        }
        for name, model in MODELS.items()
    ]
    return {"object": "list", "data": listed}


def balance(account: str) -> dict[str, Any]:
    amount = 0 if "broke" in account else 49.58894
    data = {"available_balance": amount, "voucher_balance": 0, "cash_balance": amount}
    return {"code": 0, "data": data, "scode": "0x0", "status": True}


def estimate(request: Any) -> dict[str, Any]:
    """What the prompt would cost. Raises Refused."""
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise bad("Invalid request: messages is required")
    counted = sum(tokens.message_tokens(message) for message in request["messages"] if isinstance(message, dict))
    return {"data": {"total_tokens": counted}}


# --- refusals ----------------------------------------------------------------------------------------------------

# What a refusal is called here → status, type, message; `{0}` is the account.
CODES: Mapping[str, tuple[int, str, str]] = {
    "content_filter": (400, "content_filter", "The request was rejected because it was considered high risk"),
    "context": (400, "invalid_request_error", "Invalid request: Your request exceeded model token limit: 262144"),
    "input": (400, "invalid_request_error", "Invalid request: Input token length too long"),
    "invalid_request_error": (400, "invalid_request_error", "Invalid request"),
    "invalid_authentication_error": (401, "invalid_authentication_error", "Invalid Authentication"),
    "incorrect_api_key_error": (401, "incorrect_api_key_error", "Incorrect API key provided"),
    "permission_denied_error": (403, "permission_denied_error", "The API you are accessing is not open"),
    "resource_not_found_error": (404, "resource_not_found_error", "Not found the model kimi-k2 or Permission denied"),
    "engine_overloaded_error": (
        429,
        "engine_overloaded_error",
        "The engine is currently overloaded, please try again later",
    ),
    "concurrency": (
        429,
        "rate_limit_reached_error",
        "Your account {0} request reached max organization concurrency: 3, please try again after 1 seconds",
    ),
    "rpm": (
        429,
        "rate_limit_reached_error",
        "Your account {0} request reached organization max RPM: 3, please try again after 20 seconds",
    ),
    "tpm": (
        429,
        "rate_limit_reached_error",
        "Your account {0} request reached organization TPM rate limit, current: 499000, limit: 500000,"
        " please try again after 7 seconds",
    ),
    "tpd": (
        429,
        "rate_limit_reached_error",
        "Your account {0} request reached organization TPD rate limit, current: 1499000, limit: 1500000",
    ),
    "exceeded_current_quota_error": (
        429,
        "exceeded_current_quota_error",
        "Your account {0} is suspended, please check your plan and billing details",
    ),
    "client_closed_request": (499, "client_closed_request", "Client closed request"),
    "server_error": (500, "server_error", "Internal server error"),
    "unexpected_output": (500, "unexpected_output", "The model produced an unexpected output"),
    "server_unavailable": (503, "server_unavailable", "The server is currently unavailable"),
}
_STATUS_OF_TYPE = {kind: status for status, kind, _ in CODES.values()}
_BY_STATUS = {
    400: "invalid_request_error",
    401: "incorrect_api_key_error",
    403: "permission_denied_error",
    404: "resource_not_found_error",
    429: "engine_overloaded_error",
    499: "client_closed_request",
    503: "server_unavailable",
}
_RETRY_AFTER = re.compile(r"after (\d+) seconds")


def error(kind: str, message: str, status: int = 0) -> Refused:
    """`{"error": {"message", "type"}}`: neither code nor param. Capacity and stated waits have a header, too."""
    stated = _RETRY_AFTER.search(message)
    seconds = stated[1] if stated else "1" if kind == "engine_overloaded_error" else ""
    headers = (("retry-after", seconds),) if seconds else ()
    body = encode({"error": {"message": message, "type": kind}})
    return Refused(status or _STATUS_OF_TYPE[kind], body, CONTENT_JSON[0][1], headers)


def bad(message: str) -> Refused:
    return error("invalid_request_error", message)


def by_code(code: str, account: str) -> Refused:
    _, kind, message = CODES[code]
    return error(kind, message.replace("{0}", named(account)))


def limited(account: str, which: str, wait_s: int = 0) -> Refused:
    message = f"Your account {named(account)} request reached {which}"
    return error(
        "rate_limit_reached_error", f"{message}, please try again after {wait_s} seconds" if wait_s else message
    )


def organisation(account: str) -> str:
    return f"org-{vendor.account_of(account)}"


def named(account: str) -> str:
    """As the messages name who called: the organisation and the key."""
    return f"{organisation(account)}<ak-{account}>"


def forced(call: Call, account: str) -> None:
    """Raises Refused if the call asks for a refusal of ours. The server's own time limit has a page for a body."""
    if code := vendor.forced_code(call, CODES):
        raise by_code(code, account)
    if status := vendor.forced_status(call):
        if status == 504:
            raise vendor.html_page(status)
        _, kind, message = CODES[_BY_STATUS.get(status, "server_error")]
        raise error(kind, message, status)


def authenticate(call: Call, options: SimulatorOptions) -> str:
    """The key without its `sk-`. Raises Refused (401), also for a key of the other site."""
    key = vendor.bearer(call)
    if not key:
        raise error("invalid_authentication_error", "Invalid Authentication")
    account = key.removeprefix("sk-")
    if not vendor.known(key, options) or vendor.of_other_region(account, options):
        raise error("incorrect_api_key_error", "Incorrect API key provided")
    return account


# --- checks ------------------------------------------------------------------------------------------------------


def check(call: Call) -> Model:
    """The model asked for. Raises Refused as Moonshot would. Unknown fields, `reasoning_effort`, `seed`, `user`,
    `logprobs` and `parallel_tool_calls` are not looked at."""
    request = call.document
    if request is NOT_JSON or not isinstance(request, dict):
        raise bad("Invalid request: the body is not a JSON object")
    for name in ("model", "messages"):
        if not request.get(name):
            raise bad(f"Invalid request: {name} is required")
    model = MODELS.get(request["model"]) if isinstance(request["model"], str) else None
    if model is None:
        raise error("resource_not_found_error", f"Not found the model {request['model']} or Permission denied")
    coding = call.path.startswith("/coding/")
    if coding and len(call.body) > CODING_BYTES_MAX:
        raise bad(f"Invalid request: total message size {len(call.body)} exceeds limit {CODING_BYTES_MAX}")
    for rule in RULES:
        rule(request)
    for model_rule in MODEL_RULES:
        model_rule(request, model)
    if coding:
        check_reasoning(request, model)
    return model


def thinks(request: Request, model: Model) -> bool:
    thinking = request.get("thinking") or {}
    return model.always_thinks or thinking.get("type", "enabled") != "disabled"


def check_thinking(request: Request) -> None:
    thinking = request.get("thinking")
    if thinking is None:
        return
    if not isinstance(thinking, dict) or thinking.get("type", "enabled") not in ("enabled", "disabled"):
        raise bad("Invalid request: thinking.type must be one of enabled, disabled")
    if thinking.get("keep") not in (None, "all"):
        raise bad("Invalid request: thinking.keep must be all")


def check_pinned(request: Request, model: Model) -> None:
    """One value each, or none at all."""
    instant = request["model"] == "kimi-k2.6" and not thinks(request, model)
    pinned: dict[str, float] = {
        "temperature": 0.6 if instant else 1,
        "top_p": 0.95,
        "n": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
    }
    for name, only in pinned.items():
        value = request.get(name)
        if value is not None and (not vendor.is_number(value) or value != only):
            raise bad(f"invalid {name}: only {only} is allowed for this model")


def output_tokens(request: Request) -> int | None:
    """The limit asked for, under its new name or the old one."""
    most = request.get("max_completion_tokens")
    return request.get("max_tokens") if most is None else most


def check_numbers(request: Request) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        value = request.get(name)
        if value is not None and not (vendor.is_number(value, whole=True) and value >= 1):
            raise bad(f"Invalid request: {name} must be an integer of at least 1")
    if request.get("stream") is not None and not isinstance(request["stream"], bool):
        raise bad("Invalid request: stream must be a boolean")


def check_stop(request: Request) -> None:
    stop = request.get("stop")
    if stop is None:
        return
    marks = [stop] if isinstance(stop, str) else stop
    if not isinstance(marks, list) or not all(isinstance(mark, str) for mark in marks):
        raise bad("Invalid request: stop must be a string or a list of strings")
    if len(marks) > STOPS_MAX:
        raise bad(f"Invalid request: stop has {len(marks)} strings, at most {STOPS_MAX} are allowed")
    if any(len(mark.encode()) > STOP_BYTES_MAX for mark in marks):
        raise bad(f"Invalid request: a stop string is longer than {STOP_BYTES_MAX} bytes")


def check_tools(request: Request) -> None:
    tools = request.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list) or len(tools) > TOOLS_MAX:
        raise bad(f"Invalid request: tools must be a list of at most {TOOLS_MAX}")
    names: set[str] = set()
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in ("function", "builtin_function"):
            raise bad(f"Invalid request: unsupported tool type {kind}")
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not re.fullmatch(r"[$A-Za-z0-9_.-]{1,64}", name):
            raise bad("Invalid request: function name is invalid, must be letters, digits, underscores and dashes")
        if name in names:
            raise bad(f"Invalid request: function name {name} is duplicated")
        names.add(name)
        if kind == "function" and function.get("parameters") is not None:
            check_schema("tools.function.parameters", function["parameters"])


_BOUNDS = frozenset(
    ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
     "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "patternProperties", "$schema")
)  # fmt: skip


def check_schema(where: str, schema: Any, forbidden: frozenset[str] = frozenset()) -> None:
    """Raises Refused unless `schema` is in the vendor's own flavour of JSON Schema."""
    if problem := next(flaws(schema, "", forbidden), None):
        raise bad(f"Invalid request: {where} is not a valid moonshot flavored json schema, details: <{problem}>")


def flaws(schema: Any, path: str, forbidden: frozenset[str]) -> Iterator[str]:
    """What is wrong with a schema: a property without a type, an enum of several types, a reference, a bound."""
    at = f"At path '{path.lstrip('.')}': "
    if not isinstance(schema, Mapping):
        yield at + "schema must be an object"
        return
    if "$ref" in schema:
        yield at + "references are not supported"
    for name in forbidden & schema.keys():
        yield f"{at}keyword '{name}' is not supported"
    choices = schema.get("enum")
    if isinstance(choices, list) and len({type(choice) for choice in choices}) > 1:
        yield at + "enum values must be of one type"
    alternatives = [(f"{path}.{word}.{n}", below) for word in ("anyOf", "oneOf", "allOf")
                    for n, below in enumerate(schema.get(word) or ())]  # fmt: skip
    if path and "type" not in schema and "$ref" not in schema and not alternatives:
        yield at + "type is not defined"
    below = list(alternatives)
    if isinstance(properties := schema.get("properties"), Mapping):
        below += [(f"{path}.properties.{name}", each) for name, each in properties.items()]
    if isinstance(items := schema.get("items"), Mapping):
        below.append((f"{path}.items", items))
    for place, each in below:
        yield from flaws(each, place, forbidden)


def check_tool_choice(request: Request, model: Model) -> None:
    choice = request.get("tool_choice")
    if choice is None or choice in ("none", "auto"):
        return
    named = isinstance(choice, dict) and isinstance(choice.get("function"), dict)
    if choice != "required" and not named:
        raise bad("Invalid request: tool_choice must be none, auto, required or a function")
    if thinks(request, model) and (named or request["model"] != "kimi-k3"):
        kind = "specified" if named else "required"
        raise bad(f"tool_choice '{kind}' is incompatible with thinking enabled")
    offered = [tool["function"]["name"] for tool in request.get("tools") or ()]
    if not offered or (named and choice["function"].get("name") not in offered):
        raise bad("Invalid request: tool_choice names a function that is not in tools")


def check_response_format(request: Request) -> None:
    wanted = request.get("response_format")
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise bad("Invalid request: response_format.type must be text, json_object or json_schema")
    if kind == "json_schema":
        described = wanted.get("json_schema")
        if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
            raise bad("Invalid request: response_format.json_schema.schema is required")
        check_schema("response_format.json_schema.schema", described["schema"], _BOUNDS)


def check_messages(request: Request, model: Model) -> None:
    messages = request["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise bad("Invalid request: messages must be a list of messages")
    for index, message in enumerate(messages):
        role = message.get("role")
        if role not in ROLES:
            raise bad(f"Invalid request: unsupported role {role} at position {index}")
        check_content(message, index, model)
        if role == "tool" and not isinstance(message.get("tool_call_id"), str):
            raise bad("Invalid request: tool_call_id is required")
    if orphan := vendor.orphan_result(messages):
        raise bad(f"Invalid request: tool_call_id {orphan['tool_call_id']} is not found")
    if missing := vendor.unanswered_calls(messages):
        raise bad(
            "Invalid request: an assistant message with 'tool_calls' must be followed by tool messages responding to"
            " each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            + ", ".join(sorted(missing))
        )


def check_content(message: Mapping[str, Any], index: int, model: Model) -> None:
    content, role = message.get("content"), message["role"]
    if isinstance(content, list):
        check_parts(content, model)
    elif content is None or content == "":
        if role != "tool" and not (role == "assistant" and (message.get("tool_calls") or message.get("partial"))):
            raise bad(f"Invalid request: the message at position {index} with role '{role}' must not be empty")
    elif not isinstance(content, str):
        raise bad(f"Invalid request: the content of the message at position {index} is no string or list")


def check_parts(parts: Sequence[Any], model: Model) -> None:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            if not part.get("text"):
                raise bad("Invalid request: text content is empty")
        elif kind not in ("image_url", "video_url"):
            raise bad(f"Invalid request: unsupported content type {kind}")
        elif not model.vision:
            raise bad("Invalid request: Image input not supported for this model")
        elif kind == "image_url":
            check_image(part)


def check_image(part: Mapping[str, Any]) -> None:
    for url in answers.image_urls([part]) or [""]:
        if not url.startswith(("http://", "https://", "ms://", "data:image/")):
            raise bad("Invalid request: unsupported image url")


def check_reasoning(request: Request, model: Model) -> None:
    """Only the subscription's endpoint insists; the open platform takes tool turns without their reasoning."""
    if not thinks(request, model):
        return
    for index, message in enumerate(request["messages"]):
        if message.get("tool_calls") and not message.get("reasoning_content"):
            raise bad(
                f"thinking is enabled but reasoning_content is missing in assistant tool call message at index {index}"
            )


RULES: tuple[Callable[[Request], None], ...] = (
    check_thinking,
    check_numbers,
    check_stop,
    check_tools,
    check_response_format,
)
MODEL_RULES: tuple[Callable[[Request, Model], None], ...] = (check_messages, check_pinned, check_tool_choice)


def check_context(prompt_tokens: int, most: int | None, model: Model) -> None:
    if prompt_tokens >= model.context_tokens:
        raise bad("Invalid request: Input token length too long")
    if prompt_tokens + (most or 0) > model.context_tokens:
        raise bad(
            f"Invalid request: Your request exceeded model token limit: {model.context_tokens}"
            f" (requested: {prompt_tokens + (most or 0)})"
        )


# --- answers -----------------------------------------------------------------------------------------------------


class Writer:
    """One answer in Moonshot's shapes."""

    def __init__(
        self, call: Call, model: Model, answer: Answer, cached_tokens: int, serial: str, *, thinking: bool
    ) -> None:
        request = call.document
        self._answer = answer
        self._id = f"chatcmpl-{serial[:24]}"
        self._created = int(call.wall_s)
        self._name = request["model"]
        self._ids = model.ids
        self._thinking = thinking
        self._include_usage = vendor.wants_usage(request)
        self._ending = vendor.Ending(call, answer)
        self._cached_tokens = cached_tokens

    def usage(self, *, details: bool) -> dict[str, Any] | None:
        """Cached tokens at the top, and with `details` in OpenAI's place. An answer without thinking counts one token
        of it. The share of a filtered answer is not told."""
        answer = self._answer
        completion_tokens = answer.completion_tokens + (0 if self._thinking else 1)
        usage: dict[str, Any] = {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": answer.prompt_tokens + completion_tokens,
        }
        if self._ending.finish_reason != "content_filter":
            usage["cached_tokens"] = self._cached_tokens
        if details:
            usage["completion_tokens_details"] = {"reasoning_tokens": len(answer.reasoning) if self._thinking else 1}
            usage["prompt_tokens_details"] = {"cached_tokens": self._cached_tokens}
        return self._ending.usage(usage)

    def document(self) -> bytes:
        answer = self._answer
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(answer.text),
            "reasoning_content": "".join(answer.reasoning),
        }
        if answer.calls:
            message["tool_calls"] = [
                {
                    "index": index,
                    "id": self.call_id(index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(call.arguments)},
                }
                for index, call in enumerate(answer.calls)
            ]
        document: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._name,
            "choices": [{"index": 0, "message": message, "finish_reason": self._ending.finish_reason}],
        }
        if (usage := self.usage(details=True)) is not None:
            document["usage"] = usage
        return encode({**document, "system_fingerprint": FINGERPRINT})

    def call_id(self, index: int) -> str:
        """Name and place in this turn: the next turn has the same ids again."""
        return self._ids.format(name=self._answer.calls[index].name, index=index)

    def stream(self) -> Iterator[Write]:
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._name}
        start = b"data: " + encode(head)[:-1] + b',"choices":['
        before = start + b'{"index":0,"delta":'
        fingerprint = b',"system_fingerprint":"' + FINGERPRINT.encode() + b'"}\n\n'
        after = b',"finish_reason":null}]' + fingerprint
        yield Write(before + b'{"role":"assistant","content":""}' + after, "open")
        for delta in self._deltas():
            yield Write(before + delta + after, "delta")
        usage = self.usage(details=self._thinking)
        told = encode(usage)
        inside = b"" if usage is None or self._ending.usage_trails else b',"usage":' + told
        reason = encode(self._ending.finish_reason)
        yield Write(before + b'{},"finish_reason":' + reason + inside + b"}]" + fingerprint, "finish")
        if self._include_usage and usage is not None:
            yield Write(start + b'],"usage":' + told + b"}\n\n", "usage")
        yield Write(b"data: [DONE]\n\n", "done")

    def _deltas(self) -> Iterator[bytes]:
        answer = self._answer
        for piece in answer.reasoning:
            yield b'{"reasoning_content":' + encode(piece) + b"}"
        if answer.reasoning and (answer.text or answer.calls):
            yield b'{"reasoning_content":""}'  # closes the reasoning
        for piece in answer.text:
            yield b'{"content":' + encode(piece) + b"}"
        for index, call in enumerate(answer.calls):
            first = {"index": index, "id": self.call_id(index), "type": "function"}
            yield encode({"tool_calls": [{**first, "function": {"name": call.name, "arguments": ""}}]})
            for piece in call.arguments:
                yield b'{"tool_calls":[{"index":%d,"function":{"arguments":' % index + encode(piece) + b"}}]}"
