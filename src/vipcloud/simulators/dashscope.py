"""Alibaba's Model Studio (DashScope), simulated: the compatible dialect and the native one, its refusals and throttles.

The compatible dialect is what a gateway calls. The native one is there for text only, and for what is different about
its failures: an error event inside a stream whose status was 200, and codes in words of their own.

Sources: help.aliyun.com and alibabacloud.com (OpenAI-compatible Chat, Rate limits, error codes), docs.qwencloud.com,
dashscope-sdk-python, fixtures of vercel/ai; seen 2026-11. Where they leave a refusal's wording open the text here is
ours; its status, its code and its marker words are theirs.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Any

from vipcloud.simulators import answers, tokens, vendor
from vipcloud.simulators.answers import Answer
from vipcloud.simulators.script import (
    NOT_JSON,
    Call,
    Headers,
    Kind,
    Refused,
    Reply,
    Shared,
    SimulatorOptions,
    Step,
    Wait,
    Write,
    encode,
    stream,
)
from vipcloud.simulators.throttle import Window
from vipcloud.simulators.toolcalls import ToolCall
from vipcloud.simulators.vendor import Request

CONTENT_JSON = ("content-type", "application/json")
EVENT_STREAM = ("content-type", "text/event-stream;charset=utf-8")
ROLES = ("system", "assistant", "user", "tool", "function")
NATIVE_CHAT = "/api/v1/services/aigc/text-generation/generation"
CONCURRENCY_MAX = 10_000  # none is published: requests and tokens are what is limited
CHOICES_MAX = 4
CACHE_MARKS_MAX = 4
SEED_MAX = 2**31 - 1
WHOLE_ANSWER_MAX_S = 300.0  # an unstreamed answer that takes longer is given up
EMBEDDED_MAX = 10  # inputs of one call
EMBEDDED_TOKENS_MAX = 8192
DIMENSIONS: Mapping[str, int] = {"text-embedding-v4": 2048, "text-embedding-v3": 1024}  # the most; 1,024 unless said


@dataclass(frozen=True, slots=True)
class Model:
    """`thinking`: on or off unless said, None where it cannot. `streamed_thinking`: it thinks in streams only.

    Documented are qwen3-max and deepseek-v3.2, and which models have a `reasoning_effort`. Assumed is the rest: the
    sizes and limits of others, that hosts of open models and newer Qwen think unless told not to, and which models take
    a `json_schema` (where sources disagree, they do not).
    """

    context_tokens: int = 262_144
    output_tokens_max: int = 65_536
    thinking: bool | None = False
    streamed_thinking: bool = False
    vision: bool = False
    json_schema: bool = False
    efforts: tuple[str, ...] = ()
    requests_per_minute: int = 600
    tokens_per_minute: int = 1_000_000


MODELS: Mapping[str, Model] = {
    "qwen3-max": Model(),
    "qwen3-max-2025-09-23": Model(requests_per_minute=60, tokens_per_minute=100_000),
    "qwen3.7-max": Model(thinking=True, json_schema=True),
    "qwen3.8-max": Model(1_000_000, thinking=True, json_schema=True, efforts=("none", "low", "medium", "xhigh")),
    "qwen-plus": Model(1_000_000, 32_768, json_schema=True),
    "qwen3-coder-plus": Model(1_000_000, thinking=None),
    "qwen3-vl-plus": Model(vision=True),
    "qwen3-32b": Model(131_072, 16_384, thinking=True, streamed_thinking=True),
    "deepseek-v3.2": Model(131_072),
    "deepseek-v4-pro": Model(1_000_000, thinking=True, efforts=("high", "max")),
    "kimi-k2.6": Model(thinking=True, vision=True),
}


class DashScope:
    """See `script.Vendor`."""

    error_event = b""  # each reply brings its own

    def __init__(self, options: SimulatorOptions) -> None:
        self.shared = Shared(options)
        self._cache = tokens.PrefixCache()
        self._throttle = Throttle()

    def answer(self, call: Call) -> Reply:
        serial = self.shared.next_id()
        request_id = f"{serial[:8]}-{serial[8:12]}-9{serial[13:16]}-8{serial[17:20]}-{serial[20:32]}"
        native = call.path.startswith("/api/")
        arrived_ms = int(call.wall_s * 1000)
        headers: Headers = (
            ("x-request-id", request_id),
            ("x-dashscope-call-gateway", "true"),
            ("req-cost-time", "12"),
            ("req-arrive-time", str(arrived_ms)),
            ("resp-start-time", str(arrived_ms + 12)),
            ("x-envoy-upstream-service-time", "12"),
            ("server", "istio-envoy"),
        )
        try:
            vendor.forced(call)
            forced(call)
            return self._route(call, authenticate(call, self.shared.options), headers, request_id)
        except Denied as denied:
            return denied.refused(request_id, native=native).reply(headers)
        except Refused as refused:
            return refused.reply(headers)

    def _route(self, call: Call, account: str, headers: Headers, request_id: str) -> Reply:
        path = call.path.removeprefix("/compatible-mode").removeprefix("/v1")
        match call.method, path:
            case "POST", "/chat/completions":
                return self._chat(call, account, headers, request_id)
            case "POST", "/embeddings":
                return Reply(chunked(headers, encode(embeddings(call.document, request_id)), 0.0))
            case "GET", "/models":
                return Reply(chunked(headers, encode(models()), 0.0))
            case "GET", "/api/v1/quotas":
                return Reply(chunked(headers, encode(quotas(call.query, request_id)), 0.0))
            case "POST", native if native == NATIVE_CHAT:
                return self._native_chat(call, account, headers, request_id)
        raise Refused(404, encode({"message": f"No static resource {call.path}", "request_id": request_id}))

    def _chat(self, call: Call, account: str, headers: Headers, request_id: str) -> Reply:
        request = call.document
        model = check(request, streamed=bool(isinstance(request, dict) and request.get("stream")))
        slot = self._admit(call, account, request, model)
        planned = self._plan(request, model)
        first = planned[0]
        usage = Usage.of(request, model, planned, self._cached(account, request, first))
        writers = [Writer(call, answer, index, request_id, usage, model) for index, answer in enumerate(planned)]
        event = encode(
            {
                "error": compatible("DataInspectionFailed", "Output data may contain inappropriate content."),
                "id": f"chatcmpl-{request_id}",
                "request_id": request_id,
            }
        )
        if request.get("stream"):
            writes = vendor.paced(compatible_stream(writers), first, self.shared)
            return Reply(stream(200, (EVENT_STREAM, *headers), writes), slot, b"data: " + event + b"\n\n")
        delay_s = vendor.unary_delay_s(first, self.shared)
        if delay_s > WHOLE_ANSWER_MAX_S:
            late = Denied("RequestTimeOut").refused(request_id, native=False).reply(headers)
            return Reply(chain([Wait(WHOLE_ANSWER_MAX_S)], late.steps), slot)
        return Reply(chunked(headers, document(writers), delay_s), slot)

    def _native_chat(self, call: Call, account: str, headers: Headers, request_id: str) -> Reply:
        """The same under other names: messages in `input`, the rest in `parameters`, a stream by a header."""
        sent = call.document
        if not isinstance(sent, dict) or not isinstance(sent.get("input"), dict):
            raise Denied("InvalidParameter", "Required body invalid, please check the request body format.")
        parameters = sent.get("parameters") or {}
        request = {**parameters, "model": sent.get("model"), "messages": sent["input"].get("messages")}
        streamed = call.header(b"x-dashscope-sse") == "enable"
        model = check(request, streamed=streamed)
        slot = self._admit(call, account, request, model)
        answer = self._plan(request, model)[0]
        writer = NativeWriter(call, answer, request_id)
        event = NativeWriter.event(2, "error", 400, {**native_error("DataInspectionFailed"), "request_id": request_id})
        if streamed:
            grown = not request.get("incremental_output")
            writes = vendor.paced(writer.stream(grown=grown), answer, self.shared)
            return Reply(stream(200, (EVENT_STREAM, *headers), writes), slot, event)
        return Reply(chunked(headers, writer.document(), vendor.unary_delay_s(answer, self.shared)), slot)

    def _admit(self, call: Call, account: str, request: Request, model: Model) -> str:
        """The slot that the call takes. Raises Denied."""
        if "broke" in account:
            raise Denied("Arrearage")
        name = request["model"]
        slot = f"{vendor.account_of(account)}/{name}"
        if vendor.full(self.shared, slot, CONCURRENCY_MAX):
            raise Denied("Throttling.RateQuota", "You have exceeded your current requests list.")
        published = (model.requests_per_minute, model.tokens_per_minute) if "limited" in account else (None, None)
        requests, most = vendor.limits(self.shared.options, *published)
        counted = sum(tokens.message_tokens(message) for message in request["messages"])
        self._throttle.take(slot, call.wall_s, requests, most, counted)
        return slot

    def _plan(self, request: Request, model: Model) -> list[Answer]:
        """One answer for each choice. Calls come one at a time unless they may come together."""
        asked = vendor.ask(
            request,
            thinking=thinks(request, model),
            output_tokens_max=request.get("max_tokens") or model.output_tokens_max,
            seed=self.shared.options.seed,
        )
        asked = replace(vendor.carried_on(asked, "partial"), reasoning_tokens_max=request.get("thinking_budget"))
        planned = [answers.plan(replace(asked, seed=asked.seed + n)) for n in range(request.get("n") or 1)]
        if planned[0].prompt_tokens > model.context_tokens:
            raise Denied("InvalidParameter", f"Range of input length should be [1, {model.context_tokens}]")
        if not request.get("parallel_tool_calls"):
            planned = [replace(answer, calls=answer.calls[:1]) for answer in planned]
        return planned

    def _cached(self, account: str, request: Request, answer: Answer) -> int:
        return min(self._cache.hit(account, request.get("tools"), request["messages"]), answer.prompt_tokens)


class Throttle:
    """Requests and tokens of an account at one model: per minute, per second, and not too many more at once.

    Per second a sixtieth of the requests. Who asks for more at once after a calm minute is told that the rate increased
    too quickly, who has kept asking, that it is exceeded. Tokens are those of the prompt, per minute only: a prompt may
    well be longer than a second's share.
    """

    def __init__(self) -> None:
        self._minute = Window()
        self._second = Window(1.0)
        self._tokens = Window()

    def take(self, slot: str, now_s: float, requests: int | None, most_tokens: int | None, counted: int) -> None:
        """Raises Denied (429), which counts for nothing."""
        if requests is not None:
            if self._minute.wait_s(slot, now_s, requests):
                raise Denied("Throttling.RateQuota")
            per_second = max(1, requests // 60)
            if self._second.wait_s(slot, now_s, per_second):
                calm = self._minute.used(slot, now_s) <= per_second
                raise Denied("Throttling.BurstRate" if calm else "Throttling.RateQuota")
        if most_tokens is not None and self._tokens.wait_s(slot, now_s, most_tokens, counted):
            raise Denied("Throttling.AllocationQuota")
        if requests is not None:
            self._minute.add(slot, now_s)
            self._second.add(slot, now_s)
        if most_tokens is not None:
            self._tokens.add(slot, now_s, counted)


def chunked(headers: Headers, body: bytes, delay_s: float) -> Iterator[Step]:
    """An unstreamed answer: without a content length, as the vendor's proxy sends it."""
    if delay_s:
        yield Wait(delay_s)
    yield from stream(200, (CONTENT_JSON, *headers), iter([Write(body, "body")]))


def models() -> dict[str, Any]:
    names = (*MODELS, *DIMENSIONS)
    listed = [{"id": name, "object": "model", "created": 1_750_000_000, "owned_by": "system"} for name in names]
    return {"object": "list", "data": listed}


def quotas(query: str, request_id: str) -> dict[str, Any]:
    """Of the model that the query names. The documentation names the numbers, not the keys. Raises Denied."""
    name = query.partition("model=")[2].partition("&")[0]
    model = MODELS.get(name)
    if model is None:
        raise Denied("ModelNotFound", f"Model {name} does not exist.")
    limits = {"rpm": model.requests_per_minute, "qps": model.requests_per_minute / 60, "tpm": model.tokens_per_minute}
    return {"request_id": request_id, "data": {"model": name, **limits}}


def embeddings(request: Any, request_id: str) -> dict[str, Any]:
    """A vector of length 1 for each text, the same for the same text. Raises Denied."""
    if not isinstance(request, dict) or request.get("model") not in DIMENSIONS:
        raise Denied("ModelNotFound")
    given = request.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise invalid("input must be a string or a list of strings")
    if len(texts) > EMBEDDED_MAX:
        raise invalid(f"Value error, batch size is invalid, it should not be larger than {EMBEDDED_MAX}.")
    counts = [tokens.count(text) for text in texts]
    if max(counts) > EMBEDDED_TOKENS_MAX:
        raise invalid(f"Range of input length should be [1, {EMBEDDED_TOKENS_MAX}]")
    dimensions = request.get("dimensions") or 1024
    if not vendor.is_number(dimensions, whole=True) or not 64 <= dimensions <= DIMENSIONS[request["model"]]:
        raise invalid(f"Value error, dimensions should be in [64, {DIMENSIONS[request['model']]}].")
    if request.get("encoding_format") not in (None, "float"):
        raise invalid("encoding_format should be float")
    data = [
        {"embedding": vector(text, dimensions), "index": index, "object": "embedding"}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    return {"data": data, "model": request["model"], "object": "list", "usage": usage, "id": request_id}


def vector(text: str, dimensions: int) -> list[float]:
    digest = hashlib.shake_256(text.encode()).digest(dimensions)
    raw = [byte - 127.5 for byte in digest]
    length = math.sqrt(sum(value * value for value in raw))
    return [value / length for value in raw]


# --- refusals ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """An error under its native code: status, message, and what the compatible dialect calls it (else the same)."""

    status: int
    message: str
    code: str = ""
    type: str = ""


_INVALID = {"code": "invalid_parameter_error", "type": "invalid_request_error"}
_TIMED_OUT = "Request timed out, please try again later."
_OVERDUE = "Access denied, please make sure your account is in good standing."
KINDS: Mapping[str, Meaning] = {
    "InvalidParameter": Meaning(400, "The parameters are invalid.", **_INVALID),
    "InternalError.Algo.InvalidParameter": Meaning(400, "Unexpected item type in content."),
    "InvalidParameter.NotSupportEnableThinking": Meaning(400, "The model does not support enable_thinking."),
    "Arrearage": Meaning(400, _OVERDUE),
    "DataInspectionFailed": Meaning(400, "Output data may contain inappropriate content.", "data_inspection_failed"),
    "InvalidParameter.DataInspection": Meaning(400, "Unable to download the media resource for inspection."),
    "InvalidApiKey": Meaning(401, "Incorrect API key provided.", "invalid_api_key", "invalid_request_error"),
    "NOT AUTHORIZED": Meaning(401, "You are not authorized to access this workspace, or it does not exist."),
    "AccessDenied": Meaning(403, "Access denied."),
    "Model.AccessDenied": Meaning(403, "Model access denied."),
    "Workspace.AccessDenied": Meaning(403, "Workspace access denied."),
    "AccessDenied.Unpurchased": Meaning(403, "Access to model denied. Please make sure you are eligible for using it."),
    "AllocationQuota.FreeTierOnly": Meaning(403, "The free tier of the model is exhausted.", "insufficient_quota"),
    "ModelNotFound": Meaning(
        404, "The model does not exist or you do not have access to it.", "model_not_found", "invalid_request_error"
    ),
    "model_not_supported": Meaning(404, "The model is not supported.", "", "invalid_request_error"),
    "BadRequest.TooLarge": Meaning(413, "Payload Too Large"),
    "Throttling": Meaning(429, "Requests throttling triggered.", "limit_requests"),
    "Throttling.RateQuota": Meaning(429, "Requests rate limit exceeded, please try again later.", "limit_requests"),
    "Throttling.AllocationQuota": Meaning(
        429, "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"
    ),
    "Throttling.BurstRate": Meaning(429, "Request rate increased too quickly.", "limit_burst_rate"),
    "CommodityNotPurchased": Meaning(429, "Commodity has not purchased yet."),
    "PrepaidBillOverdue": Meaning(429, "The prepaid bill is overdue."),
    "PostpaidBillOverdue": Meaning(429, "The postpaid bill is overdue."),
    "InternalError": Meaning(500, "An internal error has occurred, please try again later."),
    "InternalError.Algo": Meaning(500, "An internal error has occurred during computation."),
    "SystemError": Meaning(500, "An system error has occured, please try again later."),
    "ModelServiceFailed": Meaning(500, "Failed to request model service."),
    "RequestTimeOut": Meaning(500, _TIMED_OUT),
    "InternalError.Timeout": Meaning(500, _TIMED_OUT),
    "ModelServingError": Meaning(500, "Too many requests are being served, the system is at capacity."),
    "ModelUnavailable": Meaning(503, "Model is unavailable, please try again later."),
}  # fmt: skip
_BY_STATUS = {
    400: "InvalidParameter",
    401: "InvalidApiKey",
    403: "AccessDenied",
    404: "ModelNotFound",
    413: "BadRequest.TooLarge",
    429: "Throttling.RateQuota",
    503: "ModelUnavailable",
}


class Denied(Exception):
    """A refusal under its native code; the dialect that was spoken gives it its body."""

    def __init__(self, code: str, message: str = "", status: int = 0, *, prefixed: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.message = message or KINDS[code].message
        self.status = status or KINDS[code].status
        self.prefixed = prefixed

    def refused(self, request_id: str, *, native: bool) -> Refused:
        if native:
            return Refused(self.status, encode({"code": self.code, "message": self.message, "request_id": request_id}))
        body = encode({"error": compatible(self.code, self.message), "request_id": request_id})
        return Refused(self.status, b"data: " + body if self.prefixed else body)


def compatible(code: str, message: str) -> dict[str, Any]:
    kind = KINDS[code]
    named = kind.code or code
    return {"message": message, "type": kind.type or named, "param": None, "code": named}


def native_error(code: str) -> dict[str, Any]:
    return {"code": code, "message": KINDS[code].message}


def invalid(problem: str) -> Denied:
    return Denied("InvalidParameter", f"<400> InternalError.Algo.InvalidParameter: {problem}")


def forced(call: Call) -> None:
    """Raises Denied if the call asks for a refusal of ours. A stream that moderation refuses at once has a body that
    begins like an event."""
    if code := vendor.forced_code(call, KINDS):
        streamed = isinstance(call.document, dict) and bool(call.document.get("stream"))
        raise Denied(code, prefixed=streamed and code == "DataInspectionFailed")
    if status := vendor.forced_status(call):
        raise Denied(_BY_STATUS.get(status, "InternalError"), status=status)


def authenticate(call: Call, options: SimulatorOptions) -> str:
    """The key without its `sk-`. Raises Denied (401), also for keys of another region or of a plan."""
    key = vendor.bearer(call)
    account = key.removeprefix("sk-")
    if not vendor.known(key, options) or vendor.of_other_region(account, options) or account.startswith("sp-"):
        raise Denied("InvalidApiKey")
    return account


# --- checks ------------------------------------------------------------------------------------------------------


def check(request: Any, *, streamed: bool) -> Model:
    """The model asked for. Raises Denied as DashScope would. `frequency_penalty`, `max_completion_tokens`, `user` and
    what else it does not know is not looked at."""
    if request is NOT_JSON or not isinstance(request, dict):
        raise Denied("InvalidParameter", "Required body invalid, please check the request body format.")
    for name in ("model", "messages"):
        if not request.get(name):
            raise invalid(f"'{name}' is a required property")
    model = MODELS.get(request["model"]) if isinstance(request["model"], str) else None
    if model is None:
        raise Denied("ModelNotFound", f"The model `{request['model']}` does not exist or you do not have access to it.")
    for rule in RULES:
        rule(request)
    for model_rule in MODEL_RULES:
        model_rule(request, model)
    if model.streamed_thinking and thinks(request, model) and not streamed:
        raise invalid("parameter.enable_thinking must be set to false for non-streaming calls")
    return model


def thinks(request: Request, model: Model) -> bool:
    if model.thinking is None:
        return False
    if model.efforts and request.get("reasoning_effort") == "none":
        return False
    wanted = request.get("enable_thinking")
    return model.thinking if wanted is None else bool(wanted)


def check_thinking(request: Request, model: Model) -> None:
    wanted = request.get("enable_thinking")
    if wanted is not None and not isinstance(wanted, bool):
        raise invalid("parameter.enable_thinking must be a boolean")
    if wanted and model.thinking is None:
        raise Denied("InvalidParameter.NotSupportEnableThinking")
    budget = request.get("thinking_budget")
    if budget is not None and not (vendor.is_number(budget, whole=True) and budget >= 1):
        raise invalid("The thinking_budget parameter must be a positive integer")
    effort = request.get("reasoning_effort")
    if model.efforts and effort is not None and effort not in model.efforts:
        raise invalid(f"reasoning_effort should be one of {list(model.efforts)}")


# name, must it be whole, least, most
RANGES: tuple[tuple[str, bool, float, float], ...] = (
    ("presence_penalty", False, -2, 2),
    ("n", True, 1, CHOICES_MAX),
    ("seed", True, 0, SEED_MAX),
)


def check_numbers(request: Request, model: Model) -> None:
    temperature, top_p = request.get("temperature"), request.get("top_p")
    if temperature is not None and not (vendor.is_number(temperature) and 0 <= temperature < 2):
        raise invalid("Temperature should be in [0.0, 2.0)")
    if top_p is not None and not (vendor.is_number(top_p) and 0 < top_p <= 1):
        raise invalid("Range of top_p should be (0.0, 1.0]")
    for name, whole, low, high in (*RANGES, ("max_tokens", True, 1, model.output_tokens_max)):
        value = request.get(name)
        if value is not None and not (vendor.is_number(value, whole=whole) and low <= value <= high):
            raise invalid(f"Range of {name} should be [{low}, {high}]")
    for name in ("stream", "parallel_tool_calls"):
        if request.get(name) is not None and not isinstance(request[name], bool):
            raise invalid(f"{request[name]!r} is not of type 'boolean' - '{name}'")


def check_stop(request: Request) -> None:
    """A string, strings, or numbers of tokens."""
    stop = request.get("stop")
    if stop is None or isinstance(stop, str):
        return
    if not isinstance(stop, list) or not all(isinstance(mark, str | int | list) for mark in stop):
        raise invalid(f"{stop!r} is not valid under any of the given schemas - 'stop'")


def check_tools(request: Request) -> None:
    tools = request.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise invalid(f"{tools!r} is not of type 'array' - 'tools'")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise invalid(f"tools.{index}.function.name is invalid")
        if name == "search":
            raise invalid("Tool names are not allowed to be [search]")
    if tools and (request.get("n") or 1) != 1:
        raise invalid("The n parameter must be 1 when tools are used")


def check_tool_choice(request: Request, model: Model) -> None:
    choice = request.get("tool_choice")
    if choice is None or choice in ("none", "auto"):
        return
    if not isinstance(choice, dict) or not isinstance(choice.get("function"), dict):
        raise invalid(
            'The tool_choice parameter is illegal: tool_choice is one of the strings that should be ["none", "auto"]'
        )
    if thinks(request, model):
        raise invalid("The tool_choice parameter does not support being set to required or object in thinking mode")
    if choice["function"].get("name") not in [tool["function"]["name"] for tool in request.get("tools") or ()]:
        raise invalid("The tool_choice parameter names a function that is not in tools")


def check_response_format(request: Request, model: Model) -> None:
    wanted = request.get("response_format")
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    kinds = ["text", "json_object", *(["json_schema"] if model.json_schema else [])]
    if kind not in kinds:
        raise invalid(f"'response_format.type' should be one of {kinds}")
    if kind != "text" and thinks(request, model):
        raise invalid("Json mode response is not supported when enable_thinking is true")
    if kind == "json_object" and not any("json" in answers.text_of(m).lower() for m in request["messages"]):
        raise invalid(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )


def check_messages(request: Request, model: Model) -> None:
    messages = request["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise invalid("'messages' must be an array of objects")
    for index, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise invalid(f"{message.get('role')!r} is not one of {list(ROLES)} - 'messages.{index}.role'")
        check_content(message, index, model)
    if vendor.orphan_result(messages):
        raise invalid('messages with role "tool" must be a response to a preceeding message with "tool_calls".')
    if missing := vendor.unanswered_calls(messages):
        raise invalid(
            'An assistant message with "tool_calls" must be followed by tool messages responding to each'
            f' "tool_call_id". The following tool_call_ids did not have response messages: {", ".join(sorted(missing))}'
        )
    if model.streamed_thinking and messages[-1]["role"] not in ("user", "tool"):
        raise invalid("The last message must be from the user or a tool")
    if marks(messages) > CACHE_MARKS_MAX:
        raise invalid(f"A maximum of {CACHE_MARKS_MAX} blocks with cache_control may be provided")


def check_content(message: Mapping[str, Any], index: int, model: Model) -> None:
    content = message.get("content")
    if isinstance(content, list):
        kinds = [part.get("type") if isinstance(part, dict) else None for part in content]
        seen = ("text", "image_url", "video_url") if model.vision else ("text",)
        if not content or any(kind not in seen for kind in kinds):
            raise Denied(
                "InternalError.Algo.InvalidParameter",
                "<400> InternalError.Algo.InvalidParameter: Unexpected item type in content.",
            )
    elif content is None:
        if message["role"] != "assistant" or not message.get("tool_calls"):
            raise invalid(f"'content' is a required property - 'messages.{index}'")
    elif not isinstance(content, str):
        raise invalid(f"{content!r} is not of type 'string' - 'messages.{index}.content'")


RULES: tuple[Callable[[Request], None], ...] = (check_stop, check_tools)
MODEL_RULES: tuple[Callable[[Request, Model], None], ...] = (
    check_messages,
    check_thinking,
    check_numbers,
    check_tool_choice,
    check_response_format,
)


def marks(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many parts are marked for the cache that is paid for."""
    parts = chain.from_iterable(message["content"] for message in messages if isinstance(message.get("content"), list))
    return sum("cache_control" in part for part in parts)


# --- answers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Of all choices together. `written_tokens` went into the cache that the caller marked; they are in the prompt."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int | None
    cached_tokens: int
    written_tokens: int | None = None

    @classmethod
    def of(cls, request: Request, model: Model, planned: Sequence[Answer], cached_tokens: int) -> "Usage":
        prompt_tokens = planned[0].prompt_tokens
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=sum(answer.completion_tokens for answer in planned),
            reasoning_tokens=sum(len(answer.reasoning) for answer in planned) if thinks(request, model) else None,
            cached_tokens=cached_tokens,
            written_tokens=prompt_tokens - cached_tokens if marks(request["messages"]) else None,
        )

    def told(self) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.reasoning_tokens is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.written_tokens is not None:
            usage["prompt_tokens_details"] |= {
                "cache_creation_input_tokens": self.written_tokens,
                "cache_type": "ephemeral",
            }
        return usage


@dataclass(slots=True)
class Writer:
    """One choice of an answer in the compatible dialect."""

    call: Call
    answer: Answer
    index: int
    request_id: str
    usage: Usage
    model: Model
    ending: vendor.Ending = field(init=False)
    thinking: bool = field(init=False)

    def __post_init__(self) -> None:
        self.ending = vendor.Ending(self.call, self.answer)
        self.thinking = thinks(self.call.document, self.model)

    def call_id(self, index: int) -> str:
        salt = b"%d/%d" % (self.index, index)
        return f"call_{hashlib.sha256(self.request_id.encode() + salt).hexdigest()[:24]}"

    def choice(self) -> dict[str, Any]:
        answer = self.answer
        message: dict[str, Any] = {"content": "".join(answer.text)}
        if self.thinking:
            message["reasoning_content"] = "".join(answer.reasoning)
        message["role"] = "assistant"
        if answer.calls:
            message["tool_calls"] = [
                {**self.named(index, call), "function": {"name": call.name, "arguments": "".join(call.arguments)}}
                for index, call in enumerate(answer.calls)
            ]
        return {"message": message, "finish_reason": self.ending.finish_reason, "index": self.index, "logprobs": None}

    def named(self, index: int, call: ToolCall) -> dict[str, Any]:
        first = {"index": index, "id": self.call_id(index), "type": "function"}
        return {**first, "function": {"name": call.name, "arguments": ""}}

    def writes(self) -> Iterator[Write]:
        """The chunks of this choice. Its role is on the first, whatever that brings."""
        before, after = self._around()
        at = b"%d" % self.index
        rest = b',"finish_reason":null,"index":' + at + b',"logprobs":null}]'
        for number, delta in enumerate(self._deltas()):
            first = number == 0
            shown = {**delta, "role": "assistant"} if first else delta
            kind: Kind = "delta" if not first or "tool_calls" in delta else "open"
            yield Write(before + b'{"delta":' + encode(shown) + rest + after, kind)
        if self.answer.calls:
            last = {"function": {"arguments": ""}, "index": len(self.answer.calls) - 1, "id": "", "type": "function"}
            odd = encode({"tool_calls": [last]})
            yield Write(before + b'{"delta":' + odd + b',"index":' + at + b"}]" + after, "delta")
        reason = encode(self.ending.finish_reason)
        finish = b'{"finish_reason":' + reason + b',"delta":' + self._last() + b',"index":' + at + b',"logprobs":null}]'
        yield Write(before + finish + after, "finish")

    def _last(self) -> bytes:
        if self.answer.calls:
            return b"{}"
        return b'{"content":"","reasoning_content":null}' if self.thinking else b'{"content":""}'

    def _deltas(self) -> Iterator[dict[str, Any]]:
        answer = self.answer
        silent = {"reasoning_content": None} if self.thinking else {}
        if self.thinking:
            yield {"content": None, "reasoning_content": ""}
        elif not answer.calls:
            yield {"content": ""}
        for piece in answer.reasoning:
            yield {"content": None, "reasoning_content": piece}
        for piece in answer.text:
            yield {"content": piece, **silent}
        for index, call in enumerate(answer.calls):
            yield {"content": None, **silent, "tool_calls": [self.named(index, call)]}
            for piece in call.arguments:
                part = {"index": index, "id": "", "type": "function", "function": {"arguments": piece}}
                yield {"content": None, **silent, "tool_calls": [part]}

    def _around(self, usage: bytes = b"null") -> tuple[bytes, bytes]:
        head = {
            "created": int(self.call.wall_s),
            "system_fingerprint": None,
            "model": self.call.document["model"],
            "id": f"chatcmpl-{self.request_id}",
        }
        after = b',"object":"chat.completion.chunk","usage":' + usage + b"," + encode(head)[1:] + b"\n\n"
        return b'data: {"choices":[', after

    def usage_chunk(self) -> Iterator[Write]:
        """After all choices, for those who asked."""
        usage = self.ending.usage(self.usage.told())
        if vendor.wants_usage(self.call.document) and usage is not None:
            before, after = self._around(encode(usage))
            yield Write(before + b"]" + after, "usage")


def compatible_stream(writers: Sequence[Writer]) -> Iterator[Write]:
    """The chunks of all choices, taking turns; then the usage."""
    for turn in zip_longest(*(writer.writes() for writer in writers)):
        yield from (write for write in turn if write is not None)
    yield from writers[0].usage_chunk()
    yield Write(b"data: [DONE]\n\n", "done")


def document(writers: Sequence[Writer]) -> bytes:
    first = writers[0]
    whole: dict[str, Any] = {"choices": [writer.choice() for writer in writers], "object": "chat.completion"}
    if (usage := first.ending.usage(first.usage.told())) is not None:
        whole["usage"] = usage
    whole["created"] = int(first.call.wall_s)
    whole["system_fingerprint"] = None
    whole["model"] = first.call.document["model"]
    whole["id"] = f"chatcmpl-{first.request_id}"
    return encode(whole)


class NativeWriter:
    """One answer in the native dialect: numbered events, and a finish reason that is the word `null` till the end."""

    def __init__(self, call: Call, answer: Answer, request_id: str) -> None:
        self._answer = answer
        self._request_id = request_id
        self._ending = vendor.Ending(call, answer)

    def _whole(self, message: Mapping[str, Any], finish_reason: str, output_tokens: int) -> dict[str, Any]:
        prompt_tokens = self._answer.prompt_tokens
        return {
            "output": {"choices": [{"message": message, "finish_reason": finish_reason}]},
            "usage": {
                "total_tokens": prompt_tokens + output_tokens,
                "output_tokens": output_tokens,
                "input_tokens": prompt_tokens,
            },
            "request_id": self._request_id,
        }

    def _message(self, text: str, reasoning: str) -> dict[str, Any]:
        thought = {"reasoning_content": reasoning} if self._answer.reasoning else {}
        return {"content": text, **thought, "role": "assistant"}

    def document(self) -> bytes:
        answer = self._answer
        message = self._message("".join(answer.text), "".join(answer.reasoning))
        if answer.calls:
            message["tool_calls"] = [
                {
                    "function": {"name": call.name, "arguments": "".join(call.arguments)},
                    "index": index,
                    "id": f"call_{self._request_id.replace('-', '')[:22]}{index:02}",
                    "type": "function",
                }
                for index, call in enumerate(answer.calls)
            ]
        return encode(self._whole(message, self._ending.finish_reason, answer.completion_tokens))

    def stream(self, *, grown: bool) -> Iterator[Write]:
        """`grown`: each event has all that has been said so far. Tool calls come whole, with the last."""
        said = {"content": "", "reasoning_content": ""}
        number = 0
        answer = self._answer
        pieces = chain((("reasoning_content", p) for p in answer.reasoning), (("content", p) for p in answer.text))
        for name, piece in pieces:
            number += 1
            said[name] += piece
            shown = said if grown else {"content": "", "reasoning_content": "", name: piece}
            message = self._message(shown["content"], shown["reasoning_content"])
            yield Write(self.event(number, "result", 200, self._whole(message, "null", number)), "delta")
        if grown or answer.calls:
            last = self.document()
        else:
            last = encode(self._whole(self._message("", ""), self._ending.finish_reason, answer.completion_tokens))
        yield Write(self.framed(number + 1, "result", 200, last), "finish")

    @classmethod
    def event(cls, number: int, name: str, status: int, data: Mapping[str, Any]) -> bytes:
        return cls.framed(number, name, status, encode(data))

    @staticmethod
    def framed(number: int, name: str, status: int, data: bytes) -> bytes:
        return b"id:%d\nevent:%s\n:HTTP_STATUS/%d\ndata:%s\n\n" % (number, name.encode(), status, data)
